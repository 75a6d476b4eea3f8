"""A study as data: what is asked, which arms answer it, on which terms, and how it will be judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from chiasm.errors import RecipeError, nearest, quoted
from chiasm.recipe import Recipe, load_recipe, shipped
from chiasm.storage import safe_yaml

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,60}$")]
Settings = dict[str, Any]  # dotted keys of a recipe


class Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(Fields):
    """One answer to the question. set: what it changes in the recipe, by dotted keys. recipe: another recipe."""

    about: str = ""
    recipe: str | None = None
    set: Settings = {}


class Preset(Fields):
    """How large a run of the study is. concludes: whether it may say more than that everything runs."""

    about: str = ""
    seeds: int | None = Field(None, ge=1, le=1000)
    set: Settings = {}
    concludes: bool = True


class Study(Fields):
    """A question and how it is answered.

    recipe, tiny, set: what all arms share. match: what is held equal, as the report states; it is checked.
    endpoint: the primary score, a dotted place in `eval.json`'s tasks, of which more is better.
    margin: differences smaller than this do not matter; named before the run.
    """

    name: Name
    question: str
    claim: str = ""
    recipe: str
    tiny: bool = False
    set: Settings = {}
    arms: dict[Name, Arm] = Field(min_length=2)
    baseline: Name
    seeds: int = Field(3, ge=1, le=1000)
    match: list[Literal["samples", "parameters", "flops", "tokens"]] = ["samples"]
    endpoint: str = "questions.score"
    margin: float = Field(gt=0, lt=1)
    presets: dict[Name, Preset] = {}

    @model_validator(mode="after")
    def _has_its_baseline(self) -> Study:
        if self.baseline not in self.arms:
            raise ValueError(f"the baseline {self.baseline!r} is none of the arms {', '.join(self.arms)}")
        return self

    @property
    def terms(self) -> str:
        """A hash of what was named before the run: question, arms, endpoint and margin."""
        return _digest(self.model_dump(mode="json"))


@dataclass(frozen=True)
class Cell:
    """One arm with one seed. id: changes with whatever changes what comes out."""

    arm: str
    seed: int
    recipe: Recipe
    id: str

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


def studies() -> dict[str, Path]:
    """The studies that come with Chiasm, by name."""
    return shipped("studies", "study-files")


def load_study(source: str | Path, preset: str | None = None) -> Study:
    """A study by name or file, with a preset laid over it; raises RecipeError naming what is not understood."""
    known = studies()
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        if str(source) not in known:
            raise RecipeError(f"there is no study {quoted(str(source))}{nearest(str(source), known)}")
        path = known[str(source)]
    try:
        raw = safe_yaml.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        raise RecipeError(f"{path}: {place}: {problem['msg']}") from None
    return study if preset is None else _with_preset(study, preset)


def _with_preset(study: Study, name: str) -> Study:
    if name not in study.presets:
        raise RecipeError(
            f"study {study.name!r} has no preset {quoted(name)}{nearest(name, study.presets)}; it has "
            f"{', '.join(study.presets) or 'none'}"
        )
    preset = study.presets[name]
    return study.model_copy(
        update={
            "set": study.set | preset.set,
            "seeds": preset.seeds or study.seeds,
            "presets": {name: preset},
        }
    )


def cells_of(study: Study) -> list[Cell]:
    """All cells, seed by seed, so that a run that is stopped leaves whole comparisons; raises RecipeError.

    Every recipe is checked here: a mistake in the last arm is found before the first is trained. Arms with the
    same seed share the order of their data, and what they have in common begins with the same values.
    """
    cells = []
    for seed in range(study.seeds):
        for name, arm in study.arms.items():
            settings = {**study.set, **arm.set, "seed": seed, "name": f"{study.name}-{name}-{seed}"}
            overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
            try:
                recipe = load_recipe(arm.recipe or study.recipe, overrides, tiny=study.tiny)
            except RecipeError as error:
                raise RecipeError(f"study {study.name!r}, arm {name!r}: {error}") from None
            if recipe.evaluation.data is None:
                raise RecipeError(f"study {study.name!r}, arm {name!r}: its recipe evaluates nothing")
            id = _digest([recipe.model_dump(mode="json"), study.endpoint])
            cells.append(Cell(name, seed, recipe, id))
    return cells


def _digest(content: Any) -> str:
    return hashlib.blake2b(
        json.dumps(content, sort_keys=True, default=list).encode(), digest_size=8
    ).hexdigest()


def score_at(tasks: Mapping[str, Any], endpoint: str) -> float:
    """The value of a dotted place in the tasks of an evaluation; raises RecipeError where there is none."""
    value: Any = tasks
    for key in endpoint.split("."):
        if not isinstance(value, Mapping) or key not in value:
            have = ", ".join(value) if isinstance(value, Mapping) else "a number"
            raise RecipeError(f"the endpoint {endpoint!r} is not in the evaluation: no {key!r}, but {have}")
        value = value[key]
    if not isinstance(value, int | float):
        raise RecipeError(f"the endpoint {endpoint!r} is no number")
    return float(value)
