"""The convolutional encoder and decoder of VQGAN, which nearly every published image tokenizer shares.

Submodules have the names of taming-transformers (github.com/CompVis/taming-transformers), so that checkpoints of
its many descendants map onto them by renaming alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError

GROUPS = 32  # of every GroupNorm
Normalise = Callable[[int], nn.Module]


class ConvEncoder(nn.Module):
    """Pixels to latents, half the resolution from each level to the next.

    width: channels of the first level. multipliers: of the width, a level each. depth: residual blocks a level,
    one number for all or one each. latent_width: channels out. attention: levels (from 0) with self-attention
    behind each block. middle_attention: self-attention at the resolution of the latents. convolved: whether a
    convolution changes the resolution, instead of averaging. heads: of every self-attention.
    """

    def __init__(
        self,
        width: int,
        multipliers: Sequence[int],
        depth: int | Sequence[int],
        latent_width: int,
        attention: Collection[int] = (),
        middle_attention: bool = True,
        *,
        convolved: bool = True,
        heads: int = 1,
    ):
        super().__init__()
        check_widths(width, multipliers)
        self.conv_in = nn.Conv2d(3, width, 3, 1, 1)
        self.down = nn.ModuleList()
        channels = width
        for level, multiplier in enumerate(multipliers):
            stage = _Stage(None, heads)
            for _ in range(_blocks(depth, level)):
                stage.add(channels, width * multiplier, level in attention)
                channels = width * multiplier
            if level < len(multipliers) - 1:
                stage.downsample = Downsample(channels) if convolved else nn.AvgPool2d(2)
            self.down.append(stage)
        self.mid = Middle(channels, middle_attention, heads=heads)
        self.norm_out = norm(channels)
        self.conv_out = nn.Conv2d(channels, latent_width, 3, 1, 1)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c gh gw"]:
        x = self.conv_in(pixels)
        for stage in self.down:
            x = stage(x)
        return self.conv_out(functional.silu(self.norm_out(self.mid(x))))


class ConvDecoder(nn.Module):
    """Latents to pixels: `ConvEncoder` mirrored, with the same options. `up[0]` is the full resolution.

    normalise: makes the normalisations. Conditions (the codes, say) are arguments of `forward`.
    middle_blocks: residual blocks at the resolution of the latents beyond the two round the attention.
    """

    def __init__(
        self,
        width: int,
        multipliers: Sequence[int],
        depth: int | Sequence[int],
        latent_width: int,
        attention: Collection[int] = (),
        middle_attention: bool = True,
        normalise: Normalise | None = None,
        *,
        convolved: bool = True,
        heads: int = 1,
        middle_blocks: int = 0,
    ):
        super().__init__()
        check_widths(width, multipliers)
        channels = width * multipliers[-1]
        normalise = normalise or norm
        self.conv_in = nn.Conv2d(latent_width, channels, 3, 1, 1)
        self.mid = Middle(channels, middle_attention, normalise, heads=heads, more=middle_blocks)
        stages = []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            stage = _Stage(normalise, heads)
            for _ in range(_blocks(depth, level)):
                stage.add(channels, width * multiplier, level in attention)
                channels = width * multiplier
            if level > 0:
                stage.upsample = Upsample(channels) if convolved else nn.UpsamplingNearest2d(scale_factor=2)
            stages.append(stage)
        self.up = nn.ModuleList(reversed(stages))
        self.norm_out = normalise(channels)
        self.conv_out = nn.Conv2d(channels, 3, 3, 1, 1)

    def forward(self, latents: Float[Tensor, "n c gh gw"], *conditions: Tensor) -> Float[Tensor, "n 3 h w"]:
        x = self.mid(self.conv_in(latents), *conditions)
        for stage in reversed(self.up):
            x = stage(x, *conditions)
        return self.conv_out(functional.silu(self.norm_out(x, *conditions)))


class ResidualBlock(nn.Module):
    """Normalise, activate, convolve, twice; added to the input, by a 1x1 convolution where the width changes."""

    def __init__(self, in_width: int, out_width: int, normalise: Normalise | None = None):
        super().__init__()
        normalise = normalise or norm
        self.norm1 = normalise(in_width)
        self.conv1 = nn.Conv2d(in_width, out_width, 3, 1, 1)
        self.norm2 = normalise(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, 1, 1)
        if in_width != out_width:
            self.nin_shortcut = nn.Conv2d(in_width, out_width, 1)

    def forward(self, x: Float[Tensor, "n c h w"], *conditions: Tensor) -> Float[Tensor, "n d h w"]:
        hidden = self.conv1(functional.silu(self.norm1(x, *conditions)))
        hidden = self.conv2(functional.silu(self.norm2(hidden, *conditions)))
        return hidden + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    """Self-attention over all positions, its projections 1x1 convolutions; added to the input."""

    def __init__(self, width: int, normalise: Normalise | None, heads: int):
        super().__init__()
        if width % heads:
            raise RecipeError(f"{width} channels cannot be split into {heads} attention heads")
        self.heads = heads
        self.norm = (normalise or norm)(width)
        self.q, self.k, self.v = (nn.Conv2d(width, width, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[Tensor, "n c h w"], *conditions: Tensor) -> Float[Tensor, "n c h w"]:
        normed = self.norm(x, *conditions)
        q, k, v = (
            rearrange(p(normed), "n (e c) h w -> n e (h w) c", e=self.heads) for p in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(mixed, "n e (h w) c -> n (e c) h w", h=x.shape[2]))


class Middle(nn.Module):
    """Two residual blocks with attention between them, at the resolution of the latents, and `more` behind them."""

    def __init__(
        self,
        width: int,
        attends: bool,
        normalise: Normalise | None = None,
        *,
        heads: int,
        more: int = 0,
    ):
        super().__init__()
        self.block_1 = ResidualBlock(width, width, normalise)
        if attends:
            self.attn_1 = Attention(width, normalise, heads)
        self.block_2 = ResidualBlock(width, width, normalise)
        if more:
            self.extra_mid_res_blocks = nn.ModuleList(
                ResidualBlock(width, width, normalise) for _ in range(more)
            )

    def forward(self, x: Float[Tensor, "n c h w"], *conditions: Tensor) -> Float[Tensor, "n c h w"]:
        x = self.block_1(x, *conditions)
        if hasattr(self, "attn_1"):
            x = self.attn_1(x, *conditions)
        x = self.block_2(x, *conditions)
        for block in getattr(self, "extra_mid_res_blocks", ()):
            x = block(x, *conditions)
        return x


class Downsample(nn.Module):
    """A convolution of stride 2, padded on the right and below only."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Stage(nn.Module):
    """The blocks of one resolution, and the change to the next."""

    def __init__(self, normalise: Normalise | None, heads: int):
        super().__init__()
        self.normalise, self.heads = normalise, heads
        self.block = nn.ModuleList()
        self.attn = nn.ModuleList()

    def add(self, in_width: int, out_width: int, attends: bool) -> None:
        self.block.append(ResidualBlock(in_width, out_width, self.normalise))
        if attends:
            self.attn.append(Attention(out_width, self.normalise, self.heads))

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x, *conditions)
            if len(self.attn):
                x = self.attn[i](x, *conditions)
        for change in ("downsample", "upsample"):
            if hasattr(self, change):
                x = getattr(self, change)(x)
        return x


def _blocks(depth: int | Sequence[int], level: int) -> int:
    return depth if isinstance(depth, int) else depth[level]


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, eps=1e-6)


def check_widths(width: int, multipliers: Sequence[int]) -> None:
    """Raise RecipeError unless every level can be normalised in groups."""
    if not multipliers:
        raise RecipeError("a convolutional image tokenizer needs at least one level in 'multipliers'")
    for channels in (width, *(width * multiplier for multiplier in multipliers)):
        if channels < GROUPS or channels % GROUPS:
            raise RecipeError(
                f"{channels} channels cannot be normalised in {GROUPS} groups; take a multiple of {GROUPS}"
            )


@torch.no_grad()
def nearest(vectors: Float[Tensor, "m c"], codebook: Float[Tensor, "k c"], elements: int = 2**24) -> Tensor:
    """Index of the code nearest to each vector; `elements` distances are held at once."""
    lengths = codebook.square().sum(1)
    rows = max(1, elements // len(codebook))
    indices = [
        (part.square().sum(1, keepdim=True) + lengths - 2 * part @ codebook.T).argmin(1)
        for part in vectors.split(rows)
    ]
    return torch.cat(indices) if indices else vectors.new_zeros(0, dtype=torch.long)
