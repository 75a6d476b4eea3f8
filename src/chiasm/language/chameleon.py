"""Chameleon's language model for the part `causal` (model_type chameleon): transformers has it with images only."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, ChameleonConfig, ChameleonForConditionalGeneration
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig

SMALLEST: dict[str, Any] = {
    "base_channels": 32,
    "channel_multiplier": [1],
    "num_res_blocks": 1,
    "latent_channels": 1,
}
SMALLEST |= {"embed_dim": 1, "num_embeddings": 1, "attn_type": "none"}


class ChameleonForCausalLM(ChameleonForConditionalGeneration):
    """Chameleon without its image tokenizer, which is a slot of its own here (arXiv 2405.09818)."""

    def __init__(self, config: Any):
        config.vq_config = ChameleonVQVAEConfig(**SMALLEST)  # the one that is built and dropped
        config.vocabulary_map = config.vocabulary_map or {}
        super().__init__(config)
        self.model.vqmodel = None


# transformers skips its own configurations without `exist_ok`.
AutoModelForCausalLM.register(ChameleonConfig, ChameleonForCausalLM, exist_ok=True)
