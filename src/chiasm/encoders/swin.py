"""Swin: a transformer of shifted windows whose grid halves from stage to stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from chiasm.encoders import Encoder
from chiasm.encoders.preprocessor import IMAGENET
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Cells, Depth, Heads, Pixels, Positive, Width

Stages = Annotated[list[Depth], Field(min_length=1, max_length=8)]
StageHeads = Annotated[list[Heads], Field(min_length=1, max_length=8)]
BARRED = -100.0  # what is added to the scores of cells that only the shift made neighbours


class Swin(Encoder, name="swin"):
    """Swin Transformer (arXiv 2103.14030), whose stages may also be the levels of a pyramid.

    The defaults are Swin-B with windows of 12, as Mask2Former and PSALM have it; Swin-L is `{width: 192, heads:
    [6, 12, 24, 48]}`. Pixels are normalised by ImageNet's statistics.

    Args:
        patch_size: side of a patch in pixels, which is one feature of the first stage.
        width_of_patches: channels of the first stage; each further one has twice as many.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        window: side of the windows, in features.
        mlp_ratio: hidden channels of a block's MLP for each of its own.
        bias: whether queries, keys and values add one.
        patch_norm: LayerNorm behind the patches.
        levels: the stages that are given out, each behind a LayerNorm of its own: the 'last', or 'all', for mask
            heads.
        absolute: side in pixels of the images for which patches have learnt positions; null = they have none.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        patch_size: Pixels = 4,
        width_of_patches: Width = 128,
        depths: Stages = [2, 2, 18, 2],  # noqa: B006  read only
        heads: StageHeads = [4, 8, 16, 32],  # noqa: B006  read only
        window: Cells = 12,
        mlp_ratio: Positive = 4.0,
        bias: bool = True,
        patch_norm: bool = True,
        levels: Literal["last", "all"] = "last",
        absolute: Pixels | None = None,
    ):
        super().__init__()
        widths = [width_of_patches * 2**i for i in range(len(depths))]
        if len(heads) != len(depths) or any(width % h for width, h in zip(widths, heads)):
            raise RecipeError(
                f"encoder 'swin': heads {heads} have to be one number for each of the {len(depths)} stages, which "
                f"divides its width ({', '.join(map(str, widths))})"
            )
        self.patch_size, self.widths, self.width = patch_size, widths, widths[-1]
        self.patchify = nn.Conv2d(3, width_of_patches, patch_size, patch_size)
        self.patch_norm = nn.LayerNorm(width_of_patches) if patch_norm else nn.Identity()
        side = (absolute or 0) // patch_size
        self.positions = nn.Parameter(torch.randn(1, widths[0], side, side) * 0.02) if absolute else None
        self.stages = nn.ModuleList(
            nn.ModuleList(
                SwinBlock(width, h, window, window // 2 if i % 2 else 0, int(width * mlp_ratio), bias)
                for i in range(depth)
            )
            for width, h, depth in zip(widths, heads, depths)
        )
        self.merges = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        normed = widths if levels == "all" else widths[-1:]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in normed)
        self.register_buffer("mean", torch.tensor(IMAGENET[0]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(IMAGENET[1]).view(3, 1, 1))

    @property
    def level_widths(self) -> tuple[int, ...]:
        return tuple(self.widths[-len(self.norms) :])

    def grid(self, height: int, width: int) -> tuple[int, int]:
        stride = self.patch_size * 2 ** (len(self.widths) - 1)
        return -(-height // stride), -(-width // stride)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        return self.pyramid(pixels)[-1]

    def pyramid(self, pixels: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n gh gw c"]]:
        x, levels = self._patches(pixels), []
        for i, blocks in enumerate(self.stages):
            if i:
                x = self.merges[i - 1](x)
            for block in blocks:  # type: ignore[attr-defined]  # a ModuleList
                x = block(x)
            levels.append(x)
        normed = levels[-len(self.norms) :]
        return [norm(level) for norm, level in zip(self.norms, normed, strict=True)]

    def _patches(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        height, width = pixels.shape[-2:]
        x = (pixels - self.mean) / self.deviation
        x = functional.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
        x = self.patch_norm(rearrange(self.patchify(x), "n c gh gw -> n gh gw c"))
        if self.positions is not None:
            table = functional.interpolate(self.positions, x.shape[1:3], mode="bicubic")
            x = x + rearrange(table, "1 c gh gw -> 1 gh gw c")
        return x

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width_of_patches": 8, "depths": [1, 2], "heads": [1, 2], "window": 3, "mlp_ratio": 2.0}


class SwinBlock(nn.Module):
    """Attention in windows, which are shifted by `shift` features, and an MLP, each behind a LayerNorm."""

    def __init__(self, width: int, heads: int, window: int, shift: int, hidden: int, bias: bool):
        super().__init__()
        self.window, self.shift = window, shift
        self.attention_norm = nn.LayerNorm(width)
        self.attention = ShiftedAttention(width, heads, window, bias)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def extra_repr(self) -> str:
        return f"window={self.window}, shift={self.shift}"

    def forward(self, x: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh gw c"]:
        x = x + self._attend(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))

    def _attend(self, x: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns, w = *x.shape[1:3], self.window
        x = functional.pad(x, (0, 0, 0, -columns % w, 0, -rows % w))
        down, across = x.shape[1] // w, x.shape[2] // w
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        barred = self._barred(down, across, x.device) if self.shift else None
        x = self.attention(rearrange(x, "n (R r) (C c) d -> n (R C) (r c) d", R=down, C=across), barred)
        x = rearrange(x, "n (R C) (r c) d -> n (R r) (C c) d", R=down, r=w)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :rows, :columns]

    def _barred(self, down: int, across: int, device: torch.device) -> Bool[Tensor, "windows q k"]:
        """Pairs of features of a window that stand on opposite sides of the image's edge after the shift."""

        def bands(windows: int) -> Tensor:
            place = torch.arange(windows * self.window, device=device)
            end = windows * self.window
            return (place >= end - self.window).long() + (place >= end - self.shift).long()

        region = 3 * bands(down)[:, None] + bands(across)
        region = rearrange(region, "(R r) (C c) -> (R C) (r c)", r=self.window, c=self.window)
        return region[:, :, None] != region[:, None, :]


class ShiftedAttention(nn.Module):
    """Attention within windows; scores get a learnt part for each difference of places."""

    places: Tensor

    def __init__(self, width: int, heads: int, window: int, bias: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias)
        self.out = nn.Linear(width, width)
        self.distances = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.02)
        place = torch.arange(window)
        apart = place[:, None] - place + window - 1  # from 0
        pairs = (2 * window - 1) * apart[:, None, :, None] + apart[None, :, None, :]
        self.register_buffer("places", rearrange(pairs, "r c s t -> (r c) (s t)"), persistent=False)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(
        self, x: Float[Tensor, "n windows s c"], barred: Bool[Tensor, "windows s s"] | None
    ) -> Float[Tensor, "n windows s c"]:
        q, k, v = rearrange(self.qkv(x), "n w s (three h e) -> three n w h s e", three=3, h=self.heads)
        scores: Tensor = rearrange(self.distances[self.places], "q k h -> 1 h q k")
        if barred is not None:
            scores = scores + BARRED * barred[:, None].to(scores.dtype)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=scores)
        return self.out(rearrange(attended, "n w h s e -> n w s (h e)"))


class PatchMerging(nn.Module):
    """Four neighbouring features to one of twice the channels."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n h w d"]:
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # Columns change slowest, as in the original: left above, left below, right above, right below.
        x = rearrange(x, "n (h r) (w c) d -> n h w (c r d)", r=2, c=2)
        return self.reduction(self.norm(x))
