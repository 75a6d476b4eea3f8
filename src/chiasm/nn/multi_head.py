"""Attention in heads, for any slot; the rule of a sequence is `chiasm.sequence.attention`."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class MultiHeadAttention(nn.Module):
    """Attention in heads from queries to keys and values, with its four projections (arXiv 1706.03762).

    width: of the queries and of what they become. in_width: of keys and values; None = the same. inner: of all
    heads together; None = `width`. bias: of the projections but the last, which has one.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        in_width: int | None = None,
        inner: int | None = None,
        bias: bool = True,
    ):
        super().__init__()
        in_width, inner = in_width or width, inner or width
        self.heads = heads
        self.query = nn.Linear(width, inner, bias)
        self.key, self.value = (nn.Linear(in_width, inner, bias) for _ in range(2))
        self.out = nn.Linear(inner, width)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(
        self,
        query: Float[Tensor, "n q d"],
        key: Float[Tensor, "n s c"],
        value: Float[Tensor, "n s c"],
        mask: Tensor | None = None,
    ) -> Float[Tensor, "n q d"]:
        """mask: see `attend_in_heads`."""
        q, k, v = self.query(query), self.key(key), self.value(value)
        return self.out(attend_in_heads(q, k, v, q.shape[-1] // self.heads, mask))


def attend_in_heads(
    query: Float[Tensor, "n q a"],
    key: Float[Tensor, "n s b"],
    value: Float[Tensor, "n s b"],
    head_width: int,
    mask: Tensor | None = None,
) -> Float[Tensor, "n q a"]:
    """Attention in heads of `head_width`, which stand side by side; keys may have fewer heads than queries.

    mask: for each head (or 1 for all), query (or 1) and key whether it is seen, or what is added to its score.
    """
    q, k, v = (rearrange(each, "n s (h e) -> n h s e", e=head_width) for each in (query, key, value))
    answer = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1]
    )
    return rearrange(answer, "n h q e -> n q (h e)")
