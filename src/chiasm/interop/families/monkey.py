"""Monkey and TextMonkey (arXiv 2311.06607, 2403.04473): Qwen-VL on windows of a larger image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from chiasm.interop.families.qwen_vl import VISUAL, QwenVLFamily, Slots
from chiasm.interop.family import Folder
from chiasm.interop.mapping import OwnTensors, Rule, Unused
from chiasm.interop.shapes.monkey import (
    encoder_rules,
    monkey_encoder,
    resampler_rules,
    stretched,
    text_monkey_encoder,
    token_resampler,
)
from chiasm.interop.shapes.towers import normalisation
from chiasm.language.special import READ

# As both are asked: "<img>...</img> Where is it? Answer: ". One space stands behind an image, whatever stood there.
WITHOUT = "".join(f" | replace('{READ}{behind}', '{READ}')" for behind in ("\\n", " "))
SPACED = f"message['content']{WITHOUT} | replace('{READ}', '{READ} ')"
QUESTION = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ " + SPACED + " }} Answer: "
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }} {% endif %}{% endfor %}"
)


class Monkey(QwenVLFamily, name="monkey"):
    """The layout of echo840/Monkey and echo840/Monkey-Chat (architecture MonkeyLMHeadModel).

    A stage that trains its encoder trains what the original's does: all but the ViT.
    """

    looks_for = "config.json with architectures [MonkeyLMHeadModel]"
    read_marker = "<img>"
    architecture = "MonkeyLMHeadModel"

    without_effect: ClassVar = {
        **QwenVLFamily.without_effect,
        "chat_format": "its code asks questions in a form of its own",
    }

    def recognises(self, folder: Folder) -> bool:
        return self.architecture in (folder.config.get("architectures") or ())

    def sees(self, visual: Mapping[str, Any], sizes: Mapping[str, int]) -> Slots:
        return {
            "views": stretched(visual),
            "encoder": monkey_encoder(visual, sizes),
            "connector": {"type": "identity"},
        }

    def seeing_rules(self, spec: Slots, visual: Mapping[str, Any]) -> list[Rule | Unused | OwnTensors]:
        return encoder_rules(spec["encoder"], visual, VISUAL, "encoder.")

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder, slot="encoder.encoder")

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return QUESTION


class TextMonkey(Monkey, name="textmonkey"):
    """The layout of TextMonkey (architecture TextMonkeyLMHeadModel)."""

    looks_for = "config.json with architectures [TextMonkeyLMHeadModel]"
    architecture = "TextMonkeyLMHeadModel"

    without_effect: ClassVar = {
        **Monkey.without_effect,
        "visual.n_queries": "its code has 256 queries in any case, which the tensors say",
    }

    def sees(self, visual: Mapping[str, Any], sizes: Mapping[str, int]) -> Slots:
        encoder = text_monkey_encoder(visual, {"queries": 256, **sizes})
        return {
            "views": stretched(visual),
            "encoder": encoder,
            "connector": token_resampler(visual, encoder),
        }

    def seeing_rules(self, spec: Slots, visual: Mapping[str, Any]) -> list[Rule | Unused | OwnTensors]:
        return [
            *encoder_rules(spec["encoder"], visual, VISUAL, "encoder."),
            *resampler_rules(spec["connector"], f"{VISUAL}downresampler.", "connector."),
        ]
