"""Many vectors to one, by attention (CLIP's ResNets, LaVIT, SEED-X)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.nn.multi_head import attend_in_heads


class AttentionPool(nn.Module):
    """The mean of the features looks at all of them and at itself (CLIP's pooling, arXiv 2103.00020)."""

    def __init__(self, cells: int, width: int, heads: int, out_width: int):
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(torch.randn(cells + 1, width) * width**-0.5)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, out_width)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(self, features: Float[Tensor, "n p c"]) -> Float[Tensor, "n d"]:
        x = torch.cat([features.mean(1, keepdim=True), features], dim=1) + self.positions
        pooled = attend_in_heads(self.query(x[:, :1]), self.key(x), self.value(x), x.shape[-1] // self.heads)
        return self.out(pooled[:, 0])
