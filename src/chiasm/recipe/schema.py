"""What stands in a recipe: its sections, their keys and their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from chiasm.errors import quoted
from chiasm.parts.signature import has_stray_boolean
from chiasm.recipe.files import write_text
from chiasm.recipe.slots import as_written, by_slot
from chiasm.storage import safe_yaml

if TYPE_CHECKING:
    from chiasm.heads.sampling import Sampling
    from chiasm.inference.text import WordSampling


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if has_stray_boolean(cls.model_fields[str(info.field_name)].annotation, value):
            raise ValueError(f"{quoted(value)}: a boolean is no number")
        return value


def _file_name(name: str) -> str:
    """Names of recipes and stages become names of folders and files."""
    if "/" in name or "\\" in name:
        raise ValueError(
            f"{quoted(name)} cannot be a name: it would leave its folder; use - or _ for a slash"
        )
    if not name or name.startswith(".") or len(name.encode()) > 100 or not name.isprintable():
        raise ValueError(f"{quoted(name)} cannot be a name: 1 to 100 printable bytes, and no dot in front")
    return name


Name = Annotated[str, AfterValidator(_file_name)]
Rate = Annotated[float, Field(ge=0, le=1000)]
Share = Annotated[float, Field(ge=0, le=1e6)]
Beta = Annotated[float, Field(ge=0, lt=1)]


def _without_null(items: Any) -> Any:
    """The items of a mapping but those that an overlay has taken out."""
    return {k: v for k, v in items.items() if v is not None} if isinstance(items, Mapping) else items


class Stage(Strict):
    """One stage of training; what `train` does not name is frozen.

    A stage that trains the image tokenizer or the image decoder trains it alone, on the images of its data. A stage
    with an objective trains what the objective can, on images with their texts and labels, and its own weights as
    `objective`.
    """

    name: Name
    train: dict[str, Rate] = Field(
        description="peak learning rate of each slot that is trained; null, as an overlay may say, freezes it"
    )
    data: dict[str, Share] = Field(description="share of each data source, by samples")
    steps: int = Field(gt=0, le=10**9, description="optimiser steps")
    objective: dict[str, Any] | None = Field(
        None, description="what is learnt, where it is not the model's own losses: {type: NAME, ...}"
    )
    rows: int = Field(
        8,
        gt=0,
        le=1 << 16,
        description="rows of a packed batch; of an image tokenizer or an objective, images",
    )
    length: int = Field(512, gt=0, le=1 << 22, description="positions of a row")
    pictures: int | None = Field(None, gt=0, le=1 << 16, description="most images of a row")
    blind: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of questions read without their images, so that the blind control is fair",
    )
    accumulate: int = Field(1, gt=0, le=1 << 16, description="batches of one optimiser step")
    optimiser: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: for matrices of the stacks of layers"
    )
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.03, ge=0, le=1, description="share of the steps in which the rate rises")
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0, le=100)
    clip: float = Field(1.0, gt=0, le=1e9, description="largest norm of the gradient")
    weights: dict[str, Share] = Field({}, description="weight of a loss by its name; 1 where not named")
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    recompute: bool = Field(
        False,
        description="layers compute their activations again in the backward pass instead of keeping them: less "
        "memory for one more forward pass, and the same gradients",
    )

    @field_validator("train", mode="before")
    @classmethod
    def _trained(cls, train: Any) -> Any:
        return _without_null(by_slot(train, "train") if isinstance(train, Mapping) else train)

    @field_validator("data", "weights", mode="before")
    @classmethod
    def _used(cls, items: Any) -> Any:
        return _without_null(items)


class Checkpoints(Strict):
    every: int = Field(
        200, gt=0, le=10**9, description="steps between checkpoints; the end of a stage is always one"
    )
    keep: int = Field(2, gt=0, le=10**6, description="how many of the last are kept, beside the best")
    whole: bool = Field(
        False,
        description="each holds the frozen weights too; else the run's folder holds them once, for all checkpoints",
    )


OF_IMAGES = ("guidance", "temperature", "top_k", "top_p")  # all others are of words


class SamplingOptions(Strict):
    """How answers and images are drawn from the model."""

    guidance: float = Field(1.0, ge=1, le=1000, description="classifier-free guidance of images; 1 = none")
    temperature: float = Field(1.0, ge=0, le=1000, description="of images; 0 = greedy")
    top_k: int = Field(
        0, ge=0, le=1 << 31, description="codes an image may choose from at each place; 0 = all"
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="likewise, the fewest likeliest whose chances reach it together; 1 = all"
    )
    answer_tokens: int = Field(64, gt=0, le=1 << 22, description="most tokens of an answer")
    word_temperature: float = Field(0.0, ge=0, le=1000, description="of words; 0 = greedy")
    word_top_k: int = Field(0, ge=0, le=1 << 31, description="words that the next may be drawn from; 0 = all")
    word_top_p: float = Field(
        1.0, gt=0, le=1, description="the next word is of the likeliest whose chances reach this; 1 = all"
    )
    repetition_penalty: float = Field(
        1.0, gt=0, le=1000, description="by how much words that stand there already are less likely; 1 = none"
    )
    stop: tuple[str, ...] = Field((), description="texts any of which ends an answer")

    @field_validator("stop", mode="before")
    @classmethod
    def _of_texts(cls, stop: Any) -> Any:
        """One text stands for a list of it."""
        texts = [stop] if isinstance(stop, str) else stop
        if not isinstance(texts, list | tuple) or not all(isinstance(each, str) and each for each in texts):
            raise ValueError("it must be a text that is not empty, or a list of such texts")
        return tuple(texts)

    @property
    def of_words(self) -> WordSampling:
        from chiasm.inference.text import WordSampling

        return WordSampling(
            self.word_temperature, self.word_top_k, self.word_top_p, self.repetition_penalty, self.stop
        )

    @property
    def of_images(self) -> Sampling:
        from chiasm.heads.sampling import Sampling

        return Sampling(**{name: getattr(self, name) for name in OF_IMAGES})


EarlierAnswers = Literal["true", "model"]


class Evaluation(Strict):
    """What `chiasm eval` measures, and how."""

    data: str | None = Field(None, description="data source of the held-out samples; none = no evaluation")
    questions: int = Field(600, ge=0, le=10**9)
    phrasings: int = Field(
        600, ge=0, le=10**9, description="questions worded in ways that are held out of training"
    )
    pictures: int = Field(128, ge=0, le=10**9)
    text: int = Field(300, ge=0, le=10**9, description="questions told in words only")
    labelled: tuple[str, str] | None = Field(
        None,
        description="sources of images of one thing each, learnt from and held out, to judge the encoder",
    )
    labelled_pictures: int = Field(1000, gt=0, description="most images of each of the two")
    metric: str = Field("exact", description="how an answer is compared with the true ones, by name")
    earlier_answers: EarlierAnswers = Field(
        "true",
        description="what stands before a later question of a conversation: true answers or the model's",
    )
    answer_tokens: int | None = Field(
        None, gt=0, le=1 << 22, description="most tokens of an answer; default: by the longest true one"
    )
    tasks: dict[str, dict[str, Any]] = Field({}, description="options of evaluation tasks, by their names")

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the data that it reads, once each."""
        return tuple(name for name in dict.fromkeys((self.data, *(self.labelled or ()))) if name is not None)

    @field_validator("tasks", mode="before")
    @classmethod
    def _named(cls, tasks: Any) -> Any:
        return _without_null(tasks)


