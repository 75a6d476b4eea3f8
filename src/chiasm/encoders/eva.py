"""Vision transformers of the EVA family, with and without rotary positions."""

from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.encoders import Encoder
from chiasm.encoders.preprocessor import OPENAI
from chiasm.encoders.resizing import antialiased
from chiasm.errors import RecipeError
from chiasm.nn.activations import Activation, activation
from chiasm.parts.bounds import Depth, Epsilon, Heads, Pixels, Width

THETA = 10000.0  # base of the rotary wavelengths


class Eva(Encoder, name="eva"):
    """EVA's vision transformers: EVA-CLIP-g of BLIP-2 (arXiv 2211.07636) and EVA-02 of GVT (arXiv 2303.11331).

    Pixels are normalised as for CLIP. The defaults are EVA-CLIP-g with the 39 blocks that BLIP-2 uses; EVA-02-L
    is `{width: 1024, depth: 24, heads: 16, hidden: 2730, rotary: 16, gated: true, sub_norm: true}`.

    Args:
        size: side in pixels of the pictures whose table of positions is learned; interpolated for others.
        patch_size: side of a patch in pixels.
        width: channels of a feature.
        depth: blocks.
        heads: attention heads; they must divide `width`.
        hidden: hidden width of a block's MLP.
        bias: which of the queries, keys and values add one. EVA leaves the keys without.
        absolute: whether patches get learned positions at the bottom.
        antialias: those positions are resized as PIL resizes images, as in PixelLLM; else by torch's plain bicubic.
        rotary: side, in patches, of the square over which 2-D rotary positions run in every block, whatever the
            number of patches; null = no rotary positions.
        activation: of the MLPs without gates.
        gated: SwiGLU instead of linear, activation, linear.
        sub_norm: LayerNorm also before the last layer of attention and MLP.
        sub_attention: whether `sub_norm` is of attention too, and not of the MLP alone (PixelLLM).
        sub_epsilon: of those LayerNorms with gates; null = that of the others.
        post_norm: LayerNorm behind attention and MLP instead of in front (EVA-CLIP-5B).
        layer_scale: a learned factor for each channel of what a block adds.
        final_norm: apply a LayerNorm to the last block's output (BLIP-2's ln_vision).
        epsilon: of the blocks' LayerNorms.
        final_epsilon: of the final LayerNorm.
        class_token: 'drop' it; or put it 'first': then the features are one row of 1 + patches, for connectors
            that know no grid (Q-Former, resamplers).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        size: Pixels = 224,
        patch_size: Pixels = 14,
        width: Width = 1408,
        depth: Depth = 39,
        heads: Heads = 16,
        hidden: Width = 6144,
        bias: Literal["none", "queries_values", "all"] = "queries_values",
        absolute: bool = True,
        antialias: bool = False,
        rotary: Width | None = None,
        activation: Activation = "gelu",
        gated: bool = False,
        sub_norm: bool = False,
        sub_attention: bool = True,
        sub_epsilon: Epsilon | None = None,
        post_norm: bool = False,
        layer_scale: bool = False,
        final_norm: bool = True,
        epsilon: Epsilon = 1e-6,
        final_epsilon: Epsilon = 1e-5,
        class_token: Literal["drop", "first"] = "drop",
    ):
        super().__init__()
        if width % heads or (rotary and width // heads % 4):
            raise RecipeError(
                f"encoder 'eva': {heads} heads must divide the width {width}"
                + (", for rotary positions into multiples of 4" if rotary else "")
            )
        self.patch_size, self.width = patch_size, width
        self.head_width, self.rotary, self.class_token = width // heads, rotary, class_token
        self.antialias = antialias
        self.patchify = nn.Conv2d(3, width, patch_size, patch_size)
        self.class_embedding = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        rows, columns = self.patches(size, size)
        self.positions = nn.Parameter(torch.randn(1, 1 + rows * columns, width) * 0.02) if absolute else None
        self._side = rows

        def block() -> EvaBlock:
            attention = EvaAttention(width, heads, bias, epsilon if sub_norm and sub_attention else None)
            mlp: nn.Module
            if gated:
                mlp = Gated(width, hidden, (sub_epsilon or epsilon) if sub_norm else None)
            else:
                mlp = EvaMLP(width, hidden, activation, sub_norm)
            return EvaBlock(width, attention, mlp, epsilon, post_norm, layer_scale)

        self.blocks = nn.ModuleList(block() for _ in range(depth))
        self.final_norm = nn.LayerNorm(width, final_epsilon) if final_norm else nn.Identity()
        self.register_buffer("mean", torch.tensor(OPENAI[0]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(OPENAI[1]).view(3, 1, 1))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.patches(height, width)
        return (rows, columns) if self.class_token == "drop" else (1, 1 + rows * columns)

    def extra_repr(self) -> str:
        return f"class_token={self.class_token}, rotary={self.rotary}"

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        tokens = self.final_norm(self.tokens(pixels))
        if self.class_token == "first":
            return rearrange(tokens, "n s c -> n 1 s c")
        return rearrange(tokens[:, 1:], "n (gh gw) c -> n gh gw c", gh=pixels.shape[-2] // self.patch_size)

    def visible(self, pixels: Float[Tensor, "n 3 h w"], keep: Int[Tensor, "n s"]) -> Float[Tensor, "n s c"]:
        x, angles = self._embed(pixels)
        chosen = torch.cat([torch.zeros_like(keep[:, :1]), 1 + keep], dim=1)  # and the class token
        x = x.gather(1, repeat(chosen, "n s -> n s c", c=self.width))
        turned = rearrange(angles[keep], "n s e -> n 1 s e") if angles is not None else None
        return self.final_norm(self._through(x, turned)[:, 1:])

    def with_tokens(
        self, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "k c"]
    ) -> tuple[Float[Tensor, "n k c"], Float[Tensor, "n gh gw c"]]:
        x, angles = self._embed(pixels)
        x = torch.cat([tokens.expand(len(x), -1, -1), x], dim=1)
        x = self.final_norm(self._through(x, angles))
        k = len(tokens) + (self.class_token == "drop")
        rows, _ = self.grid(*pixels.shape[-2:])
        return x[:, : len(tokens)], rearrange(x[:, k:], "n (gh gw) c -> n gh gw c", gh=rows)

    def tokens(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n s c"]:
        """The class token and all patches behind the last block, before the final norm."""
        return self._through(*self._embed(pixels))

    def _embed(self, pixels: Float[Tensor, "n 3 h w"]) -> tuple[Tensor, Float[Tensor, "p e"] | None]:
        """The class token and all patches before the first block, and the patches' rotary angles."""
        rows, columns = self.patches(*pixels.shape[-2:])
        x = rearrange(self.patchify((pixels - self.mean) / self.deviation), "n c gh gw -> n (gh gw) c")
        x = torch.cat([self.class_embedding.expand(len(x), -1, -1), x], dim=1)
        if self.positions is not None:
            x = x + self._positions(rows, columns)
        return x, self._angles(rows, columns).to(x) if self.rotary else None

    def _through(self, x: Float[Tensor, "n s c"], angles: Tensor | None) -> Float[Tensor, "n s c"]:
        for block in self.blocks:
            x = block(x, angles)
        return x

    def patches(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch_size or width % self.patch_size:
            raise RecipeError(
                f"encoder 'eva' cannot cut {height}x{width} pixels into patches of {self.patch_size}; "
                f"choose a size of view that {self.patch_size} divides"
            )
        return height // self.patch_size, width // self.patch_size

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 s c"]:
        assert self.positions is not None
        if (rows, columns) == (self._side, self._side):
            return self.positions
        table = rearrange(self.positions[:, 1:], "1 (gh gw) c -> 1 c gh gw", gh=self._side)
        if self.antialias:
            table = antialiased(table, (rows, columns), "bicubic")
        else:
            table = functional.interpolate(table, (rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.positions[:, :1], rearrange(table, "1 c gh gw -> 1 (gh gw) c")], dim=1)

    def _angles(self, rows: int, columns: int) -> Float[Tensor, "s e"]:
        """Rotary angles of each patch: half of the channels turn by its row, half by its column."""
        assert self.rotary is not None
        axis_width = self.head_width // 2
        frequencies = THETA ** -(torch.arange(0, axis_width, 2).float() / axis_width)
        down, across = (torch.arange(n).float() / n * self.rotary for n in (rows, columns))
        by_row = repeat(torch.outer(down, frequencies), "gh e -> (gh gw) (e two)", gw=columns, two=2)
        by_column = repeat(torch.outer(across, frequencies), "gw e -> (gh gw) (e two)", gh=rows, two=2)
        return torch.cat([by_row, by_column], dim=1)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32, "patch_size": 8, "width": 16, "depth": 2, "heads": 2, "hidden": 24, "rotary": 4}


