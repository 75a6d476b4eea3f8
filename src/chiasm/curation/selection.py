"""Which data to train on: sets that are added one by one, and scores of samples (arXiv 2405.11850)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from chiasm.curation.samples import Gradients, check_sample, distances, features, unchanged
from chiasm.curation.trials import Trial, learn
from chiasm.data import Source
from chiasm.data.sample import Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.evaluation.statistics import Z, student_quantile
from chiasm.inference.likelihood import answer_losses
from chiasm.model import Model

Verdict = Literal["improves", "not resolved", "harms", "not tried"]
Score = Literal["loss", "gradient", "diversity"]
VERDICTS: tuple[Verdict, ...] = ("improves", "not tried", "not resolved", "harms")  # best first
Say = Callable[[str], None]
Losses = Mapping[str, Float[np.ndarray, "k n"]]  # of n samples of each target, with k seeds


@dataclass(frozen=True)
class SampleScores:
    """Of one sample.

    source, group, number: which one. loss: mean cross-entropy of its answer's tokens. gradient: mean cosine with
    the targets' gradients. diversity: distance to the nearest of the base and of the samples chosen before it.
    """

    source: str
    group: int
    number: int
    name: str
    loss: float
    gradient: float
    diversity: float

    @property
    def usefulness(self) -> dict[Score, float]:
        """By each score, the higher the better: likely answers, the targets' direction, and what is new."""
        return {"loss": -self.loss, "gradient": self.gradient, "diversity": self.diversity}


@dataclass(frozen=True)
class SetScores:
    """Of one set of samples: means over them, and what adding it to the base did to the targets' loss.

    change: with its 95 % interval; negative is better. by_target: of each target.
    """

    source: str
    samples: int
    loss: float
    gradient: float
    diversity: float
    verdict: Verdict = "not tried"
    change: float | None = None
    interval: tuple[float, float] | None = None
    by_target: dict[str, float] = field(default_factory=dict)

    @property
    def retained(self) -> bool:
        return self.verdict in ("improves", "not tried")


@dataclass(frozen=True)
class Selection:
    """Sets and samples, the best first. skipped: samples that could not be used, by source and kind."""

    sets: tuple[SetScores, ...]
    samples: tuple[SampleScores, ...]
    skipped: dict[str, dict[str, int]]

    def retained(self, share: float = 1.0) -> list[SampleScores]:
        """The best `share` of the samples of the sets that are retained."""
        names = {each.source for each in self.sets if each.retained}
        own = [each for each in self.samples if each.source in names]
        return own[: math.ceil(share * len(own))]

    def as_data(self) -> dict[str, Any]:
        sets = [{**vars(each), "retained": each.retained} for each in self.sets]
        return {"sets": sets, "skipped": self.skipped}


def select(
    model: Model,
    candidates: Mapping[str, Source],
    targets: Mapping[str, Source],
    *,
    base: Mapping[str, Source] | None = None,
    trial: Trial | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    by: Score = "gradient",
    say: Say = lambda sentence: None,
) -> Selection:
    """Score candidate sets and their samples by what they do for the targets. The model stays as it is.

    Each set is added to the base alone: from the same weights the model learns from both, in equal parts, and, in
    as many steps, from the base only; without a base the model as it is stands in for that. A set improves where
    the mean of the targets' losses falls by more than chance, and harms where it rises.

    Args:
        targets: what the model shall be good at; each weighs as much as the others.
        base: what it is trained on anyway; what resembles it is not diverse.
        trial: how long the model learns; None: sets are not tried, and ranked by `by`.
        seeds: of the trials; how much their results differ is part of the interval.
        by: the score that samples are ranked by.

    Raises DataError for a sample that cannot be used, unless its source skips those; ChiasmError where there is
    nothing to compare.
    """
    base = dict(base or {})
    _check_names(candidates, targets, base)
    length = trial.length if trial is not None else model.contract.context
    everything = {**base, **targets, **candidates}
    usable = {name: _Usable(model, source, length) for name, source in everything.items()}
    for name, each in usable.items():
        if len(each.samples) < (2 if name in targets else 1):
            raise ChiasmError(f"{name} has {len(each.samples)} samples that can be used; that is too few")
    with unchanged(model):
        samples = _scored(model, usable, candidates, targets, base, trial, by, say)
        sets = [_means(name, samples) for name in candidates]
        if trial is not None:
            sets = _tried(model, usable, sets, targets, base, trial, seeds, say)
    skipped = {name: dict(each.skipped) for name, each in usable.items() if each.skipped}
    return Selection(tuple(sorted(sets, key=lambda each: _rank(each, by))), tuple(samples), skipped)


