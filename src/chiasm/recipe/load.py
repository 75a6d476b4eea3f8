"""A recipe from its file to what is complete: overlays, checks against the parts' signatures, and defaults."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from chiasm import parts
from chiasm.errors import RecipeError, check_flag, check_texts, nearest, quoted, reason
from chiasm.parts.plugins import recorded
from chiasm.recipe.files import find_base, find_recipe, read_raw
from chiasm.recipe.forms import refuse_old
from chiasm.recipe.overlay import load_value, merge, nested, on_base
from chiasm.recipe.problems import sentence
from chiasm.recipe.schema import Checkpoints, Evaluation, Recipe, SamplingOptions, Stage
from chiasm.recipe.slots import by_slot, check_slots, in_order, kind_of
from chiasm.recipe.stages import check_stages
from chiasm.storage import safe_yaml

SEEING = ("views", "encoder", "connector")  # all of them, or none
DRAWING = ("image_tokenizer", "heads.image")  # likewise
CONDITIONING = (
    "heads.image",
    "image_decoder",
)  # likewise, where the head writes the decoder's condition


def load_recipe(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, tiny: bool = False
) -> Recipe:
    """Read, overlay, check and complete a recipe.

    source: a path, the name of a recipe that comes with Chiasm, or the recipe as a mapping.
    overrides: `dotted.key=value`, the value in YAML (`model.connector.depth=3`, `stages.align.steps=10`).
    tiny: apply the recipe's `tiny` overlay first.
    Raises RecipeError, with the nearest name for an unknown one, and OutdatedError for a recipe of an older form.
    """
    check_flag("tiny", tiny)
    if not isinstance(source, Mapping):
        path = find_recipe(source)
        raw = _overlaid(_read(path), path, overrides, tiny)
        with recorded(path.absolute().parent):
            return resolve(raw)
    raw = _copied(source)
    refuse_old(raw, None)
    raw = _on_base(raw, Path.cwd()) if "base" in raw else raw
    return resolve(_overlaid(raw, source, overrides, tiny))


def _overlaid(raw: dict[str, Any], source: Any, overrides: Sequence[str], tiny: bool) -> dict[str, Any]:
    """A raw recipe with its `tiny` and overrides laid over it."""
    overlay = raw.pop("tiny", None)
    if tiny:
        if overlay is None:
            raise RecipeError(f"recipe {quoted(raw.get('name', source))} has no 'tiny' overlay")
        raw = merge(raw, overlay)
    for override in check_texts("overrides", overrides, "dotted.key=value"):
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"override {quoted(override)} is not of the form dotted.key=value")
        if not value.strip():
            raise RecipeError(
                f"override {quoted(override)} has no value; {key}=null is none, or takes an item out"
            )
        raw = merge(raw, nested(key.split("."), load_value(value, override)))
    return raw


def section_of(override: str) -> str:
    """The section of a recipe that an override changes."""
    return override.partition("=")[0].split(".", 1)[0]


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
        check_slots(raw["model"])
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(sentence(error, Recipe, raw, "the recipe")) from None
    _check_model(recipe.model, teaches=any(stage.objective is not None for stage in recipe.stages))
    model = {
        slot: parts.check(kind_of(slot), spec, f"model.{slot}")
        for slot, spec in _completed(recipe.model).items()
    }
    data = {name: parts.check("data", spec, f"data.{name}") for name, spec in recipe.data.items()}
    stages = tuple(_with_objective(stage) for stage in recipe.stages)
    recipe = recipe.model_copy(update={"model": model, "data": data, "stages": stages})
    check_stages(recipe)
    return recipe


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
    return on_base(under, raw)


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
    return {slot: model[slot] for slot in in_order(model)}


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