class EvaBlock(nn.Module):
    """Attention and MLP, each with a LayerNorm and beside a skip connection."""

    def __init__(
        self, width: int, attention: nn.Module, mlp: nn.Module, epsilon: float, post_norm: bool, scale: bool
    ):
        super().__init__()
        self.post_norm = post_norm
        self.attention_norm, self.attention = nn.LayerNorm(width, epsilon), attention
        self.mlp_norm, self.mlp = nn.LayerNorm(width, epsilon), mlp
        self.attention_scale = nn.Parameter(torch.full((width,), 0.1)) if scale else None
        self.mlp_scale = nn.Parameter(torch.full((width,), 0.1)) if scale else None

    def extra_repr(self) -> str:
        return f"post_norm={self.post_norm}"

    def forward(
        self, x: Float[Tensor, "n s c"], angles: Float[Tensor, "s e"] | None
    ) -> Float[Tensor, "n s c"]:
        if self.post_norm:
            added = self.attention_norm(self.attention(x, angles))
        else:
            added = self.attention(self.attention_norm(x), angles)
        x = x + (added if self.attention_scale is None else self.attention_scale * added)
        added = self.mlp_norm(self.mlp(x)) if self.post_norm else self.mlp(self.mlp_norm(x))
        return x + (added if self.mlp_scale is None else self.mlp_scale * added)