class _Usable(Source):
    """The samples of a source that can be scored; as a source, of them alone."""

    def __init__(self, model: Model, source: Source, length: int):
        self.source, self.skipped = source, Counter(source.skipped)
        self.samples: list[tuple[int, int, Sample]] = []  # with their places in the source
        for group in range(len(source)):
            for number, sample in enumerate(source[group]):
                try:
                    check_sample(model, sample, length)
                except DataError as error:
                    if source.broken == "error":
                        raise
                    self.skipped[error.kind] += 1
                else:
                    self.samples.append((group, number, sample))

    @property
    def alone(self) -> list[Sample]:
        return [sample for _, _, sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> list[Sample]:
        return [self.samples[index][2]]

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint


def _scored(
    model: Model,
    usable: Mapping[str, _Usable],
    candidates: Mapping[str, Source],
    targets: Mapping[str, Source],
    base: Mapping[str, Source],
    trial: Trial | None,
    by: Score,
    say: Say,
) -> list[SampleScores]:
    """All samples of the candidates, the best first."""
    places = [(name, *place) for name in candidates for place in usable[name].samples]
    alone = [sample for *_, sample in places]
    say(f"scores of {len(alone):,} samples")
    model.eval()
    losses = answer_losses(model, alone).tolist()
    own = features(model, alone)
    of_base = [sample for name in base for sample in usable[name].alone]
    apart, _ = distances(own, features(model, of_base) if of_base else own[:0])
    gradients = Gradients(model, (trial or Trial()).rates(model))
    directions = [gradients.of(usable[name].alone) for name in targets]
    scores = [
        SampleScores(
            name,
            group,
            number,
            sample.name,
            losses[i],
            gradients.alignment(sample, directions),
            float(apart[i]),
        )
        for i, (name, group, number, sample) in enumerate(places)
    ]
    return sorted(scores, key=lambda each: -each.usefulness[by])


def _means(name: str, samples: Sequence[SampleScores]) -> SetScores:
    own = [each for each in samples if each.source == name]
    loss, gradient, diversity = (
        float(np.mean([getattr(each, score) for each in own])) for score in ("loss", "gradient", "diversity")
    )
    return SetScores(name, len(own), loss, gradient, diversity)


def _tried(
    model: Model,
    usable: Mapping[str, _Usable],
    sets: Sequence[SetScores],
    targets: Mapping[str, Source],
    base: Mapping[str, Source],
    trial: Trial,
    seeds: Sequence[int],
    say: Say,
) -> list[SetScores]:
    """Each set with what adding it does."""

    def losses(names: Sequence[str]) -> Losses:
        """After learning from these sets, with each seed."""
        after: dict[str, list[Float[np.ndarray, " n"]]] = {name: [] for name in targets}
        for seed in seeds if names else seeds[:1]:
            with unchanged(model):
                if names:
                    own = {name: usable[name] for name in names}
                    learn(model, own, _shares(names, base, usable), trial, seed)
                for name in targets:
                    after[name].append(answer_losses(model, usable[name].alone).cpu().numpy())
        return {name: np.stack(each) for name, each in after.items()}

    say(f"trial: {', '.join(base) or 'the model as it is'}")
    without = losses(list(base))
    tried = []
    for each in sets:
        say(f"trial: with {each.source}")
        added = losses([*base, each.source])
        tried.append(_judged(each, {name: added[name] - without[name] for name in targets}))
    return tried


def _shares(
    names: Sequence[str], base: Mapping[str, Source], usable: Mapping[str, _Usable]
) -> dict[str, float]:
    """The base's sets by their sizes; what is added, as much as all of them."""
    size = sum(len(usable[name]) for name in base) or 1
    return {name: len(usable[name]) / size if name in base else 1.0 for name in names}


def _judged(scores: SetScores, changes: Losses) -> SetScores:
    """The interval of the mean change: over the targets' samples, and over the seeds."""
    by_target = {name: float(each.mean()) for name, each in changes.items()}
    change = sum(by_target.values()) / len(by_target)
    samples = [each.mean(0) for each in changes.values()]
    seeds = np.mean([each.mean(1) for each in changes.values()], axis=0)
    wide = Z**2 * sum(each.var(ddof=1) / len(each) for each in samples) / len(samples) ** 2
    if len(seeds) > 1:
        wide += student_quantile(len(seeds) - 1) ** 2 * seeds.var(ddof=1) / len(seeds)
    low, high = change - math.sqrt(wide), change + math.sqrt(wide)
    verdict: Verdict = "improves" if high < 0 else "harms" if low > 0 else "not resolved"
    return replace(scores, verdict=verdict, change=change, interval=(low, high), by_target=by_target)


def _rank(scores: SetScores, by: Score) -> tuple[float, float]:
    value = (
        scores.change if scores.change is not None else scores.loss if by == "loss" else -getattr(scores, by)
    )
    return VERDICTS.index(scores.verdict), value


def _check_names(*groups: Mapping[str, Source]) -> None:
    candidates, targets, _ = groups
    if not candidates or not targets:
        raise ChiasmError("selecting needs a set to choose from and a target to choose it for")
    counted = Counter(name for group in groups for name in group)
    for name, times in counted.items():
        if times > 1:
            raise ChiasmError(
                f"{name} is named {times} times, among candidates, targets and base; name each set once"
            )
