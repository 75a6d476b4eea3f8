"""How well one linear layer tells labelled pictures apart by the encoder's features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from chiasm.evaluation.probing import probe, standardised
from chiasm.evaluation.tasks import Exam, Outcome, Task

PENALTIES = (
    1e-4,
    1e-3,
    1e-2,
    1e-1,
)  # of the squared weights; the best on a fifth of what is learnt from is taken
STEPS = 100  # of L-BFGS


class LinearProbe(Task, name="linear_probe"):
    """Share of held-out pictures that a multinomial logistic regression on mean features names rightly."""

    def run(self, exam: Exam) -> Outcome:
        return probe(exam, classify)


def classify(learnt: Tensor, classes: Tensor, queries: Tensor, count: int) -> Tensor:
    """Classes of `queries`, by a regression on `learnt` whose penalty is chosen on every fifth of them."""
    learnt, queries = standardised(learnt, queries)
    validation = torch.arange(len(learnt)) % 5 == 0
    right = []
    for penalty in PENALTIES:
        weights = _fit(learnt[~validation], classes[~validation], count, penalty)
        right.append(float((_answer(weights, learnt[validation]) == classes[validation]).float().mean()))
    best = PENALTIES[max(range(len(right)), key=right.__getitem__)]
    return _answer(_fit(learnt, classes, count, best), queries)


def _fit(x: Tensor, classes: Tensor, count: int, penalty: float) -> Tensor:
    """Weights with the biases as their last row."""
    x = x.clone()  # out of inference mode
    weights = torch.zeros(x.shape[1] + 1, count, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        search.zero_grad()
        value = functional.cross_entropy(x @ weights[:-1] + weights[-1], classes)
        value = value + penalty * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    search.step(loss)
    return weights.detach()


def _answer(weights: Tensor, x: Tensor) -> Tensor:
    return torch.argmax(x @ weights[:-1] + weights[-1], dim=1)
