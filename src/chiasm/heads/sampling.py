"""How values are drawn from logits: guidance, temperature, and among how many."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.distribution.devices import widest
from chiasm.errors import ChiasmError
from chiasm.nn.generators import Generators

COLDEST = 1e-30  # temperature that single precision can divide by


@dataclass(frozen=True)
class Sampling:
    """How an image is drawn.

    guidance: 1 = none, else `without + guidance * (with - without)` the prompt, in logits.
    temperature: 0 = always the likeliest value.
    top_k: draw among the k likeliest values; 0 = all.
    top_p: draw among the fewest likeliest values whose chances reach p together; 1 = all.
    """

    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


GREEDY = Sampling(temperature=0.0)
OPTIONS = tuple(field.name for field in fields(Sampling))


def guided(logits: Float[Tensor, "r ..."], guidance: float) -> Float[Tensor, "n ..."]:
    """Classifier-free guidance (arXiv 2207.12598): the first half of the rows follows a prompt."""
    if guidance == 1:
        return logits
    conditional, unconditional = logits.chunk(2)
    return unconditional + guidance * (conditional - unconditional)


def choose(
    logits: Float[Tensor, "n ... k"], sampling: Sampling, generators: Generators | None
) -> Int[Tensor, "n ..."]:
    """One value at each place: the likeliest at temperature 0, else drawn. Guidance is applied already.

    generators: one a row. A place takes one number of its row's, by which the value is found where the sum of the
    chances reaches it, so that a row's values depend on its own logits and seed alone.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    if generators is None:
        raise ChiasmError(
            f"drawing at temperature {sampling.temperature} needs generators, one for each image"
        )
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    below = logits - logits.max(-1, keepdim=True).values  # finite, however low the temperature
    chances = torch.softmax(below / max(sampling.temperature, COLDEST), -1)
    if sampling.top_p < 1:
        chances = _nucleus(chances, sampling.top_p)
    sums = chances.cumsum(-1, dtype=widest(logits.device))
    share = 1 - generators.uniform(*logits.shape[1:-1], device=logits.device)[..., None]  # of (0, 1]
    return torch.searchsorted(sums, share * sums[..., -1:])[..., 0]


def _nucleus(chances: Float[Tensor, "*s k"], top_p: float) -> Float[Tensor, "*s k"]:
    """The chances of the fewest likeliest values that reach `top_p` together, 0 elsewhere (arXiv 1904.09751)."""
    ordered, places = chances.sort(dim=-1, descending=True, stable=True)
    enough = ordered.cumsum(-1) - ordered >= top_p  # those before it reach it already
    return chances.scatter(-1, places, ordered.masked_fill(enough, 0.0))
