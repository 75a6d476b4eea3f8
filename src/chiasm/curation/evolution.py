"""`chiasm evolve`: a model learns from what it has solved by itself, as far as an exact checker and a gate let it.

A round: problems are drawn, the model tries them, the checker verifies, what is verified becomes a data file, an
ordinary stage trains on it, and the gate compares held-out scores. A run in which one of them has fallen is rolled
back: the next round begins from the best. Every round is an ordinary run in a folder of its own, and what the
folders hold is all that is needed to go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, isnan
from pathlib import Path
from typing import Any

import torch

from chiasm import parts
from chiasm.curation.gate import Gate, ScoreChange
from chiasm.curation.practice import FILE, ROWS, Attempt, Practice, attempts, problems_of, write_practice
from chiasm.data import Source
from chiasm.data.sample import Sample
from chiasm.errors import ChiasmError, DivergedError, RecipeError, nearest, quoted
from chiasm.evaluation.evaluate import evaluate, is_evaluated, settings_of
from chiasm.model.checkpoint import load_model
from chiasm.recipe import Recipe, load_recipe, section_of
from chiasm.recipe.checkpoints import find_checkpoint, refuse_run
from chiasm.storage.claim import claimed
from chiasm.storage.folders import read_object, whole_folder, write_json
from chiasm.training.loop import Interrupted
from chiasm.training.mixture import number
from chiasm.training.run import command
from chiasm.training.train import train

PRACTICE, PLAN, COUNTS = "practice", "plan.json", "counts.json"
OVERRIDABLE = ("data", "stages", "checkpoints")
Say = Callable[[str], None]


@dataclass(frozen=True)
class EvolutionPlan:
    """What is spent, and by what it is judged; fixed before the first round.

    data: the source that problems are drawn from, by its name in the run's recipe.
    rounds: each with the practice's tries and so many optimiser `steps` of the recipe's last stage.
    share: of what was verified in a round's samples; the rest is the data of that stage.
    gate: dotted places of scores that must not fall; the first says which run is the best. Default: all scores.
    """

    data: str
    practice: Practice
    rounds: int = 3
    steps: int = 100
    share: float = 0.5
    gate: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "steps"):
            if getattr(self, name) < 1:
                raise ChiasmError(f"{name} is {getattr(self, name)}; at least 1")
        if isnan(self.share):
            raise ChiasmError("share is not a number; above 0 and at most 1")
        if not 0 < self.share <= 1:
            raise ChiasmError(f"share is {self.share}; above 0 and at most 1")


@dataclass(frozen=True)
class Round:
    """One round. begins: the run whose model tried and was trained. retained: None where nothing was verified.

    reason: why its training came to nothing, where it did.
    """

    run: Path
    begins: Path
    counts: dict[str, int]
    changes: tuple[ScoreChange, ...] = ()
    retained: bool | None = None
    reason: str = ""

    def __str__(self) -> str:
        problems = (
            f"{self.run.name}: {self.counts['verified']:,} of {self.counts['answers']:,} answers verified"
        )
        if self.retained is None:
            return f"{problems}; nothing to learn"
        outcome = self.reason or ", ".join(map(str, self.changes))
        return f"{problems}; {outcome}; {'retained' if self.retained else 'rolled back'}"


@dataclass
class Evolution:
    """best: the run with the best score among the first and those that were retained."""

    best: Path
    rounds: list[Round] = field(default_factory=list)


def evolve(
    run: str | Path,
    out: str | Path,
    plan: EvolutionPlan,
    *,
    overrides: Sequence[str] = (),
    say: Say = lambda line: None,
    device: str | torch.device | None = None,
) -> Evolution:
    """Let the model of a finished run practise, in rounds of a fixed budget; the same call goes on after a stop.

    out: gets a run's folder for each round, and `rounds.json`. overrides: `dotted.key=value` of the data and stages
    of the run's recipe. Raises ChiasmError where problems have no checker, or are those of the gate, or where the
    folder was begun with another plan or holds a run; Interrupted after Ctrl-C.
    """
    run, out = Path(run), Path(out)
    _check_folders(run, out)
    try:
        return _evolve(run, out, plan, overrides, say, device)
    except KeyboardInterrupt:
        whole = any(out.glob(f"round-*/{PRACTICE}/{COUNTS}"))
        saved = f"what is whole is saved in {out}" if whole else f"no tries are saved yet in {out}"
        raise Interrupted(
            f"stopped; {saved}. To go on, give the same command again:\n  {command()}"
        ) from None


def _check_folders(run: Path, out: Path) -> None:
    """Raise ChiasmError where one is no run of its own, or where rounds cannot be written."""
    find_checkpoint(run)
    place = run.resolve()
    owner = place.parent if place.name == "final" else place.parent.parent
    if (place.name == "final" or place.parent.name == "checkpoints") and (owner / "run.json").is_file():
        raise ChiasmError(f"{run} is a checkpoint of the run {owner}; name the run")
    refuse_run(out, "the rounds (--out)")


def _evolve(
    run: Path,
    out: Path,
    plan: EvolutionPlan,
    overrides: Sequence[str],
    say: Say,
    device: str | torch.device | None,
) -> Evolution:
    for override in overrides:
        if section_of(override) not in OVERRIDABLE:
            raise RecipeError(
                f"override {override!r}: rounds can change {', '.join(OVERRIDABLE)} of the run's recipe"
            )
    recipe = load_recipe(run, overrides)
    source = _problems(recipe, plan)
    if not is_evaluated(run):
        say(f"{run} is evaluated")
        evaluate(run, say=say, device=device)
    gate = Gate.of(run, plan.gate)
    if settings_of(recipe) != gate.frozen["settings"]:
        raise RecipeError(
            "an override changes the data by which the gate judges; it can change other data alone"
        )
    out.mkdir(parents=True, exist_ok=True)
    with claimed(out, "evolving a model"):
        fixed = {
            "run": str(run.resolve()),
            "weights of the run": read_object(run / "eval.json")["weights"],
            "problems": source.fingerprint,
            "plan": asdict(plan),
            "gate": asdict(gate),
            "overrides": list(overrides),
        }
        _freeze(out / PLAN, fixed)
        return _Evolving(recipe, source, out, plan, gate, say, device).go(run)


class _Evolving:
    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        out: Path,
        plan: EvolutionPlan,
        gate: Gate,
        say: Say,
        device: str | torch.device | None,
    ):
        self.recipe, self.source, self.out, self.plan, self.gate = recipe, source, out, plan, gate
        self.say, self.device = say, device

    def go(self, run: Path) -> Evolution:
        draws = "heads.image" in self.recipe.model
        count = self.plan.practice.problems
        problems = problems_of(self.source, self.plan.rounds * count, self.plan.seed, draws=draws)
        evolution, begins = Evolution(run), run
        for index in range(self.plan.rounds):
            place = self.out / f"round-{index + 1}"
            own = problems[index * count : (index + 1) * count]
            each = self._round(place, begins, dict.fromkeys((run, evolution.best)), own)
            evolution.rounds.append(each)
            if each.retained is not None:
                begins = place if each.retained else evolution.best
            if each.retained and self.gate.score(place) > self.gate.score(evolution.best):
                evolution.best = place
            self.say(str(each))
            self._write(evolution)
        return evolution

    def _round(self, place: Path, begins: Path, against: Iterable[Path], problems: Sequence[Sample]) -> Round:
        """against: the runs than which it must not be worse, the best so far as the last."""
        counts = self._practise(place, begins, problems)
        if not counts["solved"]:
            return Round(place, begins, counts)
        try:
            train(self._recipe(place, begins), place, device=self.device, more_follows=True)
        except DivergedError as error:
            return Round(place, begins, counts, retained=False, reason=str(error))
        if not is_evaluated(place):
            evaluate(place, device=self.device)
        compared = [self.gate.changes(run, place) for run in against]
        worse = any(change.worse for changes in compared for change in changes)
        return Round(place, begins, counts, tuple(compared[-1]), not worse)

    def _practise(self, place: Path, begins: Path, problems: Sequence[Sample]) -> dict[str, int]:
        """Try the problems, unless that is done; how many answers there were, and of what use."""
        folder = place / PRACTICE
        if not folder.is_dir():
            model = load_model(begins, self.device).eval()
            seed = number(self.plan.seed, place.name)
            practice = self.plan.practice
            with whole_folder(folder) as draft:
                tried = attempts(model, self.source, problems, practice, seed)
                counted = self._counted(place.name, tried, len(problems) * practice.tries)
                write_json(draft / COUNTS, write_practice(draft, counted))
        counts: dict[str, int] = read_object(folder / COUNTS)
        return counts

    def _counted(self, name: str, tried: Iterator[Attempt], total: int) -> Iterator[Attempt]:
        """The tries, with a line about every tenth of them, or as many as are drawn together."""
        every = max(ROWS, ceil(total / 10))
        self.say(f"{name}: {total:,} tries")
        for count, attempt in enumerate(tried, 1):
            yield attempt
            if count % every == 0 and count < total:
                self.say(f"{name}: {count:,} of {total:,} tries")

    def _recipe(self, place: Path, begins: Path) -> Recipe:
        """The run's last stage, on what was verified, from the weights of another run."""
        raw = self.recipe.model_dump(mode="json", exclude={"model", "start"})
        stage, share = raw["stages"][-1], self.plan.share
        others = {name: part for name, part in stage["data"].items() if name != PRACTICE and share < 1}
        total = sum(others.values())
        rest = {name: (1 - share) * part / total for name, part in others.items() if part}
        data = {"type": "chat", "path": str((place / PRACTICE / FILE).resolve())}
        return load_recipe(
            raw
            | {
                "name": f"{self.recipe.name}-{place.name}"[:60],
                "start": str(begins.resolve()),
                "data": {**raw["data"], PRACTICE: data},
                "stages": [
                    {**stage, "name": place.name, "steps": self.plan.steps, "data": {PRACTICE: share, **rest}}
                ],
            }
        )

    def _write(self, evolution: Evolution) -> None:
        rounds = [
            {
                "run": each.run.name,
                "begins": each.begins.name,
                **each.counts,
                "changes": [asdict(change) for change in each.changes],
                "retained": each.retained,
                "reason": each.reason,
            }
            for each in evolution.rounds
        ]
        write_json(self.out / "rounds.json", {"best": str(evolution.best), "rounds": rounds})


