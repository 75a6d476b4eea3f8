"""What a recipe is: YAML, checked against the signatures of the parts it names, complete when resolved."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
)

from chiasm import parts
from chiasm.errors import RecipeError, excerpt, nearest, quoted, reason
from chiasm.recipe.forms import refuse_old
from chiasm.recipe.overlay import load_value, merge, nested
from chiasm.recipe.slots import MODEL_SLOTS, as_written, by_slot, check_slots
from chiasm.recipe.stages import check_stages
from chiasm.storage import safe_yaml

if TYPE_CHECKING:
    from chiasm.heads.sampling import Sampling
    from chiasm.inference.text import WordSampling

SEEING = ("views", "encoder", "connector")  # all of them, or none
DRAWING = ("image_tokenizer", "heads.image")  # likewise
CONDITIONING = (
    "heads.image",
    "image_decoder",
)  # likewise, where the head writes what the decoder is conditioned on


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")


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
        "memory for about a third more time, and the same gradients",
    )

    @field_validator("train", mode="before")
    @classmethod
    def _without_null(cls, train: Any) -> Any:
        if not isinstance(train, Mapping):
            return train
        return {slot: rate for slot, rate in by_slot(train, "train").items() if rate is not None}


class Checkpoints(Strict):
    every: int = Field(
        200, gt=0, le=10**9, description="steps between checkpoints; the end of a stage is always one"
    )
    keep: int = Field(2, gt=0, le=10**6, description="how many of the last are kept, beside the best")
    whole: bool = Field(
        False,
        description="each holds the frozen weights too; else the run's folder holds them once, for all checkpoints",
    )


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

        return Sampling(self.guidance, self.temperature, self.top_k, self.top_p)


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


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def load_recipe(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, tiny: bool = False
) -> Recipe:
    """Read, overlay, check and complete a recipe.

    source: a path, the name of a recipe that comes with Chiasm, or the recipe as a mapping.
    overrides: `dotted.key=value`, the value in YAML (`model.connector.depth=3`, `stages.align.steps=10`).
    tiny: apply the recipe's `tiny` overlay first.
    Raises RecipeError, with the nearest name for an unknown one, and OutdatedError for a recipe of an older form.
    """
    raw = _copied(source) if isinstance(source, Mapping) else _read(find_recipe(source))
    if isinstance(source, Mapping):
        refuse_old(raw, None)
        raw = _on_base(raw, Path.cwd()) if "base" in raw else raw
    overlay = raw.pop("tiny", None)
    if tiny:
        if overlay is None:
            raise RecipeError(f"recipe {quoted(raw.get('name', source))} has no 'tiny' overlay")
        raw = merge(raw, overlay)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"override {quoted(override)} is not of the form dotted.key=value")
        raw = merge(raw, nested(key.split("."), load_value(value, override)))
    return resolve(raw)


def _copied(source: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return copy.deepcopy(dict(source))
    except Exception as error:  # whatever an object of the caller's raises
        raise RecipeError(f"the recipe holds what is no plain data: {reason(error)}") from None


def resolve(raw: Mapping[str, Any]) -> Recipe:
    """Check a raw recipe and spell out every default; raises RecipeError."""
    if isinstance(raw, Mapping) and raw.get("start") is not None:
        from chiasm.recipe.start import taken_over

        start = raw["start"]
        if not (isinstance(start, Mapping) and "fingerprint" in start):  # else it is resolved already
            raw = taken_over(raw)
    _check_keys(raw, Recipe, "the recipe")
    safe_yaml.check_plain(raw, "the recipe")
    for name, section in (
        ("checkpoints", Checkpoints),
        ("sampling", SamplingOptions),
        ("evaluation", Evaluation),
    ):
        _check_keys(raw.get(name, {}), section, name)
    for stage in _sequence(raw.get("stages", []), "stages"):
        _check_keys(
            stage,
            Stage,
            f"stage {quoted(stage.get('name', '?'))}" if isinstance(stage, Mapping) else "a stage",
        )
    if isinstance(raw["model"], Mapping):
        raw = {**raw, "model": by_slot(raw["model"], "model")}
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        where = excerpt(".".join(map(str, problem["loc"])), 200)
        raise RecipeError(f"{where}: {problem['msg'].lower().removeprefix('value error, ')}") from None
    _check_model(recipe.model, teaches=any(stage.objective is not None for stage in recipe.stages))
    model = {
        slot: parts.check(MODEL_SLOTS[slot], spec, f"model.{slot}")
        for slot, spec in _completed(recipe.model).items()
    }
    data = {name: parts.check("data", spec, f"data.{name}") for name, spec in recipe.data.items()}
    stages = tuple(_with_objective(stage) for stage in recipe.stages)
    recipe = recipe.model_copy(update={"model": model, "data": data, "stages": stages})
    check_stages(recipe)
    return recipe


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe given by path or by name; raises RecipeError."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1 or path.exists():
        if not path.exists():
            raise RecipeError(f"there is no recipe at {path}: no such file or folder")
        if path.is_dir():
            path = path / "recipe.yaml"
        if not path.is_file():
            raise RecipeError(f"there is no recipe at {path}")
        return path
    shipped = recipes()
    if str(source) not in shipped:
        raise RecipeError(f"there is no recipe {quoted(str(source))}{nearest(str(source), shipped)}")
    return shipped[str(source)]


def recipes() -> dict[str, Path]:
    """The recipes that come with Chiasm, by name."""
    return shipped("recipes", "recipes")


def shipped(folder: str, packaged: str) -> dict[str, Path]:
    """The YAML files of a folder of the repository, by name; in a wheel it has the name `packaged`."""
    package = Path(__file__).parents[1]
    place = next(filter(Path.is_dir, (package / packaged, package.parents[1] / folder)), None)
    return {} if place is None else {path.stem: path for path in sorted(place.glob("*.yaml"))}


def about(path: Path) -> str:
    """The line `about` of a recipe's file, without reading the rest."""
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("about:"))
    line = next(lines, "about: ''")
    return str(safe_yaml.parse(line, str(path))["about"])


