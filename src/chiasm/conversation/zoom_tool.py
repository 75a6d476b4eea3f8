"""A second look as a tool that an answer calls, within any conversation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chiasm.conversation import Conversation, Reply, as_messages, chat
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Picture, ToolCall
from chiasm.errors import ChiasmError, DataError, quoted
from chiasm.inference.zoom import Zoom, box_of, focused

if TYPE_CHECKING:
    from chiasm.model import Model

NAME = "zoom"
EDGES = ("left", "top", "right", "bottom")


def zoom_tool(settings: Zoom | None = None) -> dict[str, Any]:
    """The tool's declaration: it takes a box of the last image, in numbers up to the settings' `scale`."""
    edge = {"type": "number", "minimum": 0, "maximum": (settings or Zoom()).scale}
    parameters = {"type": "object", "properties": dict.fromkeys(EDGES, edge), "required": list(EDGES)}
    about = "enlarge the part of the last image within a box"
    return {"type": "function", "function": {"name": NAME, "description": about, "parameters": parameters}}


def zoomed(messages: Sequence[Message], call: ToolCall, settings: Zoom | None = None) -> Message:
    """What the tool gives for a call in a conversation: the part of the last image that the user showed.

    In its place, words that say what is wrong with the call.
    """
    settings = settings or Zoom()
    images = [item for m in messages if m.role == "user" for item in m.content if isinstance(item, Picture)]
    try:
        if not images:
            raise DataError("no image was shown")
        edges = [_number(call.arguments.get(edge)) for edge in EDGES]
        _, crop = focused(images[-1], box_of(edges, settings.scale, "the call"), settings.margin)
    except DataError as error:
        return Message("tool", (str(error),), call=call)
    return Message("tool", (PictureInMemory(crop, "the part of an image"),), call=call)


def chat_zooming(
    model: Model, messages: Conversation, settings: Zoom | None = None, *, looks: int = 2, **options: Any
) -> Reply:
    """Answer a conversation in which the model may look closer, at most so many times.

    options: those of `Turn`, but for its tools. Raises ChiasmError where the last look called for another, and as
    `Turn` does.
    """
    if isinstance(looks, bool) or not isinstance(looks, int) or looks < 1:
        raise ChiasmError.of("looks", f"it must be a whole number from 1, not {quoted(looks)}")
    if "tools" in options:
        raise ChiasmError.of(
            "tools", f"{NAME} is the only one here; leave them out, or answer calls of `chat`"
        )
    history = as_messages(messages)
    for _ in range(looks + 1):
        reply = chat(model, history, tools=[zoom_tool(settings)], **options)
        if not reply.calls:
            return reply
        content = (item if isinstance(item, str) else PictureInMemory(item) for item in reply.content)
        history.append(Message("assistant", tuple(content), calls=reply.calls))
        history += [zoomed(history, call, settings) for call in reply.calls]
    raise ChiasmError.of("looks", f"after {looks} the model asked for another; raise them, or ask otherwise")


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise DataError(f"{NAME} takes numbers for {', '.join(EDGES)}")
