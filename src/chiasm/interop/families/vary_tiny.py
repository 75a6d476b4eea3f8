"""Vary-tiny (arXiv 2312.06109): OPT reads pages through Vary's new tower alone, by which that tower learns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from chiasm.interop.config import EVERYWHERE
from chiasm.interop.families.vary import BEGIN, END, TOWERS, TRAINING, image_tokens, is_reader
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap, Rule
from chiasm.interop.shapes.towers import causal_config
from chiasm.interop.shapes.vary_tower import tower_arguments, tower_views, vary_tower, vary_tower_rules

SAM = "model.vision_tower."
# The config's keys that are not OPT's.
OWN = frozenset({
    *("vision_tower", "image_token_len", "use_im_start_end", "vision_select_layer", "freeze_vision_tower"),
    *("im_patch_token", "im_start_token", "im_end_token", TOWERS),
})  # fmt: skip
TEMPLATE = (  # nothing is asked: a line ends behind the image, and one behind its text
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


class VaryTiny(Family, name="vary-tiny"):
    """The layout of Vary-tiny (github.com/Ucas-HaoranWei/Vary): OPT's, with the tower inside.

    The original's code holds the tower's structure, which is read from the shapes of its tensors.
    """

    looks_for = "config.json with model_type vary and architectures [varyOPTForCausalLM]"
    own_conversation = True

    without_effect: ClassVar = {
        **EVERYWHERE,
        "vision_tower": "of a tower that this model has not",
        "vision_select_layer": "of a tower that this model has not",
        "freeze_vision_tower": TRAINING,
        "use_im_start_end": "words stand round images in any case",
    }

    def recognises(self, folder: Folder) -> bool:
        config = folder.config
        return config.get("model_type") == "vary" and "hidden_size" in config and is_reader(config)

    def read(self, folder: Folder) -> Original:
        tensors = dict(folder.tensors)
        return Original({**folder.config, TOWERS: {"sam": tower_arguments(tensors, SAM)}}, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        sam = vary_tower(config[TOWERS]["sam"])
        language = {key: config[key] for key in config if key not in OWN}
        return {
            "views": tower_views(config, sam),
            "encoder": sam,
            "connector": {"type": "linear"},
            "language": {**causal_config(language, "opt"), "read_marker": BEGIN, "read_end": END},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        return NameMap(
            *vary_tower_rules(SAM),
            Rule("model.mm_projector.{p}", "connector.layer.{p}"),
            Rule("model.decoder.{rest...}", "language.inner.model.decoder.{rest...}"),
            Rule("lm_head.weight", "language.inner.lm_head.weight"),
        )

    def added_tokens(self, config: Mapping[str, Any]) -> dict[str, int]:
        return image_tokens(config)

    def chat_template(self, config: Mapping[str, Any]) -> str:
        return TEMPLATE

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(TOWERS), folder)
