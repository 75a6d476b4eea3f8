"""Honeybee's deformable abstractor."""

from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors import Connector
from chiasm.connectors.learnt import closing_tokens, learnt_positions
from chiasm.errors import RecipeError
from chiasm.nn.deformable import DeformableAttention
from chiasm.nn.multi_head import attend_in_heads
from chiasm.parts.bounds import Cells, Count, Depth, Heads, Width

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class DAbstractor(Connector, name="d_abstractor"):
    """Honeybee's D-Abstractor: queries that attend near their own, learnt, reference points (arXiv 2312.06742).

    The layers are Deformable DETR's decoder (arXiv 2010.04159): attention among the queries, deformable
    attention to the features, MLP, each followed by a layer norm.

    Args:
        side: the square root of how many visual tokens; their reference points start as an even grid.
        depth: layers.
        width: of the layers.
        heads: of both attentions.
        hidden: width of the MLPs.
        points: features that a head attends to, for each level.
        levels: the features are so many layers of the encoder, joined on channels.
        pooled: what the averaged features become: the 'query' (added to queries and keys, the learnt vectors being
            the targets), the 'target' (the other way round), or 'none' (both learnt).
        activation: of the MLPs.
        positions: rows and columns of the features for which positions are learnt; null = none.
        closing: learnt tokens after those of every image.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        side: Cells = 4,
        depth: Depth = 6,
        width: Width = 256,
        heads: Heads = 8,
        hidden: Width = 1024,
        points: Heads = 4,
        levels: Heads = 1,
        pooled: Literal["query", "target", "none"] = "query",
        activation: Literal["relu", "gelu", "silu"] = "relu",
        positions: tuple[Cells, Cells] | None = None,
        closing: Count = 0,
    ):
        super().__init__()
        if width % heads or in_width % levels:
            raise RecipeError(
                f"connector 'd_abstractor': {heads} heads must divide the width {width}, and {levels} levels the "
                f"features' width {in_width}"
            )
        if levels > 1 and pooled != "none":
            raise RecipeError("connector 'd_abstractor' pools one level only; choose pooled: none")
        self.side, self.extra, self.levels, self.pooled = side, closing, levels, pooled
        each = in_width // levels
        self.inputs = nn.ModuleList(
            nn.Linear(each, width) if each != width else nn.Identity() for _ in range(levels)
        )
        self.positions = learnt_positions(positions, width)
        self.level_vectors = nn.Parameter(torch.randn(levels, width)) if levels > 1 else None
        self.queries = nn.Parameter(torch.randn(side**2, width * (2 if pooled == "none" else 1)))
        self.references = nn.Parameter(_even_grid(side, positions or (side, side)))
        self.layers = nn.ModuleList(
            DAbstractorLayer(width, heads, hidden, points, levels, ACTIVATIONS[activation]())
            for _ in range(depth)
        )
        self.closing = closing_tokens(closing, width)
        self.output = nn.Linear(width, out_width) if width != out_width else nn.Identity()

    def tokens(self, grid: tuple[int, int]) -> int:
        return self.side**2 + self.extra

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return (self.side, self.side) if not self.extra else (1, self.tokens(grid))

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        features = torch.stack(
            [
                self.positions(layer(part))
                for layer, part in zip(self.inputs, grid.chunk(self.levels, -1), strict=True)
            ],
            dim=1,
        )
        if self.level_vectors is not None:
            features = features + rearrange(self.level_vectors, "l d -> l 1 1 d")
        positions, x = self._start(features)
        for layer in self.layers:
            x = layer(x, positions, self.references, features)
        return self.output(self.closing(x))

    def _start(self, features: Float[Tensor, "n l gh gw d"]) -> tuple[Tensor, Tensor]:
        """What is added to the queries, and what the layers start from."""
        learnt = repeat(self.queries, "k d -> n k d", n=len(features))
        if self.pooled == "none":
            positions, start = learnt.chunk(2, -1)
            return positions, start
        cells = functional.adaptive_avg_pool2d(rearrange(features[:, 0], "n gh gw d -> n d gh gw"), self.side)
        averages = rearrange(cells, "n d r s -> n (r s) d")
        return (averages, learnt) if self.pooled == "query" else (learnt, averages)


class DAbstractorLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, points: int, levels: int, activation: nn.Module):
        super().__init__()
        self.head_width = width // heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.self_norm = nn.LayerNorm(width)
        self.look = DeformableAttention(width, heads, points, levels)
        self.look_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation, nn.Linear(hidden, width))
        self.mlp_norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "n k d"],
        positions: Float[Tensor, "n k d"],
        references: Float[Tensor, "k 2"],
        features: Float[Tensor, "n l gh gw d"],
    ) -> Float[Tensor, "n k d"]:
        positioned = x + positions
        mixed = attend_in_heads(self.query(positioned), self.key(positioned), self.value(x), self.head_width)
        x = self.self_norm(x + self.output(mixed))
        x = self.look_norm(x + self.look(x + positions, references, features.unbind(1)))
        return self.mlp_norm(x + self.mlp(x))


def _even_grid(side: int, grid: tuple[int, int]) -> Float[Tensor, "k 2"]:
    """x and y of an even grid of points, from the middle of the first feature to that of the last."""
    y, x = (torch.linspace(0.5, length - 0.5, side) / length for length in grid)
    return rearrange(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1), "r s c -> (r s) c")
