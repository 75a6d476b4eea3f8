"""A small diffusion transformer that learns from scratch."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.decoders.conditions import Condition
from chiasm.decoders.denoisers import Denoiser
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.multi_head import attend_in_heads
from chiasm.parts.bounds import Depth, Heads, Multiplier, Pixels, Width

LONGEST = 10_000.0  # wavelength of positions and times, as in Transformers (arXiv 1706.03762)
TIME_CHANNELS = 256


class DiT(Denoiser, name="dit"):
    """A diffusion transformer (DiT, arXiv 2212.09748): patches attend to each other and to the condition's tokens.

    Each block is modulated by the time, and by the pooled vector's place, the mean of the tokens; what it adds
    begins at zero (adaLN-Zero). Positions are sines and cosines of row and column.

    Args:
        width: channels of a patch and of the condition's tokens.
        depth: blocks.
        heads: attention heads.
        patch_size: side of a patch, in latents or pixels.
        expansion: hidden width of the MLPs, as a multiple of `width`.
    """

    def __init__(
        self,
        channels: int,
        source_channels: int,
        *,
        width: Width = 384,
        depth: Depth = 8,
        heads: Heads = 6,
        patch_size: Pixels = 2,
        expansion: Multiplier = 4,
    ):
        super().__init__()
        if width % heads or width % 4:
            raise RecipeError(
                f"denoiser 'dit': width {width} must be a multiple of 4 and of its {heads} heads"
            )
        self.channels, self.token_width, self.patch_size = channels, width, patch_size
        self.patches = nn.Linear((channels + source_channels) * patch_size**2, width)
        self.times = nn.Sequential(nn.Linear(TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width))
        self.tokens = nn.Linear(width, width)
        self.blocks = nn.ModuleList(ModulatedBlock(width, heads, expansion * width) for _ in range(depth))
        self.modulation = modulation(width, 2)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.output = nn.Linear(width, channels * patch_size**2)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, x: Float[Tensor, "n c h w"], times: Tensor, condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        if condition.source is not None:
            x = torch.cat([x, condition.source.to(x.dtype)], 1)
        height, width = (self._patches_along(side) for side in x.shape[-2:])
        p = self.patch_size
        patches = rearrange(x, "n c (gh p) (gw q) -> n (gh gw) (c p q)", p=p, q=p)
        hidden = self.patches(patches) + grid_waves(height, width, self.token_width, x)
        tokens = self.tokens(condition.tokens)
        shares = torch.ones_like(tokens[..., :1])
        if condition.mask is not None:
            shares = condition.mask[..., None].to(tokens.dtype)
        state = self.times(waves(times.expand(len(x)), TIME_CHANNELS, x))
        state = state + (tokens * shares).sum(1) / shares.sum(1).clamp(min=1)
        for block in self.blocks:
            hidden = block(hidden, state, tokens, condition.mask)
        shift, scale = self.modulation(state).chunk(2, -1)
        result = self.output(modulated(self.norm(hidden), shift, scale))
        return rearrange(result, "n (gh gw) (c p q) -> n c (gh p) (gw q)", gh=height, gw=width, p=p, q=p)

    def _patches_along(self, side: int) -> int:
        if side % self.patch_size:
            raise ChiasmError(
                f"denoiser 'dit' cannot cut {side} latents or pixels along a side into patches of {self.patch_size}"
            )
        return side // self.patch_size

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 32, "depth": 1, "heads": 2, "patch_size": 4, "expansion": 2}


class ModulatedBlock(nn.Module):
    """Self-attention, attention to the condition's tokens and an MLP, each modulated and gated by the state."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.own_norm, self.mlp_norm = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.tokens_norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, 3 * width)
        self.own_out = nn.Linear(width, width)
        self.query, self.tokens_out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU("tanh"), nn.Linear(hidden, width))
        self.modulation = modulation(width, 6)

    def forward(
        self,
        hidden: Float[Tensor, "n s d"],
        state: Float[Tensor, "n d"],
        tokens: Float[Tensor, "n k d"],
        mask: Tensor | None,
    ) -> Float[Tensor, "n s d"]:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(state)[:, None].chunk(6, -1)
        query, key, value = self.own(self.own_norm(hidden) * (1 + scale) + shift).chunk(3, -1)
        hidden = hidden + gate * self.own_out(self._attended(query, key, value))
        key, value = self.key_value(tokens).chunk(2, -1)
        attended = self._attended(self.query(self.tokens_norm(hidden)), key, value, mask)
        hidden = hidden + self.tokens_out(attended)
        return hidden + mlp_gate * self.mlp(self.mlp_norm(hidden) * (1 + mlp_scale) + mlp_shift)

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        allowed = None if mask is None else mask[:, None, None]
        return attend_in_heads(query, key, value, query.shape[-1] // self.heads, allowed)


def modulation(width: int, count: int) -> nn.Sequential:
    """From the state to `count` vectors that begin as zeros."""
    linear = nn.Linear(width, count * width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)


def modulated(
    hidden: Float[Tensor, "n s d"], shift: Float[Tensor, "n d"], scale: Float[Tensor, "n d"]
) -> Float[Tensor, "n s d"]:
    return hidden * (1 + scale[:, None]) + shift[:, None]


def waves(numbers: Float[Tensor, " n"], width: int, like: Tensor) -> Float[Tensor, "n d"]:
    """Cosines and sines of numbers, at `width` / 2 frequencies."""
    steps = torch.arange(width // 2, device=like.device, dtype=torch.float32)
    frequencies = torch.exp(-math.log(LONGEST) * steps / (width // 2))
    angles = numbers.to(like.device, torch.float32)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1).to(like.dtype)


def grid_waves(height: int, width: int, channels: int, like: Tensor) -> Float[Tensor, "s d"]:
    """Positions of a grid, row by row: half of the channels say the row, half the column."""
    rows, columns = (
        waves(torch.arange(count, dtype=torch.float32), channels // 2, like) for count in (height, width)
    )
    table = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], -1)
    return rearrange(table, "h w d -> (h w) d")
