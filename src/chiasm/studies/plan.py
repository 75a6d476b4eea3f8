"""A study as data: what is asked, which arms answer it, on which terms, and how it will be judged."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from chiasm.errors import RecipeError, check_path, nearest, quoted
from chiasm.recipe import shipped
from chiasm.recipe.problems import sentence
from chiasm.storage import safe_yaml


def _named(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}", name):
        raise ValueError(f"{quoted(name)} is no name; make one of at most 61 letters, digits, _ and -")
    return name


Name = Annotated[str, AfterValidator(_named)]
Settings = dict[str, Any]  # dotted keys of a recipe
Budget = Literal["samples", "tokens", "flops"]
Amount = Annotated[int, Field(ge=1, le=10**12)]
Factor = Annotated[float, Field(gt=0, le=1e6)]


def _rising(numbers: list[Any]) -> list[Any]:
    if sorted(set(numbers)) != numbers:
        raise ValueError(f"{numbers} must rise")
    return numbers


Sizes = Annotated[list[Amount], Field(min_length=1, max_length=20), AfterValidator(_rising)]
Multiples = Annotated[list[Factor], Field(min_length=1, max_length=9), AfterValidator(_rising)]


class Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Width(Fields):
    """A whole number of a recipe, in steps, by which an arm gets as many parameters as the baseline."""

    key: str
    step: int = Field(1, ge=1)
    most: int = Field(1 << 16, ge=1)


class Arm(Fields):
    """One answer to the question. set: what it changes in the recipe, by dotted keys. recipe: another recipe.

    reference: the arm that it is compared with, if it is not the baseline.
    widen: what is made larger or smaller where the study matches `parameters`.
    """

    about: str = ""
    recipe: str | Settings | None = None
    reference: Name | None = None
    set: Settings = {}
    widen: Width | None = None


class DataSizes(Fields):
    """Amounts of data for which every arm is trained. set: how much of each dotted key one unit of them is."""

    sizes: Sizes
    set: dict[str, Factor] = Field(min_length=1)
    unit: str = "scenes"

    def settings(self, size: int) -> Settings:
        return {key: max(1, round(factor * size)) for key, factor in self.set.items()}


class RateSweep(Fields):
    """Multiples of all learning rates, of which each arm gets the best by the endpoint on data of its own."""

    multiples: Multiples
    data: str


class Preset(Fields):
    """How large a run of the study is. concludes: whether it may say more than that everything runs.

    arms: those that are run (the baseline always is), by themselves or with what is set in each; default: all.
    sizes, multiples: instead of the study's.
    """

    about: str = ""
    seeds: int | None = Field(None, ge=1, le=1000)
    set: Settings = {}
    arms: list[Name] | dict[Name, Settings] | None = None
    sizes: Sizes | None = None
    multiples: Multiples | None = None
    concludes: bool = True


class Study(Fields):
    """A question and how it is answered.

    recipe, tiny, set: what all arms share; a recipe is a name, a file, or stands here itself.
    data: amounts of data, where the answer may change with them.
    match: what is held equal. The first of samples, tokens and flops says how long each arm trains: until it has
    taken as much of it as the baseline. parameters: arms with `widen` get as many as the baseline. The rest is
    reported.
    rates: the sweep of learning rates that every arm gets.
    endpoint: the primary score, a dotted place in `eval.json`'s tasks, of which more is better. secondary: others.
    margin: differences smaller than this do not matter; named before the run.
    """

    name: Name
    question: str
    claim: str = ""
    literature: list[str] = []
    recipe: str | Settings
    tiny: bool = False
    set: Settings = {}
    arms: dict[Name, Arm] = Field(min_length=2)
    baseline: Name
    seeds: int = Field(3, ge=1, le=1000)
    data: DataSizes | None = None
    match: list[Literal["samples", "tokens", "flops", "parameters"]] = ["samples"]
    rates: RateSweep | None = None
    endpoint: str = "questions.score"
    secondary: dict[str, str] = {}
    margin: float = Field(gt=0, lt=1)
    presets: dict[Name, Preset] = {}

    @model_validator(mode="after")
    def _names_its_arms(self) -> Study:
        if self.baseline not in self.arms:
            raise ValueError(f"the baseline {self.baseline!r} is none of the arms {', '.join(self.arms)}")
        for name, arm in self.arms.items():
            if arm.reference is not None and (
                arm.reference not in self.arms or name in (arm.reference, self.baseline)
            ):
                raise ValueError(
                    f"arm {name!r} has the reference {arm.reference!r}{nearest(arm.reference, self.arms)}"
                )
        for name, preset in self.presets.items():
            for each in preset.arms or ():
                if each not in self.arms:
                    raise ValueError(f"preset {name!r} runs the arm {each!r}{nearest(each, self.arms)}")
            if preset.sizes and self.data is None:
                raise ValueError(f"preset {name!r} has sizes, but the study has no data: {{sizes, set}}")
            if preset.multiples and self.rates is None:
                raise ValueError(
                    f"preset {name!r} has multiples, but the study has no rates: {{multiples, data}}"
                )
        return self

    @property
    def terms(self) -> str:
        """A hash of what was named before the run: question, arms, endpoint and margin."""
        return digest(self.model_dump(mode="json"))

    def reference_of(self, arm: str) -> str:
        """The arm that an arm is compared with."""
        return self.arms[arm].reference or self.baseline

    @property
    def references(self) -> dict[str, str]:
        """The same for every arm but the baseline."""
        return {arm: self.reference_of(arm) for arm in self.arms if arm != self.baseline}

    @property
    def budget(self) -> Budget | None:
        """What every arm may take as much of as the baseline."""
        return next((kind for kind in self.match if kind != "parameters"), None)

    @property
    def sizes(self) -> list[int | None]:
        return [None] if self.data is None else list(self.data.sizes)


def studies() -> dict[str, Path]:
    """The studies that come with Chiasm, by name."""
    return shipped("studies", "study-files")


def load_study(source: str | Path, preset: str | None = None) -> Study:
    """A study by name or file, with a preset laid over it; raises RecipeError naming what is not understood."""
    shipped_studies = studies()
    path = check_path("study", source, RecipeError)
    if path.suffix not in (".yaml", ".yml"):
        if str(source) not in shipped_studies:
            raise RecipeError(
                f"there is no study {quoted(str(source))}{nearest(str(source), shipped_studies)}"
            )
        path = shipped_studies[str(source)]
    if not path.is_file():
        raise RecipeError(f"there is no study at {path}")
    raw = safe_yaml.read(path)
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{path}: {sentence(error, Study, raw, 'the study')}") from None
    return study if preset is None else _with_preset(study, preset)


def _with_preset(study: Study, name: str) -> Study:
    if name not in study.presets:
        hint = nearest(name, study.presets) or ", nor any other"
        raise RecipeError(f"study {study.name!r} has no preset {quoted(name)}{hint}")
    preset = study.presets[name]
    changed = preset.arms if isinstance(preset.arms, dict) else {}
    chosen = {study.baseline, *(study.arms if preset.arms is None else preset.arms)}
    chosen |= {study.reference_of(arm) for arm in chosen}
    changes: dict[str, Any] = {
        "set": study.set | preset.set,
        "seeds": preset.seeds or study.seeds,
        "arms": {
            arm: each.model_copy(update={"set": each.set | changed.get(arm, {})})
            for arm, each in study.arms.items()
            if arm in chosen
        },
        "presets": {name: preset.model_copy(update={"arms": None})},
    }
    if preset.sizes is not None and study.data is not None:
        changes["data"] = study.data.model_copy(update={"sizes": preset.sizes})
    if preset.multiples is not None and study.rates is not None:
        changes["rates"] = study.rates.model_copy(update={"multiples": preset.multiples})
    return study.model_copy(update=changes)


def digest(content: Any) -> str:
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
