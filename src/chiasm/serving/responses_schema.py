"""What a request for a response may hold (OpenAI's Responses API), and the conversation that it means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from chiasm.data.sample import Message, Picture, ToolCall
from chiasm.data.tool_calls import call_of, link_answers
from chiasm.errors import DataError, naming
from chiasm.serving.messages import ANSWERED, ROLES, RequestImages
from chiasm.serving.schema import (
    MOST_TOKENS,
    DrawingFields,
    FileFields,
    Function,
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


class InputCall(RequestFields):
    """A call of a tool in an answer of the model, as this server gave it."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: Text
    id: str | None = None
    status: str | None = None


class InputCallOutput(RequestFields):
    """What a tool has given."""

    type: Literal["function_call_output"]
    call_id: str
    output: Text
    id: str | None = None
    status: str | None = None


def _kind(item: Any) -> str:
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", "message")
    return str(kind)


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputDrawing, Tag("image_generation_call")]
    | Annotated[InputCall, Tag("function_call")]
    | Annotated[InputCallOutput, Tag("function_call_output")],
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


class DeclaredFunction(Function):
    """A tool that an answer may call; what it gives goes back as an item `function_call_output`."""

    type: Literal["function"]


class TextFormat(RequestFields):
    type: Literal["text"] = "text"


class TextOptions(RequestFields):
    format: TextFormat | None = None


class ResponsesRequest(SamplingFields, DrawingFields):
    input: Annotated[list[InputItem], BeforeValidator(_items), Field(min_length=1, max_length=4096)]
    instructions: Text | None = None
    tools: list[Annotated[ImageTool | DeclaredFunction, Discriminator("type")]] = Field([])
    tool_choice: Literal["auto", "none"] | None = None
    max_output_tokens: int | None = Field(None, gt=0, le=MOST_TOKENS)
    text: TextOptions | None = None
    store: Literal[False] | None = Field(None, description="nothing is kept: send the conversation again")
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    parallel_tool_calls: bool | None = Field(
        None, description="false only where no function is declared: an answer may call several"
    )
    metadata: dict[str, str] | None = Field(None, description="comes back with the response")

    @property
    def drawing(self) -> ImageTool | None:
        """How images come, if the answer may hold any."""
        images = [tool for tool in self._open_tools if isinstance(tool, ImageTool)]
        if len(images) > 1:
            raise DataError.of("tools", "image_generation is there twice")
        return images[0] if images else None

    @property
    def functions(self) -> list[dict[str, Any]]:
        """Declarations of the tools that the answer may call."""
        return [
            {"type": "function", "function": tool.model_dump(exclude_none=True, exclude={"type"})}
            for tool in self._open_tools
            if isinstance(tool, DeclaredFunction)
        ]

    @property
    def _open_tools(self) -> list[Any]:
        return [] if self.tool_choice == "none" else list(self.tools)


def response_messages(body: ResponsesRequest, images: RequestImages) -> list[Message]:
    """Items that follow each other are one answer; raises DataError naming what cannot be read."""
    messages = [Message("system", (body.instructions,))] if body.instructions else []
    for number, item in enumerate(body.input):
        with naming(f"input[{number}]"):
            message = _message(item, f"input[{number}]", images)
        last = messages[-1] if messages else message
        if message.role == last.role == "assistant" and last is not message:
            calls = (*last.calls, *message.calls)
            messages[-1] = Message("assistant", (*last.content, *message.content), calls=calls)
        else:
            messages.append(message)
    if messages[-1].role not in ANSWERED:
        raise DataError.of("input", "its last item is no message of a user; there is nothing to answer")
    if messages[-1].role == "user" and messages[-1].is_blank:
        raise DataError.of("input", "its last item is empty; there is nothing to answer")
    with naming("input"):
        return link_answers(messages)


def _message(item: Any, where: str, images: RequestImages) -> Message:
    if isinstance(item, InputCallOutput):
        if not item.output:
            raise DataError(f"{where} is empty")
        return Message("tool", (item.output,), call=ToolCall("", {}, item.call_id))
    if isinstance(item, InputCall):
        return Message("assistant", (), calls=(call_of(item.name, item.arguments, item.call_id, where),))
    content = tuple(_content(item, where, images))
    if not content:
        raise DataError(f"{where} is empty")
    return Message("assistant" if isinstance(item, InputDrawing) else ROLES[item.role], content)


def _content(item: InputMessage | InputDrawing, where: str, images: RequestImages) -> Iterator[str | Picture]:
    if isinstance(item, InputDrawing):
        yield images.read("data:image/png;base64," + item.result, f"{where}.result")
        return
    for number, part in enumerate(item.content):
        place = f"{where}.content[{number}]"
        if isinstance(part, InputImage):
            if item.role == "assistant":
                raise DataError.of(
                    place, "images of an answer are items of their own (image_generation_call)"
                )
            yield images.read(part.image_url, place)
        elif isinstance(part, OutputText) and item.role != "assistant":
            raise DataError.of(
                place, f"output_text is of an answer of the model, not of the role {item.role!r}"
            )
        elif part.text:
            yield part.text