class EvaAttention(nn.Module):
    """Every token looks at every token; rotary positions for all but the class token."""

    def __init__(self, width: int, heads: int, bias: str, epsilon: float | None):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias != "none")
        self.key = nn.Linear(width, width, bias == "all")
        self.value = nn.Linear(width, width, bias != "none")
        self.norm = nn.Identity() if epsilon is None else nn.LayerNorm(width, epsilon)
        self.out = nn.Linear(width, width)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(
        self, x: Float[Tensor, "n s c"], angles: Float[Tensor, "s e"] | None
    ) -> Float[Tensor, "n s c"]:
        q, k, v = (
            rearrange(layer(x), "n s (h e) -> n h s e", h=self.heads)
            for layer in (self.query, self.key, self.value)
        )
        if angles is not None:
            q, k = _rotated(q, angles), _rotated(k, angles)
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.out(self.norm(rearrange(attended, "n h s e -> n s (h e)")))


class EvaMLP(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, width: int, hidden: int, kind: Activation, sub_norm: bool):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.activation = activation(kind)
        self.norm = nn.LayerNorm(hidden) if sub_norm else nn.Identity()  # EVA's has torch's epsilon here
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "n s c"]) -> Float[Tensor, "n s c"]:
        return self.down(self.norm(self.activation(self.up(x))))


class Gated(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, epsilon: float | None):
        super().__init__()
        self.gate = nn.Linear(width, hidden)
        self.up = nn.Linear(width, hidden)
        self.norm = nn.Identity() if epsilon is None else nn.LayerNorm(hidden, epsilon)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "n s c"]) -> Float[Tensor, "n s c"]:
        return self.down(self.norm(functional.silu(self.gate(x)) * self.up(x)))


def _rotated(x: Float[Tensor, "n h s e"], angles: Float[Tensor, "... p e"]) -> Float[Tensor, "n h s e"]:
    """Neighbouring channels of the patches as pairs turned by their angle; tokens in front of them stay."""
    front = x.shape[2] - angles.shape[-2]
    first, patches = x[:, :, :front], x[:, :, front:]
    pairs = rearrange(patches, "... (e two) -> ... e two", two=2)
    across = rearrange(torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1), "... e two -> ... (e two)")
    return torch.cat([first, patches * angles.cos() + across * angles.sin()], dim=2)
