"""A second look as a tool that an answer calls, within any conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chiasm.conversation import Conversation, Reply, as_messages, chat
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Picture, ToolCall
from chiasm.errors import ChiasmError, DataError
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
    shown = [item for m in messages if m.role == "user" for item in m.content if isinstance(item, Picture)]
    edges = [call.arguments.get(edge) for edge in EDGES]
    try:
        if not shown:
            raise DataError("no image was shown")
        if not all(isinstance(edge, int | float) for edge in edges):
            raise DataError(f"{NAME} takes numbers for {', '.join(EDGES)}")
        numbers = [float(edge) for edge in edges if isinstance(edge, int | float)]
        _, crop = focused(shown[-1], box_of(numbers, settings.scale, "the call"), settings.margin)
    except DataError as error:
        return Message("tool", (str(error),), call=call)
    return Message("tool", (PictureInMemory(crop, "the part of an image"),), call=call)


def chat_zooming(
    model: Model, messages: Conversation, settings: Zoom | None = None, *, looks: int = 2, **options: Any
) -> Reply:
    """Answer a conversation in which the model may look closer, at most so many times.

    options: those of `Turn`, but for its tools. Raises ChiasmError where the last look called for another.
    """
    history = as_messages(messages)
    for _ in range(looks + 1):
        reply = chat(model, history, tools=[zoom_tool(settings)], **options)
        if not reply.calls:
            return reply
        words = (reply.text,) if reply.text else ()
        history.append(Message("assistant", words, calls=reply.calls))
        history += [zoomed(history, call, settings) for call in reply.calls]
    raise ChiasmError.of("looks", f"after {looks} the model asked for another; raise them, or ask otherwise")
