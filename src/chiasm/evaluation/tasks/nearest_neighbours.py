"""How well the nearest labelled pictures, by the encoder's features, tell what a picture shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from chiasm.evaluation.probing import probe, standardised
from chiasm.evaluation.tasks import Exam, Outcome, Task

NEIGHBOURS, TEMPERATURE = 20, 0.07  # as in DINO (arXiv 2104.14294)


class NearestNeighbours(Task, name="nearest_neighbours"):
    """Share of held-out pictures named rightly by a vote of the 20 nearest, weighed by their likeness."""

    def run(self, exam: Exam) -> Outcome:
        return probe(exam, classify)


def classify(learnt: Tensor, classes: Tensor, queries: Tensor, count: int) -> Tensor:
    """Classes of `queries` by the votes of their neighbours in `learnt`."""
    learnt, queries = (functional.normalize(each, dim=1) for each in standardised(learnt, queries))
    likeness, places = (queries @ learnt.T).topk(min(NEIGHBOURS, len(learnt)), dim=1)
    votes = torch.zeros(len(queries), count)
    votes.scatter_add_(1, classes[places], (likeness / TEMPERATURE).exp())
    return votes.argmax(dim=1)