class Start(Strict):
    """The checkpoint whose weights a model begins with; a recipe's file has the folder, or folder and slots."""

    folder: str
    fingerprint: str = Field(description="of the weights")
    slots: tuple[str, ...] | None = Field(None, description="only these parts of it; none = all")


class Recipe(Strict):
    """A model, its data and the stages of its training. model: by the names of its slots (`recipe/slots.py`)."""

    name: Name
    about: str = ""
    seed: int = Field(0, ge=0, lt=1 << 63)
    start: Start | None = None
    model: dict[str, dict[str, Any]]
    data: dict[str, dict[str, Any]]
    stages: tuple[Stage, ...]
    checkpoints: Checkpoints = Checkpoints()
    sampling: SamplingOptions = SamplingOptions()
    evaluation: Evaluation = Evaluation()

    @field_validator("model", "data", mode="before")
    @classmethod
    def _present(cls, items: Any) -> Any:
        return _without_null(items)

    @field_serializer("model")
    def _as_written(self, model: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return as_written(model)

    def to_yaml(self) -> str:
        return safe_yaml.write(self.model_dump(mode="json"))

    def save(self, path: Path) -> None:
        """Write the complete recipe, replacing the file atomically."""
        write_text(path, self.to_yaml())

    def differs_from(self, other: Recipe) -> list[str]:
        """Dotted keys in which the two recipes differ."""
        own, others = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return sorted(key for key in own.keys() | others.keys() if own.get(key) != others.get(key))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{prefix}{i}.").items()}
    return {prefix[:-1]: value}
