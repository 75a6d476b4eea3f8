"""What a request for a response may hold (OpenAI's Responses API), and the conversation that it means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from chiasm.data.sample import Message, Picture
from chiasm.errors import DataError
from chiasm.serving.messages import ROLES, RequestImages
from chiasm.serving.schema import (
    MOST_TOKENS,
    DrawingFields,
    FileFields,
    RequestFields,
    SamplingFields,
    Text,
)


class InputText(RequestFields):
    type: Literal["input_text"]
    text: Text


class OutputText(RequestFields):
    type: Literal["output_text"]
    text: Text
    annotations: list[Any] = Field([], max_length=0)
    logprobs: list[Any] | None = Field(None, max_length=0)


class InputImage(RequestFields):
    type: Literal["input_image"]
    image_url: str = Field(description="data:image/...;base64,...")
    detail: Literal["auto"] | None = None
    file_id: None = None


FORMS = ("message", "image_generation_call", "input_text", "output_text", "input_image")  # of what is said
InputPart = Annotated[InputText | OutputText | InputImage, Discriminator("type")]


def _parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


class InputMessage(RequestFields):
    """Text and images of a user, or text of an answer of the model, as this server gave it."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[InputPart], BeforeValidator(_parts)]
    id: str | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None
    phase: None = None


class InputDrawing(RequestFields):
    """An image of an answer of the model, as this server gave it."""

    type: Literal["image_generation_call"]
    id: str
    result: str
    status: str | None = None
    output_format: str | None = None
    size: str | None = None
    quality: str | None = None
    background: str | None = None
    action: str | None = None
    revised_prompt: str | None = None
    error: None = None


def _kind(item: Any) -> str:
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", "message")
    return str(kind)


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")] | Annotated[InputDrawing, Tag("image_generation_call")],
    Discriminator(_kind),
]


def _items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


class ImageTool(FileFields):
    """An answer may hold images; without this tool it is text alone."""

    type: Literal["image_generation"]
    model: None = None
    action: Literal["auto", "generate"] | None = None
    moderation: None = None


class TextFormat(RequestFields):
    type: Literal["text"] = "text"


class TextOptions(RequestFields):
    format: TextFormat | None = None


class ResponsesRequest(SamplingFields, DrawingFields):
    input: Annotated[list[InputItem], BeforeValidator(_items), Field(min_length=1, max_length=4096)]
    instructions: Text | None = None
    tools: list[ImageTool] = Field([], max_length=1)
    tool_choice: Literal["auto", "none"] | None = None
    max_output_tokens: int | None = Field(None, gt=0, le=MOST_TOKENS)
    text: TextOptions | None = None
    store: Literal[False] | None = Field(None, description="nothing is kept: send the conversation again")
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    parallel_tool_calls: bool | None = Field(None, description="has no effect: an answer is in its order")
    metadata: dict[str, str] | None = Field(None, description="comes back with the response")

    @property
    def drawing(self) -> ImageTool | None:
        """How images come, if the answer may hold any."""
        return self.tools[0] if self.tools and self.tool_choice != "none" else None


def response_messages(body: ResponsesRequest, images: RequestImages) -> list[Message]:
    """Items that follow each other are one answer; raises DataError naming what cannot be read."""
    messages = [Message("system", (body.instructions,))] if body.instructions else []
    contents: list[tuple[str, list[str | Picture]]] = []
    for number, item in enumerate(body.input):
        where = f"input[{number}]"
        role = "assistant" if isinstance(item, InputDrawing) else item.role
        content = list(_content(item, where, images))
        if not content:
            raise DataError(f"{where} is empty")
        if role == "assistant" and contents and contents[-1][0] == role:
            contents[-1][1].extend(content)
        else:
            contents.append((role, content))
    messages += [Message(ROLES[role], tuple(content)) for role, content in contents]
    if messages[-1].role != "user":
        raise DataError("input: its last item is no message of a user; there is nothing to answer")
    return messages


def _content(item: InputMessage | InputDrawing, where: str, images: RequestImages) -> Iterator[str | Picture]:
    if isinstance(item, InputDrawing):
        yield images.read("data:image/png;base64," + item.result, f"{where}.result")
        return
    for number, part in enumerate(item.content):
        place = f"{where}.content[{number}]"
        if isinstance(part, InputImage):
            if item.role == "assistant":
                raise DataError(
                    f"{place}: images of an answer are items of their own (image_generation_call)"
                )
            yield images.read(part.image_url, place)
        elif isinstance(part, OutputText) and item.role != "assistant":
            raise DataError(
                f"{place}: output_text is of an answer of the model, not of the role {item.role!r}"
            )
        elif part.text:
            yield part.text
