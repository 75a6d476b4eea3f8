"""DreamLLM in the original's layout (arXiv 2309.11499): a language model, and a file for each plug-in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError, quoted
from chiasm.interop.config import EVERYWHERE, Config, reader
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap, Reshape, Rule, Unused
from chiasm.interop.shapes.stable_diffusion import decoder, diffusion_configs, named_folder
from chiasm.interop.shapes.towers import causal_config, normalisation, tower, tower_rules
from chiasm.language.templates import VICUNA
from chiasm.storage.folders import write_json, write_tensors

CLIP, QUERIES, HEAD = "clip_vision_embedding", "dream_embedding", "stable_diffusion_head"
# Where the original's code hangs each plug-in, and so what its tensors are called in a whole state dict.
PREFIXES = {CLIP: f"model.{CLIP}.", QUERIES: f"model.{QUERIES}.", HEAD: f"{HEAD}."}
MARKERS = {"read": "<im_start>", "read_end": "<im_end>", "draw": "<dream_start>", "draw_end": "<dream_end>"}
# Of the tower that the published checkpoints name, where its folder is not at hand.
CLIP_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
}
OTHERS = (
    *("special_tokens2ids_dict", "plugins_init_kwargs", "plugins_type", "loss_weight_lm", "loss_weight_vm"),
    *("loss_scale_schedule", "log_attentions", "log_hidden_states"),
)
TRAINING = "of training"
PLACE = "where weights came from"
_TURNS = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"default": VICUNA, "draw": _TURNS}
STEPS, EMPTY = 50, 0.1  # of the sampler; share of training images behind an empty prompt


class DreamLLM(Family, name="dreamllm"):
    """RunpeiDong/DreamLLM: the language model's files, and beside them clip_vision_embedding.bin,
    dream_embedding.bin and stable_diffusion_head.bin.

    Its config here is `{config: config.json, clip: of the tower, unet, vae, scheduler: of diffusers}`; those of the
    towers stand in the folders that the plug-ins name. The original starts with random weights, without a word,
    where it finds a plug-in's file nowhere; here that is an error.
    """

    looks_for = "config.json with model_type dreamllm and plugins_init_kwargs"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "config.special_tokens2ids_dict": "the tokenizer tells",
        "config.plugins_type": "each plug-in is known by its name",
        "config.loss_weight_lm": TRAINING,
        "config.loss_weight_vm": TRAINING,
        "config.loss_scale_schedule": TRAINING,
        "config.log_attentions": "what is logged",
        "config.log_hidden_states": "what is logged",
        **dict.fromkeys(
            ("*.pretrained_model_name_or_path", "*.projector_name_or_path", "*.local_files_only"), PLACE
        ),
        **dict.fromkeys(
            ("*._target_", "*.clip_vision_model_name_or_path", "*.diffusion_name_or_path"), PLACE
        ),
        **dict.fromkeys(
            (
                *("*.freeze_dream_queries", "*.freeze_clip_vision_model", "*.freeze_embedding_layers"),
                *("*.freeze_projector", "*.freeze_vae", "*.freeze_unet", "*.input_perturbation"),
                *("*.resolution", "*.center_crop", "*.random_flip"),
            ),
            TRAINING,
        ),
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "dreamllm"

    def read(self, folder: Folder) -> Original:
        plugins = folder.config.get("plugins_init_kwargs") or {}
        _check_plugins(plugins, folder.path)
        config: dict[str, Any] = {"config": folder.config, "markers": dict(MARKERS)}
        config["clip"] = _clip(folder, plugins[CLIP]["clip_vision_model_name_or_path"])
        config |= diffusion_configs(folder, plugins[HEAD]["diffusion_name_or_path"])
        tensors = dict(folder.tensors)
        for name, prefix in PREFIXES.items():
            tensors |= {prefix + key: tensor for key, tensor in folder.read(_file(folder, name)).items()}
        return Original(config, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        dream, markers = reader(config["config"]), config["markers"]
        clip, queries, head = (reader(dream["plugins_init_kwargs"][name]) for name in PREFIXES)
        for plugin in (clip, queries, head):
            plugin.only("embed_hidden_size", dream["hidden_size"])
        language = {key: dream[key] for key in dream if key not in OTHERS}
        clip.only("use_additional_post_layernorm", False)
        return {
            "views": {"type": "whole", "size": config["clip"].get("image_size", 224), "fit": "crop"},
            "encoder": tower(config["clip"], "clip_vision_model", layer=clip.get("select_layer", -2)),
            "connector": _projector(clip, bias=True),
            "language": {
                **causal_config(language, "llama"),
                "read_marker": markers["read"],
                "read_end": markers["read_end"],
                "draw_marker": markers["draw"],
                "draw_end": markers["draw_end"],
            },
            "heads": {
                "image": {
                    "type": "queries",
                    "alphabet": {"type": "condition", "depth": 0},
                    "grid": [1, queries["num_dream_queries"]],
                    "causal": True,
                    "bridge": _projector(head, bias=False),
                    "unconditional": head.get("drop_prob") or EMPTY,
                }
            },
            "image_decoder": decoder(
                config,
                "ddpm",
                steps=STEPS,
                guidance=1.0,  # a drawing's own is between two prompts of the language model
                min_snr=head.get("snr_gamma"),
                noise_offset=head.get("noise_offset", 0.0),
            ),
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec, ours = self.model(config), "image_decoder.denoising."
        head = spec["heads"]["image"]
        shape = (head["grid"][1], config["config"]["hidden_size"])
        return NameMap(
            *tower_rules(spec["encoder"], PREFIXES[CLIP] + "clip_vision_model.vision_model."),
            *_projector_rules(spec["connector"], PREFIXES[CLIP], "connector."),
            Rule(PREFIXES[QUERIES] + "dream_queries", "heads.image.queries", Reshape((1, *shape), shape)),
            *_projector_rules(head["bridge"], PREFIXES[HEAD], "heads.image.bridge."),
            Rule(PREFIXES[HEAD] + "unet.{rest...}", ours + "denoiser.inner.{rest...}"),
            Rule(PREFIXES[HEAD] + "vae.{rest...}", ours + "autoencoder.inner.{rest...}"),
            Unused("model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("lm_head.weight", "language.inner.lm_head.weight"),
            Rule("model.{rest...}", "language.inner.model.{rest...}"),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        reference = folder.config["plugins_init_kwargs"][CLIP]["clip_vision_model_name_or_path"]
        if _is_published(folder, reference):
            return {}
        return normalisation(named_folder(folder, reference))

    def chat_template(self, config: Mapping[str, Any]) -> dict[str, str]:
        return TEMPLATES

    def write(self, original: Original, folder: Path) -> None:
        """The language model's files and the plug-ins'; the folders that they name are not the checkpoint's own."""
        files: dict[str, dict[str, Tensor]] = {}
        for key, tensor in original.tensors.items():
            name = next((name for name, prefix in PREFIXES.items() if key.startswith(prefix)), "")
            files.setdefault(name, {})[key.removeprefix(PREFIXES.get(name, ""))] = tensor
        write_json(folder / "config.json", original.config["config"])
        write_tensors(folder / "model.safetensors", files.pop(""))
        for name, tensors in files.items():
            torch.save({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.bin")


def _check_plugins(plugins: Mapping[str, Any], where: Path) -> None:
    """Raise CheckpointError for a plug-in that the config lacks, or that nothing here knows."""
    lacking = [name for name in PREFIXES if name not in plugins]
    if lacking:
        raise CheckpointError(
            f"{where}: plugins_init_kwargs of its config.json has no {', '.join(lacking)}; only models that see "
            "and draw are known"
        )
    unknown = [name for name in plugins if name not in PREFIXES]
    if unknown:
        raise CheckpointError(
            f"{where}: its config.json has the plug-in {', '.join(map(quoted, unknown))}; known: "
            f"{', '.join(PREFIXES)}"
        )


def _file(folder: Folder, plugin: str) -> Path:
    """The plug-in's file; raises CheckpointError naming it where it is missing."""
    path = folder.path / f"{plugin}.bin"
    if not path.is_file():
        raise CheckpointError(
            f"{folder.path} has no {path.name}, which holds its plug-in {plugin!r}; without it the original goes "
            "on with random weights and makes garbage: fetch that file of the checkpoint, too"
        )
    return path


def _clip(folder: Folder, reference: str) -> dict[str, Any]:
    if _is_published(folder, reference):
        return CLIP_LARGE
    config = named_folder(folder, reference).config
    return config.get("vision_config", config)  # type: ignore[no-any-return]


def _is_published(folder: Folder, reference: str) -> bool:
    """Whether the tower is the published one, and no folder of that name stands here."""
    there = Path(reference).is_dir() or (folder.path / reference).is_dir()
    return not there and reference.rstrip("/").endswith("clip-vit-large-patch14")


def _projector(plugin: Config, *, bias: bool) -> dict[str, Any]:
    """The connector for a plug-in's projector: one linear layer, or several with GELU between them."""
    kind, depth = plugin.only("projector_type", "linear", "mlp"), plugin.get("projector_depth", 1)
    if (kind == "linear") != (depth == 1):
        raise CheckpointError(
            f"{plugin.place}projector_depth is {depth}, which projector_type {kind!r} cannot have"
        )
    return {"type": "mlp", "depth": depth, "bias": bias}


def _projector_rules(spec: Mapping[str, Any], theirs: str, ours: str) -> Iterable[Rule]:
    if spec["depth"] == 1:  # then it is a layer, else a row of layers
        return [Rule(theirs + "projector.projector.{p}", ours + "layers.0.{p}")]
    return [Rule(theirs + "projector.projector.{n}.{p}", ours + "layers.{n}.{p}")]
