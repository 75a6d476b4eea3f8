"""NExT-GPT in the original's newer layout (arXiv 2309.05519): a language model with projectors in and out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from chiasm.encoders.preprocessor import OPENAI
from chiasm.errors import CheckpointError, quoted
from chiasm.interop.config import EVERYWHERE, plain, reader
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.shapes.next_gpt import (
    NEW,
    below,
    drawing,
    input_projector,
    input_rules,
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
from chiasm.interop.shapes.towers import causal_config, colour, normalisation, tower, tower_rules
from chiasm.language.templates import VICUNA

SIGNAL, SEPARATOR = "<image_{:02d}>", "▁▁"  # and what the original's tokenizer puts between two of them
TOWER, INPUT, OUTPUT = (
    "model.multimodal_tower.",
    "model.mm_input_projector.",
    "model.mm_output_img_projector.",
)
INPUT_FILE, OUTPUT_FILE = "mm_input_projector.bin", "mm_output_projector.bin"
OTHERS = ("vid", "aud")
# Fields that are not the language model's.
OWN = (
    *(
        "multimodal_",
        "mm_",
        "image_",
        "video_",
        "audio_",
        "n_img_",
        "n_vid_",
        "n_aud_",
        "layer_idx",
        "use_mm_",
    ),
    *("tune_mm_", "freeze_mm_", "tokenizer_"),
)
TRAINING, ELSEWHERE, TENSORS = "of training", "the folder's reader follows it", "the tensors tell"
MODALITY = "of video or sound, which is neither read nor made here"
ADAPTERS = ("mm_input_adapter", *(f"mm_output_{each}_adapter" for each in ("img", *OTHERS)))
WITHOUT_EFFECT = {
    "multimodal_tower": ELSEWHERE,
    "multimodal_input_tower": ELSEWHERE,
    "image_decoder": ELSEWHERE,
    "mm_input_projector_type": ELSEWHERE,
    **dict.fromkeys(
        ("image_aspect_ratio", "mm_vision_select_layer", "mm_vision_select_feature"), "of CLIP, if it sees"
    ),
    "use_mm_proj": "there is one",
    "mm_hidden_size": TENSORS,
    "n_img_tokens": "the folder's reader takes as many",
    "mm_output_img_num_query_token": TENSORS,
    "mm_output_img_features": TENSORS,
    "mm_output_img_projector_type": TENSORS,
    "mm_input_projector_lr": TRAINING,
    "mm_output_projector_lr": TRAINING,
    "tokenizer_model_max_length": TRAINING,
    "tokenizer_padding_side": TRAINING,
    **{f"{verb}_{each}": TRAINING for verb in ("tune", "freeze") for each in ADAPTERS},
    **dict.fromkeys(("video_decoder", "audio_decoder", "n_vid_tokens", "n_aud_tokens"), MODALITY),
    **{f"mm_use_{each}_{key}": MODALITY for each in OTHERS for key in ("start_end", "patch_token")},
    **{
        f"mm_output_{each}_{key}": MODALITY
        for each in OTHERS
        for key in ("projector_type", "features", "num_query_token")
    },
}


class NextGPT(Family, name="next-gpt"):
    """A folder that the newer code saves: config.json, the language model, its tokenizer; the projectors among its
    tensors, or in mm_input_projector.bin and mm_output_projector.bin.

    Its config here is `{config: config.json, unet, vae, scheduler: of the diffusion model that it names, clip: of a
    CLIP tower, signals: ids, input, output: the connectors that the projectors' tensors are, width: of what the
    output's makes}`. ImageBind is no encoder here: with it a checkpoint draws and does not see, and what it sees
    with is kept aside, as are its projectors for video and sound.
    """

    looks_for = "config.json with model_type nextgpt_llama"
    without_effect: ClassVar = {
        **EVERYWHERE,
        **{f"config.{key}": reason for key, reason in WITHOUT_EFFECT.items()},
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "nextgpt_llama"

    def read(self, folder: Folder) -> Original:
        config, tensors = folder.config, _with_adapters(folder)
        reference, clip = config.get("image_decoder") or "", _clip(folder)
        seen, projector = below(tensors, INPUT), below(tensors, OUTPUT)
        own: dict[str, Any] = {
            "config": config,
            **diffusion_configs(folder, reference),
            "clip": clip.config.get("vision_config", clip.config) if clip else None,
            "signals": signal_ids(folder, SIGNAL, config.get("n_img_tokens", 4), SEPARATOR),
            "input": input_projector(config.get("mm_input_projector_type", "linear"), seen) if clip else None,
            "output": output_projector(
                config.get("mm_output_img_projector_type", "transformer"), projector, NEW
            ),
            "width": output_width(projector, NEW),
        }
        borrowed = diffusion_tensors(folder, reference, own["output"]["queries"])
        return Original(own, tensors | borrowed, borrowed=list(borrowed))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        own = reader(config["config"])
        own.only("layer_idx", -1)  # of the hidden states that are projected
        for name in ("im", "img"):
            own.only(f"mm_use_{name}_start_end", False, None)
            own.only(f"mm_use_{name}_patch_token", False, None)
        language = {key: own[key] for key in own if not key.startswith(OWN)}
        spec: dict[str, dict[str, Any]] = {
            "language": {**causal_config(language, "llama"), "draw_marker": SIGNAL.format(0)},
            **drawing(config, config["output"], config["width"], config["signals"]),
        }
        clip = config.get("clip")
        if clip is None:
            return spec
        fit = own.only("image_aspect_ratio", "square", "pad", None)
        padded = {"fit": "pad", "padding": tuple(colour(OPENAI[0]))} if fit == "pad" else {"fit": "crop"}
        own.only("mm_vision_select_feature", "patch")
        return {
            "views": {"type": "whole", "size": clip.get("image_size", 224), **padded},
            "encoder": tower(clip, "clip_vision_model", layer=own.get("mm_vision_select_layer", -1)),
            "connector": plain(config["input"]),
            **spec,
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        seen: list[Any] = [Unused(TOWER + "{rest...}"), Unused(INPUT + "{rest...}")]
        if config.get("clip") is not None:
            encoder = self.model(config)["encoder"]
            seen = [
                *tower_rules(encoder, TOWER + "vision_tower.vision_model."),
                *input_rules(config["input"], INPUT, "connector."),
            ]
        return NameMap(
            *seen,
            *output_rules(config["output"], NEW, OUTPUT, "heads.image.bridge."),
            *[Unused(f"model.mm_output_{each}_projector.{{rest...}}") for each in OTHERS],
            *decoder_rules(),
            Unused("model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("lm_head.weight", "language.inner.lm_head.weight"),
            Rule("model.{rest...}", "language.inner.model.{rest...}"),
        )

    def remark(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> str:
        blind = "it draws and does not see, for there is no encoder here that is its tower; "
        return ("" if config.get("clip") else blind) + "video and sound are left out"

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        clip = _clip(folder)
        return normalisation(clip) if clip else {}

    def chat_template(self, config: Mapping[str, Any]) -> str:
        return VICUNA

    def write(self, original: Original, folder: Path) -> None:
        super().write(Original(original.config["config"], original.tensors), folder)


def _with_adapters(folder: Folder) -> dict[str, Tensor]:
    """All tensors of a folder, by their names in the whole model; raises CheckpointError without a projector."""
    tensors = dict(folder.tensors)
    for name in (INPUT_FILE, OUTPUT_FILE):
        if (folder.path / name).is_file():
            read = folder.read(folder.path / name)
            tensors |= {key if key.startswith("model.") else f"model.{key}": t for key, t in read.items()}
    if not below(tensors, OUTPUT):
        raise CheckpointError(
            f"{folder.path} has no projector that draws: neither its weights nor a {OUTPUT_FILE} hold {OUTPUT}*; "
            "without it images would be made of random numbers"
        )
    return tensors


def _clip(folder: Folder) -> Folder | None:
    """The tower where it is CLIP's; None for ImageBind. Raises CheckpointError for another."""
    reference = folder.config.get("multimodal_tower") or folder.config.get("multimodal_input_tower") or ""
    if not reference or "imagebind" in reference.lower():
        return None
    clip = named_folder(folder, reference)
    kind = clip.config.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise CheckpointError(
            f"{folder.path} sees with {reference}, which is {quoted(kind)}; known: CLIP, and ImageBind, which is "
            "left out"
        )
    return clip
