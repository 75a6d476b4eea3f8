"""Qwen-VL and Qwen-VL-Chat (arXiv 2308.12966): a ViT-bigG that ends in a resampler, before Qwen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap, OwnTensors, Rule, Unused
from chiasm.interop.shapes import qwen_vl
from chiasm.interop.shapes.qwen import QWEN_WITHOUT_EFFECT, qwen_config, qwen_rules
from chiasm.interop.shapes.towers import normalisation
from chiasm.language.turns import IMAGE_LINES

VISUAL = "transformer.visual."
SIZES, FORMAT = (
    "sizes",
    "chat_format",
)  # not in the original's config: of its tensors, of its generation_config
SYSTEM = "You are a helpful assistant."
CHATML = (
    "{% if not messages or messages[0]['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ " + IMAGE_LINES + " }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RAW = (
    "{% for message in messages %}{{ " + IMAGE_LINES + " }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "raw": RAW}
Slots = dict[str, dict[str, Any]]


class QwenVLFamily(Family, name="qwen-vl"):
    """The layout of Qwen/Qwen-VL and Qwen/Qwen-VL-Chat (model_type qwen with a `visual` section)."""

    looks_for = "config.json with model_type qwen and a section visual"
    own_conversation = True
    read_marker = "Picture {ordinal}: <img>"

    without_effect: ClassVar = {
        **EVERYWHERE,
        **QWEN_WITHOUT_EFFECT,
        "sizes.queries": "the config's is used",
    }

    def recognises(self, folder: Folder) -> bool:
        config = folder.config
        return config.get("model_type") == "qwen" and isinstance(config.get("visual"), Mapping)

    def read(self, folder: Folder) -> Original:
        form = folder.json("generation_config.json").get("chat_format", "chatml")
        tensors = dict(folder.tensors)
        sizes = qwen_vl.measured(tensors, VISUAL)
        return Original({**folder.config, SIZES: sizes, FORMAT: form}, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> Slots:
        language = qwen_config(config)
        sees = self.sees(config["visual"], config.get(SIZES) or {})
        width, out_width = (
            language["config"].get("hidden_size", 4096),
            config["visual"].get("output_dim", 512),
        )
        if width != out_width:
            raise CheckpointError(
                f"visual.output_dim is {out_width}, but the language model's hidden_size is {width}; they are equal"
            )
        markers = {"read_marker": self.read_marker, "read_end": "</img>"}
        return {**sees, "language": {**language, **markers}}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config, keys)
        return NameMap(
            *self.seeing_rules(spec, config["visual"]),
            *qwen_rules(spec["language"]["config"].get("hidden_size", 4096)),
        )

    def sees(self, visual: Mapping[str, Any], sizes: Mapping[str, int]) -> Slots:
        """Views, encoder and connector for the config's `visual` section; sizes: see `qwen_vl.measured`."""
        side = visual.get("image_size", 448)
        return {
            "views": {"type": "whole", "size": side, "fit": "stretch"},
            "encoder": qwen_vl.encoder(visual, positions=qwen_vl.rows_of_positions(sizes)),
            "connector": {"type": "identity"},
        }

    def seeing_rules(self, spec: Slots, visual: Mapping[str, Any]) -> list[Rule | Unused | OwnTensors]:
        """The rules for those parts."""
        return [*qwen_vl.encoder_rules(spec["encoder"], VISUAL, "encoder.")]

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder)

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATES[known_value(FORMAT, config.get(FORMAT, "chatml"), *TEMPLATES)]

    def added_tokens(self, config: Mapping[str, Any]) -> dict[str, int]:
        first = config["visual"].get("image_start_id")
        tokens = () if first is None else ("<img>", "</img>", "<imgpad>")
        return {token: first + place for place, token in enumerate(tokens)}

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(SIZES).without(FORMAT), folder)
