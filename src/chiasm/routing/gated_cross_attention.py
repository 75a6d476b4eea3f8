"""Blocks of cross-attention to images before layers of the language model."""

from __future__ import annotations

from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.parts.bounds import Depth, Heads, Width
from chiasm.routing import Routing
from chiasm.sequence.cross_attended import CrossAttended
from chiasm.sequence.layout import current_layout


class GatedCrossAttention(Routing, name="gated_cross_attention"):
    """Flamingo: before every n-th layer the text looks at the pictures, through gates (arXiv 2204.14198).

    The gates start at zero, so that the untrained model is the language model as it is. Text before the first
    picture reads nothing from it.

    Args:
        every: a block stands before the n-th, 2n-th ... layer.
        heads: of the attention.
        head_width: of one head.
        hidden: width of the blocks' MLPs; null = four times the language model's.
        looks_at: the 'latest' picture up to a position, or 'all' up to it. With 'all', text before the first
            picture averages the pictures of its document, later ones too, as in OpenFlamingo.
    """

    cross_attends = True

    def __init__(
        self,
        language: nn.Module,
        visual_width: int,
        *,
        every: Depth = 1,
        heads: Heads = 8,
        head_width: Width = 64,
        hidden: Width | None = None,
        looks_at: Literal["latest", "all"] = "latest",
    ):
        super().__init__()
        width: int = language.width  # type: ignore[assignment]
        layers = _layers(language)
        if every > len(layers):
            raise RecipeError(
                f"routing 'gated_cross_attention' stands before every {every}th layer of {len(layers)}"
            )
        self.marker = nn.Parameter(torch.randn(1, width) * 0.02)
        self.blocks = nn.ModuleDict()
        for index in range(every - 1, len(layers), every):
            block = GatedCrossAttentionBlock(
                width, visual_width, heads, head_width, hidden or 4 * width, looks_at == "all"
            )
            self.blocks[str(index)] = block
            layers[index].register_forward_pre_hook(block.enter, with_kwargs=True)

    def merge(self) -> None:
        pass


class GatedCrossAttentionBlock(nn.Module):
    """Attention to pictures and an MLP, each behind a gate."""

    def __init__(
        self, width: int, visual_width: int, heads: int, head_width: int, hidden: int, looks_at_all: bool
    ):
        super().__init__()
        self.heads, self.looks_at_all = heads, looks_at_all
        inner = heads * head_width
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(visual_width, inner, bias=False)
        self.value = nn.Linear(visual_width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden, bias=False),
            nn.GELU(),
            nn.Linear(hidden, width, bias=False),
        )
        self.mlp_gate = nn.Parameter(torch.zeros(1))

    def enter(self, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        """Hook before a layer of the language model."""
        images = current_layout().cross_attended
        if arguments:
            return (self(arguments[0], images), *arguments[1:]), named
        return arguments, {**named, "hidden_states": self(named["hidden_states"], images)}

    def forward(self, x: Float[Tensor, "b t d"], images: CrossAttended | None) -> Float[Tensor, "b t d"]:
        if images is not None:
            x = x + (self.attend(x, images) * self.attention_gate.tanh()).to(x.dtype)
        return x + (self.mlp(x) * self.mlp_gate.tanh()).to(x.dtype)

    def attend(self, x: Float[Tensor, "b t d"], images: CrossAttended) -> Float[Tensor, "b t d"]:
        """What each position reads of its images; zero where it has none."""
        visible = images.of_all if self.looks_at_all else images.of_latest
        query = self.query(self.norm(x))
        if visible.averages is not None:
            query = query.masked_fill(visible.averages[..., None], 0)  # a query of zeros averages
        key, value = (layer(images.tokens.to(query.dtype)) for layer in (self.key, self.value))
        q, k, v = (each.unflatten(-1, (self.heads, -1)) for each in (query, key, value))
        read = torch.cat([_attend(q[rows], k[own], v[own], mask) for rows, own, mask in visible.groups])
        if visible.blind is not None:
            read = read.masked_fill(visible.blind[..., None], 0)
        return self.output(read)


def _attend(
    query: Float[Tensor, "n t h e"],
    key: Float[Tensor, "m h e"],
    value: Float[Tensor, "m h e"],
    mask: Bool[Tensor, "n 1 t s"] | None,
) -> Float[Tensor, "n t a"]:
    """Each row looks at its own stretch of the tokens; zero where there are none."""
    if not len(key):
        return torch.zeros_like(query).flatten(2)
    q = rearrange(query, "n t h e -> n h t e")
    k, v = (rearrange(each, "(n s) h e -> n h s e", n=len(q)) for each in (key, value))
    answer = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return rearrange(answer, "n h t e -> n t (h e)")


def _layers(language: nn.Module) -> nn.ModuleList:
    """The outermost list of modules."""
    for module in language.modules():
        if isinstance(module, nn.ModuleList) and len(module):
            return module
    raise RecipeError("routing 'gated_cross_attention' found no layers in the language model")
