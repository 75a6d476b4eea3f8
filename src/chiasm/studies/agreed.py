"""What a study holds equal, worked out before the run and kept in its folder, so that going on changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from chiasm.errors import ChiasmError, RecipeError
from chiasm.recipe import Recipe, write_text
from chiasm.storage.folders import read_object
from chiasm.studies.budget import ArmCost, StageCost, matched_steps, matched_width
from chiasm.studies.design import Terms, recipe_of
from chiasm.studies.plan import Settings, Study, digest
from chiasm.studies.processes import Runner

COSTS = "costs"
AtOnce = Callable[[Callable[[str], str | None], Iterable[str]], list[str]]


class Agreed:
    """What the arms of a study cost and, from that, how wide and how long each is.

    at_once: calls a function for each arm and returns what is not None. apart: calls one in a process of its own.
    failed: arms of which one step fails.
    """

    def __init__(self, study: Study, folder: Path, plugins: Sequence[str], at_once: AtOnce, apart: Runner):
        self.study, self.folder, self.plugins, self.apart = study, folder / COSTS, plugins, apart
        self.widths = self._widths() if "parameters" in study.match else {}
        self.recipes = {
            arm: recipe_of(study, arm, study.sizes[0], self.widths.get(arm)) for arm in study.arms
        }
        self.failed = set(at_once(self._measure, study.arms))
        if study.baseline in self.failed:
            raise ChiasmError(
                f"what the training of the baseline takes could not be worked out; see {self.log(study.baseline)}"
            )

    def log(self, arm: str) -> Path:
        """Where it stands why an arm failed."""
        return self.folder / f"{arm}.log"

    def cost(self, arm: str) -> ArmCost:
        """Of an arm; the amount of data does not change what a step takes."""
        record = read_object(self.folder / f"{arm}.json")
        stages = {name: StageCost(*numbers) for name, numbers in record["stages"].items()}
        return ArmCost(record["parameters"], stages)

    def terms(self) -> Terms:
        steps = {}
        if self.study.budget is not None:
            for size in self.study.sizes:
                for arm in self.study.arms.keys() - self.failed:
                    steps[arm, size] = self._steps(arm, size)
        return Terms(self.widths, steps)

    def _steps(self, arm: str, size: int | None) -> dict[str, int]:
        assert self.study.budget is not None
        own, base = (self._recipe(each, size) for each in (arm, self.study.baseline))
        try:
            return matched_steps(self.study.budget, own, self.cost(arm), base, self.cost(self.study.baseline))
        except RecipeError as error:
            raise RecipeError(f"study {self.study.name!r}, arm {arm!r}: {error}") from None

    def _recipe(self, arm: str, size: int | None) -> Recipe:
        return recipe_of(self.study, arm, size, self.widths.get(arm))

    def _measure(self, arm: str) -> str | None:
        """Work out what an arm's training takes; its name where that fails."""
        from chiasm.studies.work import write_cost

        recipe = self.recipes[arm].model_copy(update={"name": arm})
        id = digest(recipe.model_dump(mode="json"))
        path = self.folder / f"{arm}.json"
        if path.is_file() and read_object(path).get("id") == id:
            return None
        write_text(self.folder / f"{arm}.yaml", recipe.to_yaml())
        arguments = (str(self.folder / f"{arm}.yaml"), str(path), id, list(self.plugins))
        return None if self.apart(write_cost, arguments, self.log(arm)) else arm

    def _widths(self) -> dict[str, Settings]:
        """The settings of arms with `widen` that give them as many parameters as the baseline has."""
        from chiasm.studies.work import parameters_of

        study, size = self.study, self.study.sizes[0]
        widened = {name: arm.widen for name, arm in study.arms.items() if arm.widen is not None}
        target = parameters_of(recipe_of(study, study.baseline, size)) if widened else 0
        widths: dict[str, Settings] = {}
        for name, width in widened.items():

            def counted(value: int, arm: str = name, key: str = width.key) -> int:
                return parameters_of(recipe_of(study, arm, size, {key: value}))

            try:
                widths[name] = {width.key: matched_width(width, target, counted)}
            except RecipeError as error:
                raise RecipeError(f"study {study.name!r}, arm {name!r}: {error}") from None
        return widths
