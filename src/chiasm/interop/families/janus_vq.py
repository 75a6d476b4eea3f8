"""Janus' image tokenizer in transformers (arXiv 2410.13848)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.interop.config import TRANSFORMERS, reader
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import replay_nearest, unsigned
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.preprocessor import refuse_other_pixels

OURS = "image_tokenizer."
CASE = {
    "cls": "the replay's name",
    "config_cls": "the replay's name",
    "res": "the size of a case's image, which the config's num_patches says too",
}


class JanusTokenizer(Family, name="janus-vq-hf"):
    """transformers' JanusVQVAE. The original's layout is LlamaGen's."""

    looks_for = "config.json with model_type janus_vqgan"
    without_effect: ClassVar = {
        **TRANSFORMERS,
        "dropout": "in training only",
        "projection_dim": "of what stands behind the tokenizer",
        "num_hidden_layers": "of what stands behind the tokenizer",
        "hidden_act": "of what stands behind the tokenizer",
        "image_token_embed_dim": "of what stands behind the tokenizer",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "janus_vqgan"

    def read(self, folder: Folder) -> Original:
        refuse_other_pixels(folder)
        return super().read(folder)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        config.only("double_latent", False)
        for key in ("in_channels", "out_channels"):
            config.only(key, 3)
        multipliers = list(config.get("channel_multiplier", (1, 1, 2, 2, 4)))
        lowest = config.get("num_patches", 32)
        spec = {
            "type": "vqgan",
            "size": lowest * 2 ** (len(multipliers) - 1),
            "width": config.get("base_channels", 128),
            "multipliers": multipliers,
            "depth": config.get("num_res_blocks", 2),
            "latent_width": config.get("latent_channels", 256),
            "attention_sizes": [lowest],
            "quantizer": {
                "type": "unit",
                "width": config.get("embed_dim", 8),
                "codebook_size": config.get("num_embeddings", 16384),
                "codebook_weight": config.get("beta", 0.25),
            },
        }
        return {"image_tokenizer": spec}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        levels = len(config.get("channel_multiplier", (1, 1, 2, 2, 4)))
        up = [  # transformers counts the decoder's levels from the lowest
            Rule(f"decoder.up.{level}.{{rest...}}", f"{OURS}decoder.up.{levels - 1 - level}.{{rest...}}")
            for level in range(levels)
        ]
        return NameMap(*up, Rule("{rest...}", OURS + "{rest...}"))


@replays("janus", "JanusVQVAE", without_effect=CASE)
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The picture through codes, which the decoder gets at length 1."""
    original = Original(case.config["config"], case.tensors)
    tokenizer = load(find_family("janus-vq-hf"), original).model["image_tokenizer"]
    # What the case calls quant is the first of transformers' outputs, the encoder's before `quant_conv`.
    inner = tokenizer.encoder(2 * unsigned(case.inputs["img"]) - 1)
    return replay_nearest(tokenizer, case) | {"quant": inner}
