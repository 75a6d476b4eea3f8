"""MPT for the part `causal` (model_type mpt), by the one attention rule: transformers' own attends by itself."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.mpt import modeling_mpt

from chiasm.errors import RecipeError
from chiasm.sequence.attention import attend
from chiasm.sequence.layout import Layout

# What the original's code can do and transformers' has not; anything else would be left out without a word.
ONLY: dict[str, tuple[Any, ...]] = {
    "embedding_fraction": (1.0,),
    "emb_pdrop": (0.0,),
    "expansion_ratio": (4,),
    "logit_scale": (None,),
    "no_bias": (True,),
    "norm_type": ("low_precision_layernorm", "layernorm"),
    "resid_pdrop": (0.0,),
    "attn_config.alibi": (True,),
    "attn_config.attn_pdrop": (0.0,),
    "attn_config.attn_type": ("multihead_attention",),
    "attn_config.prefix_lm": (False,),
}


class MptForCausalLM(modeling_mpt.MptForCausalLM):
    """MPT (mosaicml/mpt-7b): ALiBi is a bias of the rule, and queries and keys are normed where `qk_ln` is true."""

    def __init__(self, config: Any):
        _refuse_others(config)
        super().__init__(config)
        self.transformer = MptModel(config)
        self.post_init()


class MptModel(modeling_mpt.MptModel):
    def __init__(self, config: Any):
        super().__init__(config)
        for index, block in enumerate(self.blocks):
            block.attn = MptAttention(config, index)

    def forward(  # type: ignore[override]
        self,
        inputs_embeds: Float[Tensor, "b t d"],
        position_ids: Int[Tensor, "b t"],
        layout: Layout,
        use_cache: bool = False,
        past_key_values: Any = None,
    ) -> BaseModelOutput:
        """Positions follow from the layout."""
        attention: Any = self.config.attn_config
        slopes = alibi_slopes(self.num_heads, attention.alibi_bias_max, inputs_embeds.device)
        hidden = inputs_embeds
        for block in self.blocks:
            hidden = block(hidden, position_bias=slopes, attention_mask=layout, layer_past=past_key_values)[0]
        return BaseModelOutput(last_hidden_state=self.norm_f(hidden))


class MptAttention(modeling_mpt.MptAttention):
    """Called by transformers' block, which hands slopes and layout on as its position bias and mask."""

    def __init__(self, config: Any, index: int):
        super().__init__(config, index)
        normed = config.attn_config.qk_ln
        self.q_ln, self.k_ln = (
            nn.LayerNorm(self.hidden_size, eps=config.layer_norm_epsilon, bias=False) if normed else None
            for _ in range(2)
        )

    def forward(  # type: ignore[override]
        self,
        hidden_states: Float[Tensor, "b t d"],
        position_bias: Float[Tensor, " h"],
        attention_mask: Layout,
        cache: Any = None,
        past_key_values: Any = None,
        **ignored: Any,
    ) -> tuple[Float[Tensor, "b t d"], None]:
        fused = self.Wqkv(hidden_states)
        if self.clip_qkv:
            fused = fused.clamp(-self.clip_qkv, self.clip_qkv)
        query, key, value = fused.chunk(3, -1)
        if self.q_ln is not None and self.k_ln is not None:
            query, key = self.q_ln(query), self.k_ln(key)
        query, key, value = (x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for x in (query, key, value))
        memory = past_key_values if cache is None else cache  # transformers' name up to 5.23, and after
        if memory is not None:
            key, value = memory.update(key, value, self.layer_idx)
        mixed, _ = attend(
            self,
            query,
            key,
            value,
            None,
            scaling=self.softmax_scale,
            layout=attention_mask,
            slopes=position_bias,
        )
        return self.out_proj(mixed.flatten(2)), None


def alibi_slopes(heads: int, largest: float, device: torch.device | str) -> Float[Tensor, " h"]:
    """ALiBi's slope of each head (arXiv 2108.12409): powers of two down to `2 ** -largest`.

    Where the count is no power of two, those of the next one, every second of them first.
    """
    count = 2 ** math.ceil(math.log2(heads))
    powers = torch.arange(1, count + 1, device=device) * (largest / count)
    slopes = torch.pow(2.0, -powers)
    return slopes if count == heads else torch.cat([slopes[1::2], slopes[::2]])[:heads]


def _refuse_others(config: Any) -> None:
    for name, accepted in ONLY.items():
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        if value not in accepted:
            raise RecipeError(
                f"language 'causal': {name} of an mpt is {value!r}, but is known as "
                f"{' or '.join(map(repr, accepted))} only"
            )
