"""LlamaGen's layer: a Llama's, with a rotary embedding over the two axes of a picture's grid (arXiv 2406.06525)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.language.key_values import KeyValues
from chiasm.sequence.attention import attend
from chiasm.sequence.layout import Layout

Rotary = Complex[Tensor, "b t p"]  # of the pairs of a head's channels; 0 where a position is without a place


class GridRotation(nn.Module):
    """Rotary embedding in two dimensions: the first half of the pairs turns by row, the second by column.

    Pairs are neighbouring channels. A position without a place is not left as it is but multiplied by 0, as in the
    published models: its query and key vanish, so that it looks at all positions alike and all look at it alike.
    """

    frequencies: Float[Tensor, " f"]

    def __init__(self, head_width: int, base: float = 10000.0):
        super().__init__()
        if head_width % 4:
            raise RecipeError(
                f"a head of width {head_width} cannot turn by row and column; take a multiple of 4"
            )
        rotated_pairs = head_width // 2
        exponents = torch.arange(0, rotated_pairs, 2).float() / rotated_pairs
        self.register_buffer("frequencies", 1.0 / base**exponents, persistent=False)

    def forward(
        self, rows: Int[Tensor, "b t"], columns: Int[Tensor, "b t"], placed: Bool[Tensor, "b t"]
    ) -> Rotary:
        angles = torch.cat([axis[..., None] * self.frequencies for axis in (rows, columns)], -1)
        return torch.polar(placed[..., None].to(angles.dtype).expand_as(angles), angles)


def turned(x: Float[Tensor, "b t h e"], rotary: Rotary) -> Float[Tensor, "b t h e"]:
    """Queries or keys after their rotation, in at least single precision."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], x.shape[-1] // 2, 2))
    return torch.view_as_real(pairs * rotary[:, :, None]).flatten(-2)


class LlamaBlock(nn.Module):
    """Norm, attention, norm, gated network, without any bias.

    Args:
        width: of the hidden states.
        heads: of attention.
        key_value_heads: heads of keys and values, each shared by some heads of queries.
        hidden: width inside the network.
        epsilon: of the norms.
        dropout: of what attention and network add, in training.
    """

    def __init__(
        self, width: int, heads: int, key_value_heads: int, hidden: int, epsilon: float, dropout: float
    ):
        super().__init__()
        if width % heads or heads % key_value_heads:
            raise RecipeError(
                f"{heads} heads must divide the width {width}, and {key_value_heads} heads of keys and values "
                f"must divide {heads}"
            )
        self.heads, self.key_value_heads, head_width = heads, key_value_heads, width // heads
        self.attention_norm = nn.RMSNorm(width, epsilon)
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key = nn.Linear(width, key_value_heads * head_width, bias=False)
        self.value = nn.Linear(width, key_value_heads * head_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.network_norm = nn.RMSNorm(width, epsilon)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        rotary: Rotary,
        layout: Layout,
        cache: KeyValues | None = None,
        index: int = 0,
    ) -> Float[Tensor, "b t d"]:
        """index: which layer this is of those that share the cache."""
        normed = self.attention_norm(x)
        query, key, value = (
            project(normed).view(*x.shape[:2], heads, -1)
            for project, heads in (
                (self.query, self.heads),
                (self.key, self.key_value_heads),
                (self.value, self.key_value_heads),
            )
        )
        query, key = (turned(each, rotary).to(value.dtype) for each in (query, key))
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        if cache is not None:
            key, value = cache.extended(index, key, value)
        answer, _ = attend(self, query, key, value, None, layout=layout)
        x = x + self.dropout(self.out(answer.flatten(2)))
        normed = self.network_norm(x)
        return x + self.dropout(self.down(functional.silu(self.gate(normed)) * self.up(normed)))


def hidden_width(width: int, multiple: int = 256, factor: float | None = None) -> int:
    """Width inside the network as LlamaGen counts it: two thirds of four widths, rounded up to a multiple."""
    hidden = int(2 * 4 * width / 3)
    hidden = hidden if factor is None else int(factor * hidden)
    return -(-hidden // multiple) * multiple


def initialise(module: nn.Module, deviation: float = 0.02) -> None:
    """Normally distributed weights in every linear layer and table."""
    for each in module.modules():
        if isinstance(each, nn.Linear | nn.Embedding):
            nn.init.normal_(each.weight, std=deviation)
