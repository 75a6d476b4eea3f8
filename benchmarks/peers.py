"""Models of transformers at a benchmark's sizes, and the same ones imported by Chiasm."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from chiasm.interop import Folder, find_family, load

transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()


@dataclass(frozen=True)
class Sizes:
    """What all pairs are made of. picture: pixels of a side; a patch has 14."""

    width: int
    heads: int
    layers: int
    picture: int
    batch: int
    length: int

    @property
    def tower(self) -> dict[str, int]:
        """Of a vision transformer, in transformers' words."""
        return {
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "image_size": self.picture,
            "patch_size": 14,
        }

    @property
    def text(self) -> dict[str, Any]:
        """Of a Llama."""
        return {
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "vocab_size": 256,
            "max_position_embeddings": 4 * self.length,
        }

    def pixels(self) -> Tensor:
        return torch.rand(self.batch, 3, self.picture, self.picture)

    def features(self) -> Tensor:
        side = self.picture // 14
        return torch.randn(self.batch, side, side, self.width)


def blip2(sizes: Sizes) -> tuple[Any, Any]:
    tower = sizes.tower
    inner = {k: tower[k] for k in tower if k not in ("image_size", "patch_size")}
    text = {"model_type": "opt", "vocab_size": 256, "hidden_size": sizes.width, "ffn_dim": sizes.width,
            "num_hidden_layers": 1, "num_attention_heads": sizes.heads,
            "word_embed_proj_dim": sizes.width}  # fmt: skip
    config = transformers.Blip2Config(
        vision_config=tower, qformer_config={**inner, "encoder_hidden_size": sizes.width}, text_config=text
    )
    return both(transformers.Blip2ForConditionalGeneration(config), "blip2-hf")


def idefics2(sizes: Sizes) -> tuple[Any, Any]:
    perceiver = {"hidden_size": sizes.width, "resampler_n_heads": sizes.heads, "resampler_head_dim": 64}
    config = transformers.Idefics2Config(
        vision_config=sizes.tower,
        perceiver_config={**perceiver, "num_key_value_heads": max(1, sizes.heads // 2)},
        text_config={**sizes.text, "num_hidden_layers": 1},
    )
    return both(transformers.Idefics2ForConditionalGeneration(config), "idefics2", part="model")


def llava(sizes: Sizes) -> tuple[Any, Any]:
    config = transformers.LlavaConfig(
        vision_config={**sizes.tower, "model_type": "clip_vision_model"}, text_config=sizes.text
    )
    return both(transformers.LlavaForConditionalGeneration(config), "llava-hf")


def deepseek(sizes: Sizes) -> tuple[Any, Any]:
    sam = {"hidden_size": sizes.width, "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads,
           "mlp_dim": 4 * sizes.width, "image_size": 2 * sizes.picture // 16 * 16, "patch_size": 16,
           "window_size": 7, "global_attn_indexes": [sizes.layers - 1], "output_channels": sizes.width}  # fmt: skip
    config = transformers.DeepseekVLHybridConfig(
        text_config={**sizes.text, "num_hidden_layers": 1},
        vision_config={**sizes.tower, "model_type": "siglip_vision_model", "vision_use_head": False},
        high_res_vision_config={**sam, "model_type": "sam_vision_model"},
    )
    return both(transformers.DeepseekVLHybridForConditionalGeneration(config), "deepseek-vl-hf")


def both(theirs: Any, family: str, part: str = "") -> tuple[Any, Any]:
    """A model of transformers with random weights, imported; and itself (or the part of it)."""
    with tempfile.TemporaryDirectory() as folder:
        random(theirs).save_pretrained(folder)
        layout = find_family(family)
        model = load(layout, layout.read(Folder(Path(folder)))).model
    return model, getattr(theirs, part) if part else theirs


def random(module: Any) -> Any:
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 or not name.endswith("weight"):
            nn.init.normal_(parameter, std=0.05)
    return module.eval()
