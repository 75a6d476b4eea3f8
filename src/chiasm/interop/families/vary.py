"""Vary (arXiv 2312.06109): a vocabulary for pages beside CLIP's, and Qwen behind both."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap, Rule
from chiasm.interop.shapes.qwen import QWEN_WITHOUT_EFFECT, qwen_config, qwen_rules
from chiasm.interop.shapes.towers import tower, tower_rules
from chiasm.interop.shapes.vary_tower import tower_arguments, tower_views, vary_tower, vary_tower_rules

TOWERS = "towers"  # not in the original's config: the structures that its code holds, `{clip: ..., sam: ...}`
CLIP, SAM = "transformer.vision_tower.vision_model.", "transformer.vision_tower_high."
BEGIN, END, PLACE = "<img>", "</img>", "<imgpad>"
# The config's keys for the ids of those three, which its code holds too.
IDS = {"im_start_token": BEGIN, "im_end_token": END, "im_patch_token": PLACE}
HEAD_WIDTH = 64  # of CLIP's towers
TRAINING = "of training"
SYSTEM = "You should follow the instructions carefully and explain your answers in detail."
TEMPLATE = (
    "{% if not messages or messages[0]['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Vary(Family, name="vary"):
    """The layout of Vary (github.com/Ucas-HaoranWei/Vary): Qwen's, with both towers inside.

    The original's code holds the structure of the towers. SAM's is read from the shapes of its tensors; CLIP's too,
    but for its heads, which are 64 channels wide unless `vision_tower` names a folder within that says otherwise.
    """

    looks_for = "config.json with model_type vary and architectures [varyQwenForCausalLM]"
    own_conversation = True

    without_effect: ClassVar = {
        **EVERYWHERE,
        **QWEN_WITHOUT_EFFECT,
        "vision_tower": "where CLIP's files once were, unless they stand within the folder",
        "freeze_vision_tower": TRAINING,
        "use_im_start_end": "words stand round images in any case",
    }

    def recognises(self, folder: Folder) -> bool:
        config = folder.config
        return config.get("model_type") == "vary" and "hidden_size" in config and not is_reader(config)

    def read(self, folder: Folder) -> Original:
        tensors = dict(folder.tensors)
        towers = {"clip": _clip(folder, tensors), "sam": tower_arguments(tensors, SAM)}
        return Original({**folder.config, TOWERS: towers}, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        towers = config[TOWERS]
        clip = tower(towers["clip"], "clip_vision_model", layer=config.get("vision_select_layer", -1))
        sam = vary_tower(towers["sam"])
        return {
            "views": tower_views(config, sam),
            "encoder": {
                "type": "hybrid",
                "encoders": [clip, sam],
                "sizes": [towers["clip"].get("image_size", 224), None],
            },
            "connector": {
                "type": "split_mlp",
                "widths": [towers["clip"].get("hidden_size", 768), sam["downsample"][-1]],
                "depth": 1,
            },
            "language": {**qwen_config(config), "read_marker": BEGIN, "read_end": END},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config, keys)
        clip, _ = spec["encoder"]["encoders"]
        return NameMap(
            *tower_rules(clip, CLIP, "encoder.encoders.0"),
            *vary_tower_rules(SAM, "encoder.encoders.1"),
            Rule("transformer.mm_projector.{p}", "connector.shares.0.{p}"),
            Rule("transformer.mm_projector_vary.{p}", "connector.shares.1.{p}"),
            *qwen_rules(config.get("hidden_size", 4096)),
        )

    def added_tokens(self, config: Mapping[str, Any]) -> dict[str, int]:
        return image_tokens(config)

    def chat_template(self, config: Mapping[str, Any]) -> str:
        return TEMPLATE

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(TOWERS), folder)


def image_tokens(config: Mapping[str, Any]) -> dict[str, int]:
    """The words round images and their places, with the ids that a config has for them, in the order of these."""
    ids = {token: config[key] for key, token in IDS.items() if config.get(key) is not None}
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def is_reader(config: Mapping[str, Any]) -> bool:
    """Whether a config is of the small model that reads through the new tower alone, Vary-tiny."""
    return "ffn_dim" in config or any("OPT" in name for name in config.get("architectures") or ())


def _clip(folder: Folder, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """CLIP's config: of a folder within this one, or by the shapes of the tensors."""
    inside = folder.path / str(folder.config.get("vision_tower") or "")
    if inside != folder.path and (inside / "config.json").is_file():
        config = Folder(inside).config
        return dict(config.get("vision_config", config))
    names = {
        "patches": "embeddings.patch_embedding.weight",
        "positions": "embeddings.position_embedding.weight",
        "hidden": "encoder.layers.0.mlp.fc1.weight",
    }
    lacking = [CLIP + name for name in names.values() if CLIP + name not in tensors]
    if lacking:
        raise CheckpointError(f"{folder.path} lacks {lacking[0]}, by which CLIP's structure is known")
    patches, positions, hidden = (tensors[CLIP + name] for name in names.values())
    width, _, patch, _ = patches.shape
    if width % HEAD_WIDTH:
        raise CheckpointError(
            f"{folder.path}: CLIP's width is {width}, which heads of {HEAD_WIDTH} channels do not divide; put its "
            "config.json into a folder within and name that as vision_tower"
        )
    return {
        "hidden_size": width,
        "intermediate_size": len(hidden),
        "num_hidden_layers": sum(
            name.startswith(CLIP) and name.endswith(".layer_norm1.weight") for name in tensors
        ),
        "num_attention_heads": width // HEAD_WIDTH,
        "image_size": round((len(positions) - 1) ** 0.5) * patch,
        "patch_size": patch,
    }
