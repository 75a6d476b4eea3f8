"""A large image in windows, each seen by an encoder made for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.encoders import Encoder
from chiasm.encoders.blockwise import BlockwiseEncoder
from chiasm.encoders.window_crossing import WindowCrossing
from chiasm.encoders.window_updates import WindowUpdates
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Cells, Count, Heads, Pixels, Width


class Windows(Encoder, name="windows"):
    """Windows of an image, each as the encoder sees it, and the whole image beside (Monkey, arXiv 2311.06607).

    The features of the windows stand one below another, in the order of reading, and below them those of the whole
    image, shrunk to the size of a window. Monkey's windows have low-rank updates of their own (`updates`);
    TextMonkey's (2403.04473) see each other before some blocks (`crossings`), through a narrow block that adds
    nothing at first. Both need an encoder whose blocks can be run one by one: qwen_vl.

    Args:
        encoder: what sees a window.
        window: side of a window in pixels.
        overview: see the whole image too. The updates and crossings are of windows alone.
        fixed: the encoder keeps its weights up to its last block, when the rest is trained: the updates, the
            crossings and the resampler with which it ends.
        remainder: what happens to an image that is no whole number of windows: 'refuse', or 'drop' what remains on
            the right and below, as Monkey does.
        updates: sets of low-rank updates; 0 = none, 1 = the same for all windows, else one for each.
        rank: of the updates of attention.
        mlp_rank: of the update beside an MLP.
        crossings: blocks, counted from 0, before which windows see each other.
        crossing_widths: channels of each crossing.
        crossing_heads: attention heads of each crossing.
        crossing_window: side of what attends together in a crossing, in patches.
        crossing_side: rows and columns of patches of the image for which crossings learn positions.
    """

    encoder: Encoder

    def __init__(
        self,
        *,
        encoder: Encoder,
        window: Pixels = 448,
        overview: bool = True,
        fixed: bool = False,
        remainder: Literal["refuse", "drop"] = "refuse",
        updates: Count = 0,
        rank: Width = 16,
        mlp_rank: Width = 32,
        crossings: list[Count] = [],  # noqa: B006
        crossing_widths: list[Width] = [],  # noqa: B006
        crossing_heads: list[Heads] = [],  # noqa: B006
        crossing_window: Cells = 12,
        crossing_side: Cells = 64,
    ):
        super().__init__()
        self.encoder, self.window, self.overview, self.remainder = encoder, window, overview, remainder
        self.width, self.sets, self.crossed, self.fixed = encoder.width, updates, list(crossings), fixed
        self.updates, self.crossings = nn.ModuleList(), nn.ModuleList()
        if updates or crossings or crossing_widths or crossing_heads:
            blocks, channels = _blocks(encoder)
            _check_crossings(len(blocks), crossings, crossing_widths, crossing_heads)
            if updates:
                self.updates.extend(WindowUpdates(updates, channels, rank, mlp_rank) for _ in blocks)
            self.crossings.extend(
                WindowCrossing(channels, *sizes, crossing_window, crossing_side)
                for sizes in zip(crossing_widths, crossing_heads, strict=True)
            )
        self.requires_grad_()

    def requires_grad_(self, requires_grad: bool = True) -> Windows:
        """Let it learn or not; of an encoder that is `fixed`, what stands behind its blocks."""
        super().requires_grad_(requires_grad)
        encoder = self.encoder
        if self.fixed:
            fixed = encoder.trunk() if isinstance(encoder, BlockwiseEncoder) else encoder.parameters()
            for weight in fixed:
                weight.requires_grad_(False)
        return self

    def standalone(self) -> dict[str, Any]:
        return {"encoder": self.encoder.spec | self.encoder.standalone()}

    def extra_repr(self) -> str:
        return f"window={self.window}, overview={self.overview}, crossed={self.crossed}"

    def grid(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.windows(height, width)
        down, across = self.encoder.grid(self.window, self.window)
        return (rows * columns + self.overview) * down, across

    def patches(self, height: int, width: int) -> tuple[int, int]:
        raise RecipeError(
            "encoder 'windows' has no one grid of patches, as pre-training wants that hides some of them or "
            "compares them: its features are of one window after another; pre-train the encoder inside it"
        )

    def windows(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of windows of an image; raises RecipeError for one that cannot be cut."""
        (rows, below), (columns, right) = divmod(height, self.window), divmod(width, self.window)
        if not rows or not columns or ((below or right) and self.remainder == "refuse"):
            raise RecipeError(
                f"encoder 'windows' cannot cut {height}x{width} pixels into windows of {self.window}; choose a "
                f"size of view that {self.window} divides"
            )
        if 1 < self.sets < rows * columns:
            raise RecipeError(
                f"encoder 'windows' has updates for {self.sets} windows, but {height}x{width} pixels make "
                f"{rows * columns}"
            )
        return rows, columns

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns = self.windows(*pixels.shape[-2:])
        whole_windows = pixels[..., : rows * self.window, : columns * self.window]
        cut = rearrange(whole_windows, "n c (r h) (s w) -> (n r s) c h w", r=rows, s=columns)
        features = self._see(cut, rows, columns)
        features = rearrange(features, "(n k) gh gw c -> n (k gh) gw c", k=rows * columns)
        if not self.overview:
            return features
        small = functional.interpolate(pixels, (self.window, self.window), mode="bicubic")
        return torch.cat([features, self.encoder(small)], dim=1)

    def _see(self, windows: Float[Tensor, "m 3 h w"], rows: int, columns: int) -> Float[Tensor, "m gh gw c"]:
        encoder = self.encoder
        if not self.updates and not self.crossings:
            return encoder(windows)
        assert isinstance(encoder, BlockwiseEncoder)
        x = encoder.begin(windows)
        down = x.shape[1]
        x = rearrange(x, "(n k) gh gw c -> n k (gh gw) c", k=rows * columns)
        crossings = dict(zip(self.crossed, self.crossings, strict=True))
        for number, block in enumerate(encoder.blocks):
            if number in crossings:
                whole = rearrange(x, "n (r s) (h w) c -> n (r h) (s w) c", r=rows, h=down)
                x = rearrange(
                    crossings[number](whole), "n (r h) (s w) c -> n (r s) (h w) c", r=rows, s=columns
                )
            x = block(x, self.updates[number] if self.updates else None)
        return encoder.finish(rearrange(x, "n k (gh gw) c -> (n k) gh gw c", gh=down))

    @classmethod
    def example(cls) -> dict[str, Any]:
        small = {"patch_size": 4, "width": 16, "depth": 2, "heads": 2, "hidden": 24}
        return {
            "encoder": {"type": "qwen_vl", **small, "side": 2, "out_width": 16, "pool_heads": 2},
            "window": 16,
            **{"updates": 4, "rank": 2, "mlp_rank": 2},
            **{"crossings": [1], "crossing_widths": [8], "crossing_heads": [2]},
            **{"crossing_window": 3, "crossing_side": 8},
        }


def _blocks(encoder: Encoder) -> tuple[nn.ModuleList, int]:
    """The blocks between which something can stand, and their channels."""
    if not isinstance(encoder, BlockwiseEncoder):
        raise RecipeError(
            f"encoder 'windows': updates and crossings need an encoder whose blocks can be run one by one, as "
            f"qwen_vl; {encoder.name!r} is none"
        )
    return encoder.blocks, encoder.channels


def _check_crossings(
    depth: int, crossings: Sequence[int], widths: Sequence[int], heads: Sequence[int]
) -> None:
    rising = sorted(set(crossings)) == list(crossings) and max(crossings, default=0) < depth
    if not rising or not len(crossings) == len(widths) == len(heads):
        raise RecipeError(
            f"encoder 'windows': crossings {list(crossings)} must be rising numbers of the {depth} blocks, with a "
            f"width and heads for each; there are {len(widths)} widths and {len(heads)} heads"
        )
