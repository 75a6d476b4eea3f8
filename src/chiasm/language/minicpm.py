"""MiniCPM (arXiv 2404.06395) for the part `causal` (model_type minicpm): transformers has Granite, which is near.

Both are Llamas that scale embeddings, residual branches and logits by numbers. Granite scales whatever it is given
for embeddings; MiniCPM words alone, so that images which stand among them keep their size.
"""

from __future__ import annotations

import math
from typing import Any

from huggingface_hub.dataclasses import strict
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
from transformers.models.granite.modeling_granite import GraniteForCausalLM


@strict
class MiniCPMConfig(LlamaConfig):
    """Llama's, with three numbers more.

    scale_emb: words' embeddings are multiplied by it.
    scale_depth: so are residual branches, and divided by the root of the number of layers; None = by neither.
    dim_model_base: logits are divided by how many times as wide the model is; None = they are not.
    """

    model_type = "minicpm"

    scale_emb: float | int = 1
    scale_depth: float | int | None = None
    dim_model_base: int | None = None

    @property
    def embedding_multiplier(self) -> float:
        return 1.0  # of all that Granite reads; of words alone it is `ScaledEmbedding`

    @property
    def residual_multiplier(self) -> float:
        return 1.0 if self.scale_depth is None else self.scale_depth / math.sqrt(self.num_hidden_layers)

    @property
    def attention_multiplier(self) -> float:
        return float((self.hidden_size // self.num_attention_heads) ** -0.5)

    @property
    def logits_scaling(self) -> float:
        return self.hidden_size / (self.dim_model_base or self.hidden_size)


class MiniCPMForCausalLM(GraniteForCausalLM):
    config_class = MiniCPMConfig

    def __init__(self, config: Any):
        super().__init__(config)
        self.model.embed_tokens = ScaledEmbedding(
            config.vocab_size, config.hidden_size, config.pad_token_id, scale=config.scale_emb
        )
        self.post_init()


class ScaledEmbedding(nn.Embedding):
    """A table of embeddings that are multiplied by a number when they are looked up."""

    def __init__(self, *args: Any, scale: float, **options: Any):
        super().__init__(*args, **options)
        self.scale = scale

    def forward(self, input: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return super().forward(input) * self.scale


AutoConfig.register("minicpm", MiniCPMConfig, exist_ok=True)
AutoModelForCausalLM.register(MiniCPMConfig, MiniCPMForCausalLM, exist_ok=True)
