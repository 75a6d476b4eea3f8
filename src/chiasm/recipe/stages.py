"""What the stages of a recipe may ask of its model and its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chiasm import parts
from chiasm.errors import RecipeError, nearest

if TYPE_CHECKING:
    from chiasm.recipe import Recipe, Stage


def check_stages(recipe: Recipe) -> None:
    """Raise RecipeError for a stage, or an evaluation, that names what is not there or teaches nothing."""
    trainable = [slot for slot in recipe.model if slot != "views" or _learns(recipe.model["views"]["type"])]
    for stage in recipe.stages:
        where = f"stage {stage.name!r}"
        if stage.objective is not None:
            _check_objective(recipe, stage, where)
        for slot in stage.train:
            if slot == "objective" and stage.objective is None:
                raise RecipeError(f"{where} trains an objective but has none; add objective: {{type: NAME}}")
            if slot not in (*trainable, "objective"):
                raise RecipeError(
                    f"{where} trains {slot!r}, which the model has not{nearest(slot, trainable)}"
                )
        fixed = without_weights(recipe.model["image_tokenizer"]) if "image_tokenizer" in stage.train else None
        if fixed is not None:
            raise RecipeError(
                f"{where} trains the image tokenizer, but {fixed!r} has nothing to learn; leave it out"
            )
        for alone in ("image_tokenizer",) if _conditions(recipe) else ("image_tokenizer", "image_decoder"):
            if alone in stage.train and len(stage.train) > 1 and stage.objective is None:
                others = ", ".join(slot for slot in stage.train if slot != alone)
                raise RecipeError(
                    f"{where} trains the {alone.replace('_', ' ')} beside {others}; give it a stage of its own"
                )
        for name in stage.data:
            if name not in recipe.data:
                raise RecipeError(
                    f"{where} uses the data {name!r}, which is not defined{nearest(name, recipe.data)}"
                )
    for held_out in recipe.evaluation.sources:
        if held_out not in recipe.data:
            raise RecipeError(
                f"evaluation uses the data {held_out!r}, which is not defined{nearest(held_out, recipe.data)}"
            )
    stages = [stage.name for stage in recipe.stages]
    if len(set(stages)) < len(stages):
        raise RecipeError(f"two stages have one name: {', '.join(stages)}")


def _check_objective(recipe: Recipe, stage: Stage, where: str) -> None:
    assert stage.objective is not None
    part: Any = parts.lookup("objective", stage.objective["type"])
    if "encoder" not in recipe.model:
        raise RecipeError(f"{where}: objective {part.name!r} reads images, but the model has no encoder")
    if "objective" in stage.train and not part.learns:
        raise RecipeError(f"{where} trains its objective, but {part.name!r} has no weights; leave it out")
    own = " and its own weights, objective" if part.learns else ""
    for slot in stage.train:
        if slot not in (*part.trains, "objective"):
            raise RecipeError(
                f"{where} trains {slot!r}, but objective {part.name!r} teaches it nothing; it trains "
                f"{', '.join(part.trains)}{own}"
            )


def _conditions(recipe: Recipe) -> bool:
    """Whether the decoder learns with the head, which writes what it is conditioned on."""
    head = recipe.model.get("heads.image")
    return head is not None and parts.lookup("alphabet", head["alphabet"]["type"]).conditions  # type: ignore[attr-defined]


def without_weights(tokenizer: Mapping[str, Any]) -> str | None:
    """The type of an image tokenizer, or of one that it holds, that has nothing to learn; None = all do."""
    if not parts.lookup("image_tokenizer", tokenizer["type"]).learns:  # type: ignore[attr-defined]
        return str(tokenizer["type"])
    return without_weights(tokenizer["tokenizer"]) if "tokenizer" in tokenizer else None


def _learns(views: str) -> bool:
    """Whether these views have markers to learn."""
    return parts.lookup("views", views).marked  # type: ignore[attr-defined]
