"""The cells of a study: arms × sizes of data × seeds, each a complete recipe; before them those of the sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from chiasm.errors import RecipeError, nearest
from chiasm.recipe import Recipe, check_sampling, load_recipe
from chiasm.studies.plan import Settings, Study, digest

SWEEP_SEED = 1_000_003  # none that is measured


@dataclass(frozen=True)
class Terms:
    """What a study holds equal, as it was worked out before the run.

    widths: settings of arms that get the baseline's parameters. steps: of the stages of an arm at a size of data,
    by which it takes as much as the baseline. rates: multiples of an arm's learning rates.
    """

    widths: Mapping[str, Settings] = field(default_factory=dict)
    steps: Mapping[tuple[str, int | None], Mapping[str, int]] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One arm with one seed and size of data. id: changes with whatever changes what comes out.

    sweep: whether it only serves to choose a learning rate.
    """

    arm: str
    seed: int
    recipe: Recipe
    id: str
    size: int | None = None
    rate: float = 1.0
    sweep: bool = False

    @property
    def name(self) -> str:
        size = "" if self.size is None else f"-{self.size}"
        return f"sweep-{self.arm}-{self.rate:g}" if self.sweep else f"{self.arm}{size}-{self.seed}"


def cells_of(study: Study, terms: Terms = Terms()) -> list[Cell]:
    """All cells, seed by seed, so that a run that is stopped leaves whole comparisons; raises RecipeError.

    Every recipe is checked here: a mistake in the last arm is found before the first is trained. Arms with the
    same seed share the order of their data, and what they have in common begins with the same values.
    """
    recipes = {
        (arm, size): recipe_of(study, arm, size, terms.widths.get(arm))
        for arm in study.arms
        for size in study.sizes
    }
    return [
        _cell(study, arm, seed, size, recipes[arm, size], terms, terms.rates.get(arm, 1.0))
        for seed in range(study.seeds)
        for size in study.sizes
        for arm in study.arms
    ]


def sweep_cells(study: Study, terms: Terms = Terms()) -> list[Cell]:
    """Every arm with every multiple of its learning rates, at the middle size; none where one multiple is all."""
    if study.rates is None or len(study.rates.multiples) < 2:
        return []
    size = study.sizes[len(study.sizes) // 2]
    recipes = {
        arm: _judged_on(study, recipe_of(study, arm, size, terms.widths.get(arm)), study.rates.data)
        for arm in study.arms
    }
    return [
        _cell(study, arm, SWEEP_SEED, size, recipes[arm], terms, rate, sweep=True)
        for arm in study.arms
        for rate in study.rates.multiples
    ]


def best_rate(scores: Mapping[float, float]) -> float:
    """The multiple with the best score; of equals the one nearest to 1."""
    return max(scores, key=lambda rate: (scores[rate], -abs(rate - 1)))


def recipe_of(study: Study, arm: str, size: int | None, more: Settings | None = None) -> Recipe:
    """The recipe of an arm before its steps are matched; raises RecipeError that names the arm."""
    sized = {} if study.data is None or size is None else study.data.settings(size)
    settings = {**study.set, **study.arms[arm].set, **sized, **(more or {})}
    settings |= {"seed": 0, "name": f"{study.name}-{arm}"}
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    try:
        recipe = load_recipe(study.arms[arm].recipe or study.recipe, overrides, tiny=study.tiny)
        check_sampling(recipe)
    except RecipeError as error:
        raise RecipeError(f"study {study.name!r}, arm {arm!r}: {error}") from None
    if recipe.evaluation.data is None:
        raise RecipeError(f"study {study.name!r}, arm {arm!r}: its recipe evaluates nothing")
    return recipe


def _cell(
    study: Study,
    arm: str,
    seed: int,
    size: int | None,
    recipe: Recipe,
    terms: Terms,
    rate: float,
    *,
    sweep: bool = False,
) -> Cell:
    steps = terms.steps.get((arm, size), {})
    stages = tuple(
        stage.model_copy(
            update={
                "steps": steps.get(stage.name, stage.steps),
                "train": {slot: lr * rate for slot, lr in stage.train.items()},
            }
        )
        for stage in recipe.stages
    )
    recipe = recipe.model_copy(update={"stages": stages, "seed": seed, "name": f"{study.name}-{arm}-{seed}"})
    id = digest([recipe.model_dump(mode="json"), study.endpoint, study.secondary])
    return Cell(arm, seed, recipe, id, size, rate, sweep)


def _judged_on(study: Study, recipe: Recipe, data: str) -> Recipe:
    if data not in recipe.data:
        raise RecipeError(
            f"study {study.name!r}: rates.data is {data!r}, no data{nearest(data, recipe.data)}"
        )
    if data == recipe.evaluation.data:
        raise RecipeError(
            f"study {study.name!r}: rates.data is {data!r}, on which the arms are compared; learning rates must be "
            "chosen on other data"
        )
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"data": data})})