def read_raw(path: Path) -> dict[str, Any]:
    """What a recipe's file holds, of whatever form; raises RecipeError."""
    raw = safe_yaml.read(path)
    if not isinstance(raw, dict):
        raise RecipeError(f"{path} must hold a mapping with 'name', 'model', 'data' and 'stages'")
    return raw


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """above: the files that are laid over this one."""
    raw = read_raw(path)
    refuse_old(raw, path)
    return _on_base(raw, path.parent, (*above, path.resolve())) if "base" in raw else raw


def _on_base(raw: dict[str, Any], folder: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A raw recipe laid over the one that it names as its `base`, a file beside it or a recipe of Chiasm's."""
    base = raw.pop("base")
    if not isinstance(base, str):
        raise RecipeError(f"base must be the file or the name of a recipe, not {quoted(base)}")
    path = find_base(base, folder)
    if path.resolve() in above:
        raise RecipeError(
            f"{path} is its own base: {' on '.join(each.name for each in above)} on {path.name}"
        )
    under = _read(path, above)
    refuse_old(raw, above[-1] if above else None, under)
    return merge(under, raw)


def find_base(base: str, folder: Path) -> Path:
    """The file of what a recipe in a folder names as its `base`; raises RecipeError."""
    beside = folder / base
    return beside if beside.is_file() else find_recipe(base)


def _check_keys(raw: Any, model: type[BaseModel], where: str) -> None:
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{where} must be a mapping, not {quoted(raw)}")
    for key in raw:
        if key not in model.model_fields:
            raise RecipeError(f"{where} has no key {quoted(key)}{nearest(str(key), model.model_fields)}")
    for key, field in model.model_fields.items():
        if field.is_required() and key not in raw:
            raise RecipeError(f"{where} lacks the key {quoted(key)}")


def _sequence(value: Any, where: str) -> Iterable[Any]:
    if not isinstance(value, list | tuple):
        raise RecipeError(f"{where} must be a list, not {quoted(value)}")
    return value


def _check_model(model: Mapping[str, Any], *, teaches: bool) -> None:
    """teaches: a stage has an objective, for which an image tokenizer alone can make what is to be predicted."""
    check_slots(model)
    drawing = CONDITIONING if _conditions(model) else DRAWING
    groups = (
        (SEEING, drawing) if "language" in model else ()
    )  # without it, parts stand alone (an imported VQGAN)
    for group in groups:
        missing = [slot for slot in group if slot not in model]
        if 0 < len(missing) < len(group) and not (teaches and missing == ["heads.image"]):
            raise RecipeError(f"model lacks {', '.join(missing)}: {', '.join(group)} belong together")


def _conditions(model: Mapping[str, Any]) -> bool:
    """Whether the image head writes what the decoder is conditioned on; a head that is none says so later."""
    alphabet = model.get("heads.image", {}).get("alphabet")
    name = alphabet.get("type") if isinstance(alphabet, Mapping) else None
    return name in parts.names("alphabet") and getattr(parts.lookup("alphabet", name), "conditions", False)


def _completed(model: Mapping[str, Any]) -> dict[str, Any]:
    """The slots in the order in which data passes, with what goes without saying."""
    model = dict(model)
    if "language" in model:
        model.setdefault("routing", {"type": "shared"})
    if "image_tokenizer" in model and _decodes(model["image_tokenizer"]):
        model.setdefault("image_decoder", {"type": "tokenizer"})
    return {slot: model[slot] for slot in MODEL_SLOTS if slot in model}


def _decodes(tokenizer: Any) -> bool:
    """Whether an image tokenizer makes pixels; one that is none says so later."""
    name = tokenizer.get("type") if isinstance(tokenizer, Mapping) else None
    if not isinstance(name, str) or name not in parts.names("image_tokenizer"):
        return True
    return bool(getattr(parts.lookup("image_tokenizer", name), "decodes", True))


def _with_objective(stage: Stage) -> Stage:
    if stage.objective is None:
        return stage
    checked = parts.check("objective", stage.objective, f"stages.{stage.name}.objective")
    return stage.model_copy(update={"objective": checked})


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{prefix}{i}.").items()}
    return {prefix[:-1]: value}
