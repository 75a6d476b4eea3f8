"""PixelLLM's prompt adapter: an image's features as seen from a box."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.nn.two_way import TwoWayTransformer
from chiasm.parts.bounds import Cells, Depth, Heads, Pixels, Tokens, Width


class PromptAdapter(Connector, name="prompt_adapter"):
    """A box and learnt tokens look at the features and these at them (PixelLLM, arXiv 2312.09237; after SAM).

    Without a box, which the language model's sequence has no place for yet, it is that of the whole image.

    Args:
        size: side in pixels of the image in which boxes are given.
        queries: learnt tokens, which become the visual tokens of `reads: tokens`.
        width: of the two-way transformer.
        prompt_width: of the prompts and of the positions of features; it must be even.
        inner: channels of what the transformer gives out, before the language model's width.
        depth: layers of the transformer.
        heads: its attention heads; twice as many must divide `width`.
        hidden: hidden width of its MLPs.
        prompt: whether a box is given by its two 'corners', or by 'points' within it.
        points: rows and columns of points, of which with corners only the number counts.
        reads: the visual tokens are the learnt 'tokens', each with an output layer of its own, or the 'features'.
    """

    frequencies: Tensor

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        size: Pixels = 224,
        queries: Tokens = 32,
        width: Width = 512,
        prompt_width: Width = 256,
        inner: Width = 1024,
        depth: Depth = 2,
        heads: Heads = 8,
        hidden: Width = 2048,
        prompt: Literal["corners", "points"] = "corners",
        points: Cells = 2,
        reads: Literal["tokens", "features"] = "tokens",
    ):
        super().__init__()
        self.size, self.points, self.prompt, self.reads = size, points, prompt, reads
        self.queries = nn.Parameter(torch.randn(queries, width))
        # Two corners and what fills up; or what points have in common, and a point that is none.
        self.marks = nn.Parameter(torch.randn(2, prompt_width))
        self.filler = nn.Parameter(torch.randn(1, prompt_width))
        self.register_buffer("frequencies", torch.randn(2, prompt_width // 2))
        project = prompt_width != width
        self.project_prompt, self.project_positions = (
            nn.Linear(prompt_width, width) if project else nn.Identity() for _ in range(2)
        )
        self.project = nn.Linear(in_width, width)
        self.transformer = TwoWayTransformer(width, depth=depth, heads=heads, hidden=hidden)
        layers = queries if reads == "tokens" else 1
        self.outputs = nn.ModuleList(nn.Linear(width, inner) for _ in range(layers))
        self.out, self.norm = nn.Linear(inner, out_width), nn.LayerNorm(out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        return len(self.queries) if self.reads == "tokens" else grid[0] * grid[1]

    def extra_repr(self) -> str:
        return f"size={self.size}, prompt={self.prompt}, reads={self.reads}"

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        whole = grid.new_tensor([0, 0, self.size, self.size]).expand(len(grid), 4)
        return self.norm(self.out(self.prompted(grid, whole)))

    def prompted(
        self, grid: Float[Tensor, "n gh gw c"], boxes: Float[Tensor, "n 4"]
    ) -> Float[Tensor, "n k e"]:
        """What becomes the visual tokens of each image and its box: left, top, right, bottom in pixels."""
        prompts = self._corners(boxes) if self.prompt == "corners" else self._points(boxes)
        first = torch.cat([self.queries.expand(len(grid), -1, -1), self.project_prompt(prompts)], 1)
        image = rearrange(self.project(grid) + self.project_prompt(self.filler), "n gh gw d -> n (gh gw) d")
        positions = self.project_positions(self._places(*grid.shape[1:3])).flatten(0, 1)
        tokens, image = self.transformer(first, image, positions)
        if self.reads == "features":
            return self.outputs[0](image)
        return torch.stack([layer(tokens[:, i]) for i, layer in enumerate(self.outputs)], 1)

    def _corners(self, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n k e"]:
        corners = self._waves(self._shares(rearrange(boxes, "n (p two) -> n p two", two=2))) + self.marks
        return torch.cat([corners, self.filler.expand(len(boxes), self.points**2 - 1, -1)], 1)

    def _points(self, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n k e"]:
        steps = torch.linspace(0, 1, self.points, device=boxes.device)
        across, down = torch.meshgrid(steps, steps, indexing="xy")
        shares = torch.stack([across, down], -1).flatten(0, 1)
        places = boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2])
        inside = self._waves(self._shares(places)) + self.marks[0]
        return torch.cat([inside, self.marks[1].expand(len(boxes), 1, -1)], 1)

    def _shares(self, places: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p 2"]:
        """Of the image, at the middle of each pixel."""
        return (places + 0.5) / self.size

    def _places(self, rows: int, columns: int) -> Float[Tensor, "gh gw e"]:
        """The waves of each feature's middle."""
        y, x = ((torch.arange(n, device=self.queries.device) + 0.5) / n for n in (rows, columns))
        return self._waves(torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], -1))

    def _waves(self, shares: Float[Tensor, "*s 2"]) -> Float[Tensor, "*s e"]:
        """Sines and cosines of places at random frequencies."""
        angles = 2 * math.pi * ((2 * shares - 1).to(self.frequencies.dtype) @ self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], -1)

    @classmethod
    def example(cls) -> dict[str, Any]:
        small = {"size": 32, "queries": 3, "width": 16, "prompt_width": 8, "inner": 12}
        return {**small, "depth": 1, "heads": 2, "hidden": 16}
