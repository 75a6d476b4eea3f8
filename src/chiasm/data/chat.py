"""Conversations in a JSON or JSON Lines file, as LLaVA and the OpenAI-style chat formats write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from chiasm.data import Source
from chiasm.data.files import PictureFile
from chiasm.data.sample import Message, Picture, Role, Sample
from chiasm.errors import DataError, nearest

MARKER = "<image>"
ROLES: dict[str, Role] = {
    "human": "user",
    "gpt": "assistant",
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "document": "document",
}


class Chat(Source, name="chat"):
    """Conversations from a file, one a line (.jsonl) or one list (.json).

    A record is LLaVA's (`conversations` of `from` and `value`, pictures in `image`) or a message list (`messages`
    of `role` and `content`, pictures in `images` or in the content as `{"type": "image", "image": PATH}`). Each
    `<image>` in a text stands for the next picture; a picture in an assistant's turn is written by the model.

    Args:
        path: the file.
        images: folder that relative picture paths start from; default: the file's own.
        broken: what becomes of a record that cannot be used: an error, or skipped and counted.
    """

    def __init__(self, *, path: str, images: str | None = None, broken: Literal["error", "skip"] = "error"):
        self.path = Path(path)
        self.images = Path(images) if images else self.path.parent
        self.broken = broken
        self.skipped = 0
        self._digest = hashlib.sha256()
        self._records = list(self._read())
        if not self._records:
            raise DataError(
                f"{self.path} holds no conversation{f' ({self.skipped} skipped)' if self.skipped else ''}"
            )

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()[:32]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> list[Sample]:
        number, text = self._records[index]
        return [self._sample(number, json.loads(text))]

    def _read(self) -> Iterator[tuple[int, bytes]]:
        """(number, JSON) of each record that can be used, checked but not kept parsed: files can be large."""
        for number, text in _records(self.path):
            self._digest.update(text)
            try:
                self._sample(number, _parsed(text, self._where(number)))
            except DataError:
                if self.broken == "error":
                    raise
                self.skipped += 1
            else:
                yield number, text

    def _where(self, number: int) -> str:
        return f"sample {number} of {self.path.name}"

    def _sample(self, number: int, record: Any) -> Sample:
        where = self._where(number)
        turns, pictures = self._turns(record, where)
        messages: list[Message] = []
        used = 0
        for role, content in turns:
            items: list[str | Picture] = []
            for item in content:
                if isinstance(item, Picture):
                    items.append(item)
                    continue
                first, *rest = item.split(MARKER)
                items.append(first)
                for text in rest:
                    if used < len(pictures):
                        items.append(pictures[used])
                    used += 1
                    items.append(text)
            messages.append(Message(role, tuple(item for item in items if item != "")))
        if used != len(pictures):
            raise DataError(f"{where} has {len(pictures)} images but {used} {MARKER} markers")
        _check_turns(messages, where)
        return Sample(where, tuple(messages), {"task": "chat"})

    def _turns(self, record: Any, where: str) -> tuple[list[tuple[Role, list[str | Picture]]], list[Picture]]:
        """Roles with their contents, and the pictures that the markers stand for."""
        if not isinstance(record, dict):
            raise DataError(f"{where} is {record!r}; it must be an object with 'messages' or 'conversations'")
        keys = ("conversations", "from", "value", "image") if "conversations" in record else (
            "messages", "role", "content", "images")  # fmt: skip
        listed, role_key, content_key, picture_key = keys
        if listed not in record or not isinstance(record[listed], list):
            raise DataError(f"{where} has neither a list 'messages' nor a list 'conversations'")
        turns = []
        for turn in record[listed]:
            if not isinstance(turn, dict) or role_key not in turn or content_key not in turn:
                raise DataError(f"{where} has a turn without {role_key!r} or {content_key!r}: {turn!r}")
            role = str(turn[role_key])
            if role not in ROLES:
                raise DataError(f"{where} has a turn of role {role!r}{nearest(role, ROLES)}")
            turns.append((ROLES[role], self._content(turn[content_key], where)))
        named = record.get(picture_key) or []
        return turns, [self._picture(each, where) for each in (named if isinstance(named, list) else [named])]

    def _content(self, content: Any, where: str) -> list[str | Picture]:
        items: list[str | Picture] = []
        for item in content if isinstance(content, list) else [content]:
            if isinstance(item, str):
                items.append(item)
            elif isinstance(item, dict) and isinstance(item.get("text"), str):
                items.append(item["text"])
            elif isinstance(item, dict) and "image" in item:
                items.append(self._picture(item["image"], where))
            else:
                raise DataError(f"{where} has content {item!r}; it must be text or an image with its path")
        return items

    def _picture(self, path: Any, where: str) -> Picture:
        if not isinstance(path, str):
            raise DataError(f"{where} names the picture {path!r}; it must be a path")
        full = self.images / path
        if not full.is_file():
            raise DataError(f"{where} shows {path}, but there is no picture at {full}")
        return PictureFile(full)


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(1-based number, JSON text) of every record of the file."""
    try:
        if path.suffix == ".json":
            whole = _parsed(path.read_bytes(), str(path))
            if not isinstance(whole, list):
                raise DataError(f"{path} must hold a list of conversations")
            yield from ((number, json.dumps(record).encode()) for number, record in enumerate(whole, 1))
            return
        with path.open("rb") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except OSError as error:
        raise DataError(f"the data file {path} cannot be read: {error.strerror}") from None


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from None


def _check_turns(messages: list[Message], where: str) -> None:
    if [message.role for message in messages] == ["document"]:
        return
    if not any(message.role == "assistant" for message in messages):
        raise DataError(f"{where} has no turn of an assistant: there is nothing to learn")
    talk = [message.role for message in messages if message.role != "system"]
    if any(role != ("user", "assistant")[i % 2] for i, role in enumerate(talk)):
        raise DataError(f"{where} must alternate between user and assistant; its turns are {', '.join(talk)}")
