"""GroupViT's grouping of features, as NExT-GPT's input projector."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors import Connector
from chiasm.errors import RecipeError
from chiasm.nn.multi_head import MultiHeadAttention
from chiasm.parts.bounds import Count, Depth, Heads, Tokens, Width

Stages = Field(min_length=1, max_length=16)


class GroupConnector(Connector, name="group"):
    """GroupViT's grouping of features (arXiv 2202.11094), NExT-GPT's newer input projector (arXiv 2309.05519).

    In each stage learnt group tokens attend to the features and they to them; between stages every feature is
    assigned to one group, and the groups, means of their features, are what the next stage reads. In training the
    assignment is drawn (Gumbel softmax); its gradient is the softmax's.

    Args:
        depths: blocks of each stage.
        group_tokens: learnt group tokens of each stage; 0 in the last one, where nothing is grouped any more.
        groups: that the features of each stage but the last become; the last number is that of visual tokens.
        width: of the blocks.
        heads: of the blocks.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        depths: Annotated[list[Depth], Stages] = [6, 3, 3],  # noqa: B006
        group_tokens: Annotated[list[Count], Stages] = [64, 8, 0],  # noqa: B006
        groups: list[Tokens] = [64, 8],  # noqa: B006
        width: Width = 512,
        heads: Heads = 8,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"connector 'group': {heads} heads do not divide the width {width}")
        if not len(depths) == len(group_tokens) == len(groups) + 1:
            raise RecipeError(
                f"connector 'group' has {len(depths)} stages of depths; group_tokens needs as many numbers and has "
                f"{len(group_tokens)}, groups one fewer and has {len(groups)}"
            )
        if 0 in group_tokens[:-1]:
            raise RecipeError("connector 'group' needs group tokens in every stage but the last")
        self.groups = groups[-1] if groups else None
        self.input = nn.Linear(in_width, width)
        self.stages = nn.ModuleList(
            GroupStage(width, heads, depth, tokens, before, count)
            for depth, tokens, before, count in zip(
                depths, group_tokens, [0, *group_tokens], [*groups, None], strict=False
            )
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        return self.groups or grid[0] * grid[1]

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return (1, self.groups) if self.groups else grid

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        x = self.input(rearrange(grid, "n gh gw c -> n (gh gw) c"))
        tokens = None
        for stage in self.stages:
            x, tokens = stage(x, tokens)
        return self.output(self.norm(x))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"depths": [1, 1], "group_tokens": [3, 0], "groups": [2], "width": 8, "heads": 2}


class GroupStage(nn.Module):
    """Blocks over features and group tokens; then the features become groups, where `groups` says how many.

    tokens, before: group tokens of this stage and of the one before it, 0 = none.
    """

    def __init__(self, width: int, heads: int, depth: int, tokens: int, before: int, groups: int | None):
        super().__init__()
        carried = tokens > 0 and before > 0  # what the stage before has learnt is added to the tokens
        self.tokens = nn.Parameter(torch.zeros(tokens, width)) if tokens else None
        if self.tokens is not None and not carried:
            nn.init.trunc_normal_(self.tokens, std=0.02)
        self.carry_norm = nn.LayerNorm(width) if carried else None
        self.carry = mlp(before, width // 2, tokens) if carried else None
        self.blocks = nn.ModuleList(GroupBlock(width, heads) for _ in range(depth))
        self.grouping = Grouping(width, heads, tokens, groups) if groups else None

    def forward(
        self, x: Float[Tensor, "n s c"], before: Float[Tensor, "n b c"] | None
    ) -> tuple[Float[Tensor, "n s2 c"], Float[Tensor, "n t c"] | None]:
        count = x.shape[1]
        if self.tokens is not None:
            tokens = self.tokens.expand(len(x), -1, -1)
            if self.carry is not None and self.carry_norm is not None and before is not None:
                tokens = tokens + across(self.carry, self.carry_norm(before))
            x = torch.cat([x, tokens], 1)
        for block in self.blocks:
            x = block(x)
        x, tokens = x[:, :count], x[:, count:]
        return (x if self.grouping is None else self.grouping(x, tokens)), tokens


class Grouping(nn.Module):
    """Group tokens become groups, attend to the features, and take in the mean of those assigned to them."""

    def __init__(self, width: int, heads: int, tokens: int, groups: int):
        super().__init__()
        self.feature_norm, self.token_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.mixed_norm = mlp(tokens, width // 2, groups), nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.feed_norm, self.feed = nn.LayerNorm(width), mlp(width, 4 * width, width)
        self.attended_norm = nn.LayerNorm(width)
        self.assignment = Assignment(width)
        self.out_norm, self.out = nn.LayerNorm(width), mlp(width, 4 * width, width)

    def forward(self, x: Float[Tensor, "n s c"], tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n g c"]:
        x = self.feature_norm(x)
        groups = self.mixed_norm(across(self.mix, self.token_norm(tokens)))
        groups = groups + self.attention(groups, x, x)
        groups = self.attended_norm(groups + self.feed(self.feed_norm(groups)))
        groups = groups + self.assignment(groups, x)
        return groups + self.out(self.out_norm(groups))


class Assignment(nn.Module):
    """The mean of the features that belong to each group, a feature to the group that it fits best.

    The mean counts one more feature than there are, which is zero, so that a group may stay empty.
    """

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, groups: Float[Tensor, "n g c"], x: Float[Tensor, "n s c"]) -> Float[Tensor, "n g c"]:
        fits = self.query(groups) @ self.key(x).mT * groups.shape[-1] ** -0.5
        if self.training:
            share = functional.gumbel_softmax(fits, hard=True, dim=1)
        else:
            share = functional.one_hot(fits.argmax(1), fits.shape[1]).mT.to(fits.dtype)
        return self.out(share / (share.sum(-1, keepdim=True) + 1) @ self.value(x))


class GroupBlock(nn.Module):
    """A transformer's block, norms first; queries, keys and values have no biases."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention_norm, self.attention = (
            nn.LayerNorm(width),
            MultiHeadAttention(width, heads, bias=False),
        )
        self.feed_norm, self.feed = nn.LayerNorm(width), mlp(width, 4 * width, width)

    def forward(self, x: Float[Tensor, "n s c"]) -> Float[Tensor, "n s c"]:
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, normed)
        return x + self.feed(self.feed_norm(x))


def mlp(in_width: int, hidden: int, out_width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_width, hidden), nn.GELU(), nn.Linear(hidden, out_width))


def across(network: nn.Module, tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n u c"]:
    """A network applied along the tokens, to each channel by itself (MLP-Mixer, arXiv 2105.01601)."""
    return network(tokens.mT).mT
