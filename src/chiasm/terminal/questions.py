"""What is asked on the command line as a message: words with paths of images in them, images, and signals."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chiasm.conversation import as_messages
from chiasm.data import Message
from chiasm.data.records import MARKER
from chiasm.data.references import path_items
from chiasm.errors import DataError


def items(message: str) -> list[Any]:
    """A message as text and images: paths in it become images, in their places."""
    return [
        item if isinstance(item, str) else {"image": _expanded(item["image"])} for item in path_items(message)
    ]


def question(
    message: str, images: Sequence[Path], signals: Sequence[Mapping[str, Any]] = ()
) -> list[Message]:
    """A message with images that came beside it: where its `<image>` markers stand, or before it if it has none.

    signals: that stand before all else.
    """
    parts = [{"text": item} if isinstance(item, str) else item for item in items(message)]
    attached = [{"image": path} for path in images]
    markers = sum(part.get("text", "").count(MARKER) for part in parts)
    if not markers:
        return as_messages([{"role": "user", "content": [*signals, *attached, *parts]}])
    if markers != len(attached):
        raise DataError(
            f"the message has {markers} {MARKER} markers but {len(attached)} images come with it (-p): each marker "
            "stands for one of them; without markers they stand before the message"
        )
    content = [*signals, *parts]
    return as_messages({"messages": [{"role": "user", "content": content}], "images": list(images)})


def _expanded(path: str) -> str:
    """A path with the user's home for ~; what no name of a user can be stays, and is no file."""
    try:
        return os.path.expanduser(path)
    except ValueError:
        return path
