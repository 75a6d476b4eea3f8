"""LaVIT's selector and merger (arXiv 2309.04669): which patches of an image are kept and merged.

The number of kept patches varies with the image. The connector `lavit` and the image tokenizer `lavit` share
this; each has weights of its own, as in the original.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors.learnt import LearntPositions

FEATURE_DEVIATION = 4.0  # standard deviation of EfficientNet-Lite0's features
SMOOTHING = 1e-6  # weight that all keys share, counting or not
LOWEST = -1e4  # the score of a key that does not count


class Selector(nn.Module):
    """How likely each patch is to be kept: an MLP over the patch and the mean of all patches."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.outer = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
        )

    def forward(self, patches: Float[Tensor, "n p c"]) -> Float[Tensor, "n p 2"]:
        """Logarithms of the chances to be kept and to be dropped."""
        x = self.inner(patches.float())
        local, common = x.tensor_split([x.shape[-1] // 2], dim=-1)
        common = common.mean(1, keepdim=True).expand_as(common)
        return self.outer(torch.cat([local, common], dim=-1)).log_softmax(-1)


class Merger(nn.Module):
    """Kept patches attend to the kept ones before them and to the dropped ones.

    Args:
        width: channels of a patch.
        depth: blocks.
        heads: attention heads.
        hidden: hidden width of a block's MLP.
    """

    def __init__(self, width: int, depth: int, heads: int, hidden: int):
        super().__init__()
        self.blocks = nn.ModuleList(MergerBlock(width, heads, hidden) for _ in range(depth))
        self.source_norm = nn.LayerNorm(width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, patches: Float[Tensor, "n p c"], keep_mask: Float[Tensor, "n p"]
    ) -> Float[Tensor, "n p c"]:
        """Features of all patches, of which those with `kept` 1 are meant; `kept` may carry a gradient."""
        source, x = self.source_norm(patches), patches
        for block in self.blocks:
            x = block(x, source, keep_mask)
        return self.norm(x)


class MergerBlock(nn.Module):
    """Causal attention among the kept patches, attention to the dropped ones as they were, and an MLP."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.causal_norm, self.causal = nn.LayerNorm(width), WeightedAttention(width, heads, SMOOTHING)
        self.dropped_norm, self.dropped = nn.LayerNorm(width), WeightedAttention(width, heads, SMOOTHING)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self, x: Float[Tensor, "n p c"], source: Float[Tensor, "n p c"], keep_mask: Float[Tensor, "n p"]
    ) -> Float[Tensor, "n p c"]:
        own = torch.eye(x.shape[1], device=x.device)
        visible = keep_mask[:, None] + (1 - keep_mask[:, None]) * own  # a patch sees itself, kept or not
        normed = self.causal_norm(x)
        x = x + self.causal(normed, normed, visible.tril())
        x = x + self.dropped(self.dropped_norm(x), source, 1 - keep_mask[:, None])
        return x + self.mlp(self.mlp_norm(x))


class WeightedAttention(nn.Module):
    """Attention whose keys count by a weight, 0 to 1 and for all queries or each, with a gradient.

    Args:
        width: channels.
        heads: attention heads.
        smoothing: weight that all keys share, counting or not.
    """

    def __init__(self, width: int, heads: int, smoothing: float = 0.0):
        super().__init__()
        self.heads, self.smoothing = heads, smoothing
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, smoothing={self.smoothing}"

    def forward(
        self,
        x: Float[Tensor, "n q c"],
        source: Float[Tensor, "n p c"],
        counts: Float[Tensor, "n r p"] | None = None,
    ) -> Float[Tensor, "n q c"]:
        q, k, v = (
            rearrange(layer(each), "n s (h e) -> n h s e", h=self.heads)
            for layer, each in ((self.query, x), (self.key, source), (self.value, source))
        )
        if counts is None:
            attended = functional.scaled_dot_product_attention(q, k, v)
        else:
            attended = self._weights(q, k, counts).to(v.dtype) @ v
        return self.out(rearrange(attended, "n h s e -> n s (h e)"))

    def _weights(
        self, q: Float[Tensor, "n h q e"], k: Float[Tensor, "n h p e"], counts: Float[Tensor, "n r p"]
    ) -> Float[Tensor, "n h q p"]:
        scores, counts = (q @ k.mT).float() * q.shape[-1] ** -0.5, counts[:, None].float()
        # With smoothing the greatest of all scores, as in the original, whose smoothing weighs against it.
        greatest = scores if self.smoothing else scores.masked_fill(counts == 0, LOWEST)
        weights = (scores - greatest.amax(-1, keepdim=True)).clamp(max=0).exp() * counts
        total = weights.sum(-1, keepdim=True) + self.smoothing
        return (weights + self.smoothing / weights.shape[-1]) / total.clamp(min=SMOOTHING)


def sampled(scores: Float[Tensor, "n p 2"], noise: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p"]:
    """1 where a patch is kept, decided by chance: the Gumbel rule (arXiv 1611.01144), straight through.

    noise: independent draws from the standard Gumbel distribution, see `gumbel`.
    """
    soft = (scores + noise).softmax(-1)[..., 0]
    return straight((soft > 0.5).to(soft.dtype), soft)


def at_least_one(keep_mask: Float[Tensor, "n p"], scores: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p"]:
    """`kept`, but for images that keep nothing, of which the likeliest patch is kept."""
    return torch.where(keep_mask.sum(1, keepdim=True) < 1, best(scores, 1), keep_mask)


def expected(scores: Float[Tensor, "n p 2"], most: int) -> Float[Tensor, "n p"]:
    """1 where a patch is kept, without chance: as many as are expected to be kept, the likeliest of them.

    The count is the sum of the chances, rounded, from 1 to `most`: what the Gumbel rule keeps on average. To keep
    what is likelier than not would keep nothing of an image whose patches are all kept with a chance of a third.
    """
    chances = scores[..., 0].exp()
    counts = chances.sum(-1, keepdim=True).round().clamp(1, most)
    places = chances.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return (places < counts).to(scores.dtype)


def best(scores: Float[Tensor, "n p 2"], count: int) -> Float[Tensor, "n p"]:
    """1 at the `count` patches of each image that are likeliest to be kept, straight through."""
    chances = scores[..., 0].exp()
    hard = torch.zeros_like(chances).scatter(1, chances.topk(count, dim=1).indices, 1.0)
    return straight(hard, chances)


def straight(hard: Float[Tensor, "*s"], soft: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The value of `hard` with the gradient of `soft`."""
    return hard + (soft - soft.detach()) if soft.requires_grad else hard


def gumbel(scores: Float[Tensor, "*s"], generator: torch.Generator | None = None) -> Float[Tensor, "*s"]:
    """Gumbel noise of the shape of `scores`."""
    return -torch.empty_like(scores).exponential_(generator=generator).log()


def strong_positions(grid: tuple[int, int] | None, width: int) -> nn.Module:
    """Learnt positions as large as the features of a convolutional network; without a grid none.

    Neither the selector nor the merger learns to use positions that are small compared to the features at first.
    """
    if grid is None:
        return nn.Identity()
    positions = LearntPositions(grid, width)
    nn.init.normal_(positions.table, std=FEATURE_DEVIATION)
    return positions


def patches_of(grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n p c"]:
    return rearrange(grid, "n gh gw c -> n (gh gw) c")


def cosine_distance(a: Float[Tensor, "*s c"], b: Float[Tensor, "*s c"]) -> Float[Tensor, "*s"]:
    return 1 - functional.cosine_similarity(a.float(), b.float(), dim=-1)
