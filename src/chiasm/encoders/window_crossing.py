"""TextMonkey's attention across the windows of an image (arXiv 2403.04473)."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.nn.grid_resampler import resized

APART = -100.0  # added to the scores of patches that only the shift has brought side by side


class WindowCrossing(nn.Module):
    """One narrow block of a Swin over the patches of a whole image, with shifted windows; it adds nothing at first.

    Its windows do not coincide with those of the image, so that patches on both sides of an edge see each other.

    width: channels of a patch. hidden: of the block. heads: they must divide `hidden`. window: side of what attends
    together, in patches; a map that is no larger attends as a whole. side: of the map for which positions are
    learnt; for others they are resized.
    """

    def __init__(self, width: int, hidden: int, heads: int, window: int, side: int):
        super().__init__()
        if hidden % heads:
            raise RecipeError(f"{heads} heads of attention across windows do not divide its width {hidden}")
        self.heads, self.window = heads, min(window, side)
        self.shift = window // 2 if window < side else 0
        self.positions = nn.Parameter(torch.empty(side**2, width))
        self.distances = nn.Parameter(torch.empty((2 * self.window - 1) ** 2, heads))
        for table in (self.positions, self.distances):
            nn.init.trunc_normal_(table, std=0.02)
        self.input = nn.Linear(width, hidden, bias=False)
        self.attention_norm, self.mlp_norm = (nn.LayerNorm(hidden) for _ in range(2))
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = (
            nn.Linear(hidden, 2 * hidden, bias=False),
            nn.Linear(2 * hidden, width, bias=False),
        )
        nn.init.zeros_(self.down.weight)
        self.scale = nn.Parameter(torch.ones(1))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, window={self.window}, shift={self.shift}"

    def forward(self, x: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns = x.shape[1:3]
        positions = rearrange(resized(self.positions, rows, columns), "(gh gw) c -> gh gw c", gh=rows)
        hidden = self.input(x + positions)
        hidden = hidden + self._attend(self.attention_norm(hidden))
        return x + self.scale * self.down(functional.gelu(self.up(self.mlp_norm(hidden))))

    def _attend(self, x: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns, w = x.shape[1], x.shape[2], self.window
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = functional.pad(x, (0, 0, 0, -columns % w, 0, -rows % w))
        padded = x.shape[1:3]
        q, k, v = rearrange(
            self.qkv(x),
            "n (R r) (S s) (three h e) -> three n (R S) h (r s) e",
            three=3,
            h=self.heads,
            r=w,
            s=w,
        )
        scores = self._distances() + self._apart(*padded).to(x.device)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=scores.to(q.dtype))
        x = rearrange(
            attended, "n (R S) h (r s) e -> n (R r) (S s) (h e)", R=padded[0] // w, r=w, h=self.heads
        )
        return torch.roll(self.out(x[:, :rows, :columns]), (self.shift, self.shift), (1, 2))

    def _distances(self) -> Float[Tensor, "h q k"]:
        """The learnt part of the scores, by the distance in rows and in columns."""
        places = torch.arange(self.window, device=self.distances.device)
        apart = places[:, None] - places + self.window - 1
        index = rearrange(apart, "q k -> q 1 k 1") * (2 * self.window - 1) + rearrange(
            apart, "q k -> 1 q 1 k"
        )
        return rearrange(self.distances[index], "qr qc kr kc h -> h (qr qc) (kr kc)")

    def _apart(self, rows: int, columns: int) -> Float[Tensor, "w 1 q k"]:
        """What is added to the scores of two patches of a window that are no neighbours in the image."""
        regions = 3 * self._regions(rows)[:, None] + self._regions(columns)
        regions = rearrange(regions, "(R r) (S s) -> (R S) (r s)", r=self.window, s=self.window)
        apart = regions[:, :, None] != regions[:, None, :]
        return rearrange(apart.float() * APART, "w q k -> w 1 q k")

    def _regions(self, side: int) -> Int[Tensor, " s"]:
        """Of each row, or column, of the shifted map, whether it is of the last window, or beyond the edge."""
        places = torch.arange(side)
        return (
            (places >= side - self.window).long() + (places >= side - self.shift)
            if self.shift
            else places * 0
        )
