"""Which experts a token meets, and with what weights: top-k gating with a capacity, as in DeepSpeed 0.9.5."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.distribution.collective import over_all_ranks


@dataclass(frozen=True)
class Choice:
    """For n tokens and e experts.

    experts: the k experts that each token chose, the best first.
    weights: of each expert in each token's output; 0 where it was not chosen or had no room left.
    gates: each token's shares of the experts, before any choice.
    capacity: how many tokens an expert had room for; None = all.
    """

    experts: Int[Tensor, "n k"]
    weights: Float[Tensor, "n e"]
    gates: Float[Tensor, "n e"]
    capacity: int | None

    @property
    def firsts(self) -> Int[Tensor, " e"]:
        """How many tokens chose each expert first."""
        return torch.bincount(self.experts[:, 0], minlength=self.weights.shape[1])

    def balance(self, *, ranks: bool) -> tuple[Float[Tensor, ""], int]:
        """Switch's loss over first choices (arXiv 2101.03961): its sum over the tokens, and how many they are.

        Its mean is 1 where the experts are chosen alike and up to e where one is always chosen. ranks: how often
        an expert is chosen is counted over the tokens of all processes, which must all ask.
        """
        tokens, experts = self.gates.shape
        firsts = self.firsts.to(self.gates.dtype)
        if ranks:
            firsts = over_all_ranks(firsts)
        shares = firsts / firsts.sum().clamp(min=1)
        return (self.gates.sum(0) * shares).sum() * experts, tokens


def choose(
    scores: Float[Tensor, "n e"],
    count: int,
    *,
    capacity: float | None = None,
    least: int = 0,
    noise: Float[Tensor, "n e"] | None = None,
) -> Choice:
    """Let each token choose `count` experts.

    capacity: an expert has room for `capacity` times its even share of all choices, at least for `least`. Places
        are given in the order of the tokens, all first choices before any second; what finds no place is dropped.
    noise: added to the scores before every choice but the first; with Gumbel noise that draws from the softmax.
    """
    gates = scores.softmax(1)
    tokens, experts = scores.shape
    noisy = scores if noise is None else scores + noise
    chosen, masks = [], []
    remaining = gates
    for _ in range(count):
        best = remaining.argmax(1)
        chosen.append(best)
        masks.append(functional.one_hot(best, experts))
        remaining = noisy.masked_fill(torch.stack(masks).sum(0).bool(), -torch.inf)
    slots = None if capacity is None else _slots(tokens, experts, capacity * count, least)
    if slots is not None:
        masks = _placed(masks, slots)
    weights = torch.stack([gates * mask for mask in masks]).sum(0)
    if count > 1:  # a single choice keeps its gate, through which it learns
        weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).eps)
    return Choice(torch.stack(chosen, 1), weights, gates, slots)


def gumbel(scores: Tensor) -> Tensor:
    """Gumbel noise: the largest of scores with it is a draw from their softmax."""
    return -torch.empty_like(scores).exponential_().log()


def _slots(tokens: int, experts: int, factor: float, least: int) -> int:
    # In float32, as the original rounds it.
    return max(int(torch.ceil(tokens / experts * torch.tensor(factor))), least)


def _placed(masks: list[Int[Tensor, "n e"]], slots: int) -> list[Int[Tensor, "n e"]]:
    if len(masks) == 1:
        # DeepSpeed takes topk of equals here, and with it whichever tokens topk takes.
        chosen = masks[0].topk(min(slots, len(masks[0])), dim=0).indices
        return [masks[0] * torch.zeros_like(masks[0]).scatter(0, chosen, 1)]
    placed, taken = [], masks[0].new_zeros(masks[0].shape[1])
    for mask in masks:
        place = mask.cumsum(0) - 1 + taken
        placed.append(mask * (place < slots))
        taken = taken + mask.sum(0)
    return placed
