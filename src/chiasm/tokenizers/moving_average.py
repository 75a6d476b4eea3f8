"""Vector quantization with a codebook that follows the encoder by moving averages and stays alive.

The codebook is no parameter: each code is the moving average of the vectors that chose it (VQ-VAE,
arXiv 1711.00937, appendix A; VQ-VAE-2, arXiv 1906.00446). A code that no vector chooses would never move
again, and a codebook of such codes is collapsed, the commonest complaint about image tokenizers. Two things
prevent it: the codes start as cluster centres of the first batch, and a code unused for a while is moved to
a vector of the current batch, drawn in proportion to how badly the codebook represents it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.distribution.collective import of_all_ranks, of_first_rank, over_all_ranks
from chiasm.nn.stepwise import Stepwise

_CLUSTER_ROUNDS = 10
_LOOKUP_ELEMENTS = 2**24  # distances held at once: 64 MiB in fp32


class NearestCodes(NamedTuple):
    """Vectors replaced by their nearest codes.

    vectors: the codes' vectors, through which gradients pass straight to the input.
    codes: index of each vector's code.
    commitment: squared distance of each input element from its code; its gradient moves the input only.
    """

    vectors: Float[Tensor, "n h w c"]
    codes: Int[Tensor, "n h w"]
    commitment: Float[Tensor, "n h w c"]


class VectorQuantizer(Stepwise):
    """A codebook learnt by exponential moving averages. Its arithmetic is fp32 whatever the autocast.

    It is updated once a step of the optimiser (`after_step`), from all vectors that it was given in training mode
    since the last one, on all ranks; what a step looks up is what the last one left. All of its state is in buffers
    and its random draws come from torch's global generator, so a restored run continues bit for bit.

    Args:
        codebook_size: number of codes.
        width: length of a code's vector.
        decay: share of the moving averages that each step keeps.
        settle: steps whose vectors pass as they are, before the codes begin as cluster centres of the last of
            them; at least the first step is such a one.
        revive_after: steps without a use after which a code is moved to a vector of the step; 0 = never.
        cosine: compare directions: vectors and codes have length 1.
        rotation: the gradient turns with the code instead of passing straight (arXiv 2410.06424).
    """

    def __init__(
        self,
        codebook_size: int,
        width: int,
        *,
        decay: float = 0.99,
        settle: int = 0,
        revive_after: int = 20,
        cosine: bool = False,
        rotation: bool = False,
        epsilon: float = 1e-5,
        window: int = 100,
    ):
        super().__init__()
        self.decay, self.epsilon, self.cosine, self.rotation = decay, epsilon, cosine, rotation
        self.settle, self.revive_after, self.window = max(settle, 1), revive_after, window
        self._notes: list[tuple[Tensor, Tensor]] = []  # vectors and their codes, since the last step
        vectors = self._on_sphere(torch.randn(codebook_size, width))
        self.vectors: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.frequency: Tensor
        self.last_use: Tensor
        self.last_revival: Tensor
        self.batches: Tensor
        self.register_buffer("vectors", vectors)
        self.register_buffer("counts", torch.ones(codebook_size))  # moving average of uses a step
        self.register_buffer("sums", vectors.clone())  # moving average of the sum of a code's vectors
        self.register_buffer("frequency", torch.zeros(codebook_size))  # as counts, untouched by revival
        # When (in steps, starting at 1) each code was last chosen and last revived.
        long_ago = torch.full((codebook_size,), -window)
        self.register_buffer("last_use", long_ago)
        self.register_buffer("last_revival", long_ago.clone())
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, inputs: Float[Tensor, "*n c"]) -> NearestCodes:
        with torch.autocast(inputs.device.type, enabled=False):
            inputs = self._on_sphere(inputs.float())
            flat = inputs.detach().flatten(0, -2)
            passes = self.training and self.batches < self.settle
            codes = flat.new_zeros(len(flat), dtype=torch.long) if passes else self.nearest(flat)
            if self.training:
                self._notes.append((flat, codes))
            if passes:
                return NearestCodes(inputs, codes.view(inputs.shape[:-1]), torch.zeros_like(inputs))
            vectors = self.vectors[codes].view_as(inputs)
            through = turned(inputs, vectors) if self.rotation else inputs + (vectors - inputs).detach()
            return NearestCodes(through, codes.view(inputs.shape[:-1]), (inputs - vectors).square())

    @torch.no_grad()
    def after_step(self) -> None:
        with torch.autocast(self.vectors.device.type, enabled=False):
            self._learn()

    def _learn(self) -> None:
        nothing = self.vectors[:0], torch.zeros(0, dtype=torch.long, device=self.vectors.device)
        vectors, codes = (torch.cat(each) for each in zip(nothing, *self._notes, strict=True))
        self.forget()
        if not float(over_all_ranks(torch.tensor(float(len(vectors)), device=vectors.device))):
            return
        self.batches += 1
        if self.batches == self.settle:
            self._start_from(in_order(of_all_ranks(vectors)))
        elif self.batches > self.settle:
            self._update(vectors, codes)

    def forget(self) -> None:
        self._notes = []

    @torch.no_grad()
    def encode(self, inputs: Float[Tensor, "*n c"]) -> Int[Tensor, "*n"]:
        """The nearest codes, without learning from them."""
        with torch.autocast(inputs.device.type, enabled=False):
            flat = self._on_sphere(inputs.float()).flatten(0, -2)
            return self.nearest(flat).view(inputs.shape[:-1])

    def nearest(self, flat: Float[Tensor, "m c"]) -> Int[Tensor, " m"]:
        """Index of the code nearest to each vector; of several equally near, the first."""
        # |x - e|^2 without |x|^2, which is the same for every code.
        lengths = self.vectors.square().sum(1)
        rows = max(1, _LOOKUP_ELEMENTS // len(self.vectors))
        chunks = [torch.addmm(lengths, part, self.vectors.T, alpha=-2).argmin(1) for part in flat.split(rows)]
        return torch.cat(chunks) if chunks else flat.new_zeros(0, dtype=torch.long)

    def health(self) -> dict[str, float]:
        """Share of codes used and number of codes revived in the last `window` steps; perplexity of use.

        Nothing while no code has begun.
        """
        if self.batches <= self.settle:
            return {}
        recent = self.batches - self.window
        share = self.frequency / self.frequency.sum().clamp(min=self.epsilon)
        return {
            "codebook_use": float((self.last_use > recent).float().mean()),
            "perplexity": float(torch.special.entr(share).sum().exp()),
            "revived": float((self.last_revival > recent).sum()),
        }

    def _start_from(self, vectors: Float[Tensor, "m c"]) -> None:
        """Make the codes cluster centres (k-means) of the vectors of all ranks."""
        size = len(self.vectors)
        repeats = -(-size // len(vectors))
        order = torch.cat([torch.randperm(len(vectors), device=vectors.device) for _ in range(repeats)])
        self.vectors.copy_(of_first_rank(vectors[order[:size]]))
        for _ in range(_CLUSTER_ROUNDS):
            uses, sums = self._totals(vectors, self.nearest(vectors))
            centres = torch.where(uses[:, None] > 0, sums / uses[:, None].clamp(min=1), self.vectors)
            self.vectors.copy_(self._on_sphere(centres))
        self.counts.copy_(uses.clamp(min=1))
        self.sums.copy_(self.vectors * self.counts[:, None])

    def _update(self, vectors: Float[Tensor, "m c"], codes: Int[Tensor, " m"]) -> None:
        errors = (vectors - self.vectors[codes]).square().sum(1, keepdim=True)
        uses, sums = (over_all_ranks(each) for each in self._totals(vectors, codes))
        self.last_use[uses > 0] = self.batches
        self.frequency.lerp_(uses, 1 - self.decay)
        self.counts.lerp_(uses, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        # Laplace smoothing: a code that is hardly used must not divide by zero.
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) / (total + len(self.counts) * self.epsilon) * total
        self.vectors.copy_(self._on_sphere(self.sums / smoothed[:, None]))
        if self.revive_after:
            self._revive(torch.cat([vectors, errors], 1))

    def _revive(self, represented: Float[Tensor, "m c1"]) -> None:
        """Move dead codes to vectors, drawn by their errors, which stand behind them."""
        idle = self.batches - torch.maximum(self.last_use, self.last_revival).clamp(min=self.settle)
        dead = (idle >= self.revive_after).nonzero().squeeze(1)
        if len(dead) == 0:
            return
        represented = in_order(of_all_ranks(represented))
        vectors, errors = represented[:, :-1], represented[:, -1]
        chosen = torch.multinomial(errors + self.epsilon, len(dead), replacement=len(dead) > len(vectors))
        places = of_first_rank(vectors[chosen])
        self.vectors[dead] = places
        # The weight of one use: the code moves freely to the vectors that choose it next.
        self.counts[dead] = 1.0
        self.sums[dead] = places
        self.last_revival[dead] = self.batches

    def _totals(
        self, vectors: Float[Tensor, "m c"], codes: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, "k c"]]:
        """How often each code was chosen, and the sum of the vectors that chose it."""
        uses = torch.bincount(codes, minlength=len(self.vectors)).to(vectors.dtype)
        return uses, torch.zeros_like(self.vectors).index_add_(0, codes, vectors)

    def _on_sphere(self, vectors: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return functional.normalize(vectors, dim=-1) if self.cosine else vectors


def turned(inputs: Float[Tensor, "*n c"], vectors: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
    """`vectors`, as what a fixed rotation and scaling makes of `inputs`, through which the gradient passes."""
    source = functional.normalize(inputs, dim=-1, eps=1e-6).detach()
    target = functional.normalize(vectors, dim=-1, eps=1e-6).detach()
    middle = functional.normalize(source + target, dim=-1, eps=1e-6)
    scale = (vectors.norm(dim=-1, keepdim=True) / inputs.norm(dim=-1, keepdim=True).clamp(min=1e-6)).detach()
    mirrored = inputs - 2 * (inputs * middle).sum(-1, keepdim=True) * middle
    return scale * (mirrored + 2 * (inputs * source).sum(-1, keepdim=True) * target)


def in_order(rows: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
    """The rows in an order of their own, so that a draw among them does not depend on how they were shared out."""
    return rows[rows[:, 0].argsort(stable=True)]
