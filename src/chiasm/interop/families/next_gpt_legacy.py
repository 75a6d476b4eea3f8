"""NExT-GPT in the original's older layout (arXiv 2309.05519): what was trained, beside the language model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.shapes.low_rank import with_updates
from chiasm.interop.shapes.next_gpt import (
    OLD,
    below,
    drawing,
    output_projector,
    output_rules,
    output_width,
    signal_ids,
)
from chiasm.interop.shapes.stable_diffusion import (
    decoder_rules,
    diffusion_configs,
    diffusion_tensors,
    named_folder,
)
from chiasm.interop.shapes.towers import causal_config
from chiasm.storage.weights import read_tensors

FILE, SIGNAL, SIGNALS = "pytorch_model.pt", "[IMG{}]", 4
OUTPUT, LANGUAGE = "gen_text_hidden_fcs.0.", "llama_model."
DIFFUSION = (
    "runwayml/stable-diffusion-v1-5"  # of all published checkpoints; a folder diffusion/ is read instead
)
RANK_SCALE = 32  # the original's lora_alpha, in a file of its code
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "### Human: {{ message['content'] }}\n{% elif message['role'] == 'assistant' %}"
    "### Assistant: {{ message['content'] }}\n###{% else %}{{ message['content'] }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Assistant: {% endif %}"
)


class NextGPTLegacy(Family, name="next-gpt-legacy"):
    """pytorch_model.pt with the projectors (gen_text_hidden_fcs, llama_proj) and what the language model has
    learnt, beside that model's config.json, which names where its weights are, and the tokenizer.

    Its config here is `{config: config.json, unet, vae, scheduler: of Stable Diffusion 1.5, signals: ids, output:
    the connector that the projector's tensors are, width: of what it makes}`. Low-rank updates are added to the
    weights, and so it cannot be exported. ImageBind is no encoder here: a checkpoint draws and does not see; what
    it sees with is kept aside, as are its projectors for video and sound.
    """

    looks_for = "pytorch_model.pt beside config.json of a language model"
    without_effect: ClassVar = EVERYWHERE

    def recognises(self, folder: Folder) -> bool:
        return (folder.path / FILE).is_file() and folder.config.get("model_type") == "llama"

    def read(self, folder: Folder) -> Original:
        learnt = folder.read(folder.path / FILE)
        projector = below(learnt, OUTPUT)
        if not projector:
            raise CheckpointError(
                f"{folder.path / FILE} has no projector that draws ({OUTPUT}*); without it images would be made of "
                "random numbers"
            )
        kind = "qformer" if "query_tokens" in projector else "transformer"
        reference = "diffusion" if (folder.path / "diffusion").is_dir() else DIFFUSION
        own: dict[str, Any] = {
            "config": folder.config,
            **diffusion_configs(folder, reference),
            "signals": signal_ids(folder, SIGNAL, SIGNALS),
            "output": output_projector(kind, projector, OLD),
            "width": output_width(projector, OLD),
        }
        language = _language(folder, below(learnt, LANGUAGE))
        borrowed = language | diffusion_tensors(folder, reference, own["output"]["queries"])
        rest = {key: tensor for key, tensor in learnt.items() if not key.startswith(LANGUAGE)}
        return Original(own, rest | borrowed, borrowed=list(borrowed))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        return {
            "language": {**causal_config(config["config"], "llama"), "draw_marker": SIGNAL.format(0)},
            **drawing(config, config["output"], config["width"], config["signals"]),
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        return NameMap(
            *output_rules(config["output"], OLD, OUTPUT, "heads.image.bridge."),
            Unused("gen_text_hidden_fcs_video.{rest...}"),
            Unused("gen_text_hidden_fcs_audio.{rest...}"),
            Unused("llama_proj.{p}"),
            *decoder_rules(),
            Unused(LANGUAGE + "model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule(LANGUAGE + "{rest...}", "language.inner.{rest...}"),
        )

    def remark(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> str:
        return "it draws and does not see, for its tower ImageBind is no encoder here; video and sound are left out"

    def chat_template(self, config: Mapping[str, Any]) -> str:
        return TEMPLATE

    def write(self, original: Original, folder: Path) -> None:
        raise CheckpointError(
            f"{self.name!r} keeps what the language model has learnt apart from its weights, to which it was added "
            "in the import: it cannot be written back"
        )


def _language(folder: Folder, learnt: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The language model's tensors: those that its config names, with what has been learnt of them."""
    reference = folder.config.get("_name_or_path") or ""
    tensors = read_tensors(named_folder(folder, reference).path)
    merged = with_updates({**tensors, **learnt}, RANK_SCALE, folder.path / FILE)
    return {LANGUAGE + key: tensor for key, tensor in merged.items()}
