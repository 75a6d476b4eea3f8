"""Dead codes of a codebook that learns by gradients: none ever reaches them, so they are given a new place."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.tokenizers.quantizer import of_first_rank, over_all_ranks


class Revival(nn.Module):
    """Moves a code that no vector has chosen for `after` batches to a vector of the batch, drawn at random.

    idle: batches since each code's last use or revival; saved, so that a run goes on exactly.
    revived: codes moved in the last batch.
    """

    idle: Int[Tensor, " k"]

    def __init__(self, codebook_size: int, after: int):
        super().__init__()
        self.after, self.revived = after, 0
        self.register_buffer("idle", torch.zeros(codebook_size, dtype=torch.long))

    @torch.no_grad()
    def forward(
        self, codebook: Float[Tensor, "k c"], vectors: Float[Tensor, "m c"], codes: Int[Tensor, " m"]
    ) -> None:
        """Take note of a batch's vectors and the codes that they chose, and revive what is dead by now."""
        uses = over_all_ranks(torch.bincount(codes, minlength=len(codebook)))
        self.idle = torch.where(uses > 0, 0, self.idle + 1)
        dead = (self.idle >= self.after).nonzero()[:, 0]
        self.revived = len(dead)
        if len(dead) and len(vectors):
            chosen = torch.randint(len(vectors), (len(dead),), device=vectors.device)
            codebook[dead] = of_first_rank(vectors[chosen].to(codebook.dtype))
            self.idle[dead] = 0
