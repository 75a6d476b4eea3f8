"""Dead codes of a codebook that learns by gradients: none ever reaches them, so they are given a new place."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.distribution.collective import of_all_ranks, of_first_rank, over_all_ranks
from chiasm.nn.stepwise import Stepwise
from chiasm.tokenizers.moving_average import in_order


class Revival(Stepwise):
    """Moves a code that no vector has chosen for `after` steps to a vector of the step, drawn at random.

    idle: steps since each code's last use or revival; saved, so that a run goes on exactly.
    revived: codes moved in the last step.
    """

    idle: Int[Tensor, " k"]

    def __init__(self, codebook_size: int, after: int):
        super().__init__()
        self.after, self.revived = after, 0
        self._notes: list[tuple[Tensor, Tensor, Tensor]] = []  # codebook, vectors and their codes
        self.register_buffer("idle", torch.zeros(codebook_size, dtype=torch.long))

    def forward(
        self, codebook: Float[Tensor, "k c"], vectors: Float[Tensor, "m c"], codes: Int[Tensor, " m"]
    ) -> None:
        """Take note of vectors and the codes that they chose."""
        self._notes.append((codebook, vectors.detach(), codes))

    @torch.no_grad()
    def after_step(self) -> None:
        """Revive what is dead by now."""
        if not self._notes:
            return
        codebook = self._notes[0][0]
        vectors, codes = (torch.cat([note[i] for note in self._notes]) for i in (1, 2))
        self.forget()
        uses = over_all_ranks(torch.bincount(codes, minlength=len(codebook)))
        self.idle = torch.where(uses > 0, 0, self.idle + 1)
        dead = (self.idle >= self.after).nonzero()[:, 0]
        self.revived = len(dead)
        if len(dead) == 0:
            return
        vectors = in_order(of_all_ranks(vectors))
        if len(vectors):
            chosen = torch.randint(len(vectors), (len(dead),), device=vectors.device)
            codebook[dead] = of_first_rank(vectors[chosen].to(codebook.dtype))
            self.idle[dead] = 0

    def forget(self) -> None:
        self._notes = []
