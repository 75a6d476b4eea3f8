"""Figures of whether representations still tell images apart."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def spread(x: Float[Tensor, "n c"]) -> float:
    """Mean deviation, over pictures, of a channel of the normalised representations, times the root of channels.

    About 1 where directions are random, 0 where all pictures have the same (arXiv 2011.10566, section 4.1).
    """
    return float(functional.normalize(x.float(), dim=1).std(dim=0).mean()) * x.shape[1] ** 0.5


def effective_rank(x: Float[Tensor, "n c"]) -> float:
    """How many directions the representations vary in: exp of the entropy of their singular values (Roy 2007)."""
    values = torch.linalg.svdvals(x.float() - x.float().mean(dim=0))
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum()))
