"""Attention to a few points that queries choose, in one grid of features or in several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class DeformableAttention(nn.Module):
    """Each head reads the features at a few places that the query itself names (arXiv 2010.04159)."""

    def __init__(self, width: int, heads: int, points: int, levels: int):
        super().__init__()
        self.shape = {"h": heads, "l": levels, "p": points}
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():  # each head starts along a direction of its own, point after point further out
            angle = torch.arange(heads) * (2 * torch.pi / heads)
            direction = torch.stack([angle.cos(), angle.sin()], -1)
            direction = direction / direction.abs().amax(-1, keepdim=True)
            steps = torch.arange(1, points + 1).view(-1, 1)
            start = repeat(direction[:, None] * steps, "h p c -> (h l p c)", l=levels)
            self.offsets.bias.copy_(start)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={count}" for name, count in self.shape.items())

    def forward(
        self,
        query: Float[Tensor, "n k d"],
        references: Float[Tensor, "k 2"],
        features: Sequence[Float[Tensor, "n gh gw d"]],
    ) -> Float[Tensor, "n k d"]:
        """references: x and y of each query in [0, 1]. features: of each level, whose grids may differ."""
        heads = self.shape["h"]
        offsets = rearrange(self.offsets(query), "n k (h l p c) -> l (n h) k p c", **self.shape, c=2)
        weights = rearrange(self.weights(query), "n k (h m) -> n h k m", h=heads).softmax(-1)
        by_level = [
            self._sampled(grid, references[:, None], offset)
            for grid, offset in zip(features, offsets, strict=True)
        ]
        sampled = rearrange(torch.cat(by_level, -1), "(n h) e k m -> n h e k m", h=heads)
        return self.output(torch.einsum("nhekm,nhkm->nkhe", sampled, weights).flatten(2))

    def _sampled(
        self,
        grid: Float[Tensor, "n gh gw d"],
        references: Float[Tensor, "k 1 2"],
        offsets: Float[Tensor, "b k p 2"],
    ) -> Float[Tensor, "b e k p"]:
        """Values at places that lie `offsets`, in cells, from the references; b = images times heads."""
        rows, columns = grid.shape[1:3]
        size = torch.tensor([columns, rows], dtype=offsets.dtype, device=offsets.device)
        values = rearrange(self.value(grid), "n gh gw (h e) -> (n h) e gh gw", h=self.shape["h"])
        places = 2 * (references + offsets / size) - 1
        return functional.grid_sample(
            values, places, mode="bilinear", padding_mode="zeros", align_corners=False
        )
