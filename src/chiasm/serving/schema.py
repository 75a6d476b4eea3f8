"""What requests may hold: OpenAI's fields that a model here can honour, and a few of our own; nothing else.

A field that is not listed, or a value of it that cannot be honoured, is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_TOKENS = 1 << 16
Text = Annotated[str, StringConstraints(max_length=1 << 20)]
Seed = Annotated[int, Field(ge=0, le=(1 << 63) - 1, description="what is drawn by chance repeats with it")]
Guidance = Annotated[
    float | None, Field(ge=1, le=1000, description="classifier-free guidance of images; 1 = none")
]
ImageTemperature = Annotated[float | None, Field(ge=0, le=1000, description="of images; 0 = greedy")]
ImageTopK = Annotated[
    int | None, Field(ge=0, le=1 << 31, description="codes an image may choose from at each place; 0 = all")
]


ImageTopP = Annotated[
    float | None,
    Field(gt=0, le=1, description="the likeliest codes whose chances reach this together; 1 = all"),
]


class RequestFields(BaseModel):
    """Fields of JSON: a number in quotes, or true for a number, is refused. (In a form all are text.)"""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(RequestFields):
    include_usage: bool = Field(False, description="a last event with the tokens of prompt and answer")


class TextPart(RequestFields):
    type: Literal["text"]
    text: Text


class ImageURL(RequestFields):
    url: str = Field(description="data:image/...;base64,...")
    detail: Literal["auto"] = Field(
        "auto", description="how an image is cut is the model's, not the request's"
    )


class ImagePart(RequestFields):
    type: Literal["image_url"]
    image_url: ImageURL
    index: int | None = Field(None, description="its number among the images of an answer; has no effect")


class SignalNumbers(RequestFields):
    modality: str = Field(description="its name in the recipe, as /v1/models has it")
    data: str = Field(description="base64 of the numbers in a file as numpy.save writes it (.npy)")


class SignalPart(RequestFields):
    """A signal of a modality beside text and images."""

    type: Literal["signal"]
    signal: SignalNumbers


Part = Annotated[TextPart | ImagePart | SignalPart, Field(discriminator="type")]


class CalledFunction(RequestFields):
    name: str
    arguments: Text = Field("{}", description="an object, as JSON")


class ChatCall(RequestFields):
    """A call of a tool in an answer of the model, as this server gave it."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(None, description="its number in a stream; has no effect")


class Function(RequestFields):
    name: str
    description: Text | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of an object")
    strict: Literal[False] | None = Field(None, description="arguments come as the model writes them")


class FunctionTool(RequestFields):
    """A tool that an answer may call; what it gives goes back as a message of the role `tool`."""

    type: Literal["function"]
    function: Function


class ChatMessage(RequestFields):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None
    images: list[ImagePart] | None = Field(
        None, description="of an answer of the model, behind its text, as this server gave them"
    )
    tool_calls: list[ChatCall] | None = Field(None, description="of an answer of the model")
    tool_call_id: str | None = Field(None, description="of a tool's answer: the call that it belongs to")
    refusal: None = None
    name: None = None


class SamplingFields(RequestFields):
    """How words are chosen; what is left out is as the model's recipe has it."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2, description="of words; 0 = greedy")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1 << 31, description="words the next may be drawn from; 0 = all")
    repetition_penalty: float | None = Field(None, gt=0, le=1000)
    stop: Text | list[Text] | None = Field(None, description="what ends an answer and is no part of it")
    seed: Seed | None = None
    stream: bool | None = False
    user: str | None = Field(None, description="has no effect")


class DrawingFields(RequestFields):
    """How the images of an answer are drawn."""

    guidance_scale: Guidance = None
    image_temperature: ImageTemperature = None
    image_top_k: ImageTopK = None
    image_top_p: ImageTopP = None


# Options of images by the names of `sampling_of`, and the fields that give them.
DRAWING = {
    "guidance": "guidance_scale",
    "temperature": "image_temperature",
    "top_k": "image_top_k",
    "top_p": "image_top_p",
}


class WordFields(SamplingFields):
    max_tokens: int | None = Field(None, gt=0, le=MOST_TOKENS)
    n: Literal[1] | None = Field(None, description="one answer a request")
    stream_options: StreamOptions | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None


class ResponseFormat(RequestFields):
    type: Literal["text"]


class ChatRequest(WordFields, DrawingFields):
    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(None, gt=0, le=MOST_TOKENS)
    modalities: list[Literal["text", "image"]] | None = Field(
        None, min_length=1, description="what an answer may hold; left out, all that the model can"
    )
    ordered_content: bool = Field(
        False,
        description="content is a list of text and images in their order, instead of text beside images",
    )
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none"] | None = Field(None, description="none: they are left out")
    parallel_tool_calls: Literal[True] | None = None
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None


class TokensRequest(RequestFields):
    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)


class SignalsRequest(RequestFields):
    model: str
    modality: str = Field(description="of the signal that shall answer")
    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    seed: Seed | None = None


class CompletionRequest(WordFields):
    prompt: Annotated[Text, Field(min_length=1)]
    echo: Literal[False] | None = None


class FileFields(RequestFields):
    """As which files images come, and how many that are not whole yet before each."""

    size: str | None = Field("auto", description="auto, or the size that the model draws")
    quality: Literal["auto"] | None = None
    background: Literal["auto", "opaque"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = "png"
    output_compression: int | None = Field(None, ge=0, le=100, description="quality of jpeg and webp")
    partial_images: int | None = Field(0, ge=0, le=3)


class ImagesRequest(FileFields):
    prompt: Annotated[Text, Field(min_length=1)]
    model: str | None = Field(None, description="left out, the one that draws")
    n: int | None = Field(1, ge=1, le=10)
    style: None = None
    response_format: Literal["b64_json"] | None = None
    stream: bool | None = False
    seed: Seed | None = None
    guidance_scale: Guidance = None
    negative_prompt: Text | None = Field(
        None, description="words that guidance leads away from; left out, no words at all"
    )
    temperature: ImageTemperature = None
    top_k: ImageTopK = None
    top_p: ImageTopP = None
    user: str | None = Field(None, description="has no effect")


class ImageReference(RequestFields):
    image_url: str = Field(description="data:image/...;base64,...")


class ReconstructionRequest(RequestFields):
    model: str
    image: ImageReference


class EditsRequest(ImagesRequest):
    images: list[ImageReference] = Field(
        min_length=1, description="the image under the mask, or those that are read before the prompt"
    )
    mask: ImageReference | None = Field(
        None,
        description="an image of the same size; where it is fully transparent, new is drawn, all else keeps its "
        "codes. Left out, the prompt is an instruction, and all is drawn anew",
    )


def drawing_names(request: DrawingFields) -> dict[str, str]:
    """The options of images that a request gives, each with the name of its field."""
    return {name: field for name, field in DRAWING.items() if getattr(request, field) is not None}


def sampling_options(request: SamplingFields, tokens: int | None) -> dict[str, Any]:
    """What a request asks of words and images, by the names of `chiasm.inference.options.sampling_of`.

    tokens: most of the answer.
    """
    options: dict[str, Any] = {
        "tokens": tokens,
        "word_temperature": request.temperature,
        "word_top_k": request.top_k,
        "word_top_p": request.top_p,
        "repetition_penalty": request.repetition_penalty,
        "stop": None if request.stop == [] else request.stop,
    }
    if isinstance(request, DrawingFields):
        options |= {name: getattr(request, field) for name, field in DRAWING.items()}
    return {key: value for key, value in options.items() if value is not None}