def _problems(recipe: Recipe, plan: EvolutionPlan) -> Source:
    """The source that problems are drawn from."""
    name = plan.data
    if name not in recipe.data or name == PRACTICE:
        raise RecipeError(
            f"problems are drawn from {quoted(name)}, no data of the run{nearest(name, recipe.data)}"
        )
    source: Source = parts.build("data", recipe.data[name], where=f"data.{name}")
    for other in recipe.evaluation.sources:
        judged = parts.build("data", recipe.data[other], where=f"data.{other}")
        if judged.fingerprint == source.fingerprint:
            raise RecipeError(
                f"problems are drawn from {quoted(name)}, which is the held-out data that the gate judges by; take "
                "other data"
            )
    return source


def _freeze(path: Path, fixed: dict[str, Any]) -> None:
    """Write what is fixed before the first round; raises ChiasmError where the folder was begun otherwise."""
    fixed = json.loads(json.dumps(fixed))
    if not path.is_file():
        write_json(path, fixed)
    begun = read_object(path)
    differing = [key for key in fixed if begun.get(key) != fixed[key]]
    if differing:
        raise ChiasmError(
            f"{path.parent} was begun with another {' and '.join(differing)} (see {path.name}); its budget and its "
            "gate were fixed then: give the same ones, or another folder"
        )
