"""A folder of diffusers as an image decoder: a UNet, an autoencoder and a scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from chiasm.errors import CheckpointError, RecipeError
from chiasm.interop.config import Config, reader
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap, Rule
from chiasm.interop.shapes.grounding import box_rules, gated_rules
from chiasm.nn.diffusers_library import library
from chiasm.storage.folders import write_json, write_tensors

INDEX = "model_index.json"
CONFIGS = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
SCHEDULERS = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "EulerDiscreteScheduler": "euler",
    "PNDMScheduler": "pndm",
}
# Schedulers of diffusers that read one another's files: each leaves aside the options of the others.
OTHER_SCHEDULERS = (
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
)
WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.safetensors",
)
FORCED = {"steps_offset": 1, "clip_sample": False}  # on any scheduler by StableDiffusionPipeline
BESIDE = (
    *("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "safety_checker", "feature_extractor"),
    *("image_encoder", "force_zeros_for_empty_prompt", "requires_safety_checker", "add_watermarker"),
)


class DiffusersFolder(Family, name="diffusers"):
    """Stable Diffusion 1.5, 2 and XL, InstructPix2Pix, GLIGEN and their kin, without their text encoders.

    What comes out is an image decoder alone, which takes vectors as wide as its network's tokens; a recipe starts
    from it with `start: {folder: ..., slots: [image_decoder]}` and may name another conditioner. A network that
    reads a pooled vector too (SDXL) has no conditioner until a recipe names one.
    """

    without_effect: ClassVar = {
        "index": "names of components, of which only UNet, autoencoder and scheduler are read",
        "*._diffusers_version": "who wrote the file",
        "scheduler": "options of other schedulers, which diffusers leaves aside too",
    }
    looks_for = f"{INDEX} beside unet/, vae/ and scheduler/"

    def recognises(self, folder: Folder) -> bool:
        return all((folder.path / name).is_file() for name in (INDEX, CONFIGS["unet"]))

    def read(self, folder: Folder) -> Original:
        missing = [name for name in CONFIGS.values() if not (folder.path / name).is_file()]
        if missing:
            raise CheckpointError(f"{folder.path} has no {missing[0]}, without which nothing can be decoded")
        config = {"index": folder.json(INDEX), **{key: folder.json(name) for key, name in CONFIGS.items()}}
        tensors: dict[str, Tensor] = {}
        for name in CLASSES:
            tensors |= {f"{name}/{key}": tensor for key, tensor in network_weights(folder, name).items()}
        return Original(config, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        unknown = [key for key in config["index"] if key not in ("unet", "vae", "scheduler", *BESIDE)]
        unknown = [key for key in unknown if not key.startswith("_")]
        if unknown:
            raise CheckpointError(f"{INDEX} names the component {unknown[0]!r}, which is not known here")
        unet, vae = (_network(config[name], name) for name in CLASSES)
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        latents = vae.get("latent_channels", 4)
        size = factor * unet["sample_size"]
        gated = _gated(unet)
        decoder = {
            "type": "diffusion",
            "size": size,
            "autoencoder": {"type": "vae", "size": size, "config": vae},
            "edits": unet.get("in_channels", 4) == 2 * latents + gated,
            "denoiser": {"type": "grounded_unet" if gated else "unet", "config": _without_gates(unet)},
            "conditioner": _conditioner(unet),
            "scheduler": _scheduler(config["scheduler"], config["index"].get("_class_name")),
        }
        return {"image_decoder": decoder}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        denoiser, autoencoder = (f"image_decoder.denoising.{each}." for each in ("denoiser", "autoencoder"))
        vae = Rule("vae/{rest...}", autoencoder + "inner.{rest...}")
        if not _gated(config["unet"]):
            return NameMap(Rule("unet/{rest...}", denoiser + "inner.{rest...}"), vae)
        block = "{where...}.transformer_blocks.{n}.fuser."
        return NameMap(
            *box_rules("unet/position_net.", denoiser + "boxes."),
            *gated_rules("unet/" + block, denoiser + "unet." + block),
            Rule("unet/{rest...}", denoiser + "unet.{rest...}"),
            vae,
        )

    def remark(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> str:
        return "an image decoder alone; its text encoders are left behind"

    def write(self, original: Original, folder: Path) -> None:
        contents = {INDEX: original.config["index"]}
        contents |= {name: original.config[key] for key, name in CONFIGS.items()}
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_json(folder / name, content)
        for name in CLASSES:
            own = {
                k.removeprefix(f"{name}/"): t for k, t in original.tensors.items() if k.startswith(f"{name}/")
            }
            write_tensors(folder / name / WEIGHTS[0], own)


def network_weights(folder: Folder, name: str) -> dict[str, Tensor]:
    """The tensors of a folder's `unet` or `vae`; raises CheckpointError where it has none."""
    files = [folder.path / name / file for file in WEIGHTS]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder.path / name} has no weights ({', '.join(WEIGHTS)})")
    return folder.read(file)


def _network(config: Config, name: str) -> dict[str, Any]:
    """The configuration of a network, which its part accounts for key by key."""
    expected = CLASSES[name]
    actual = config.get("_class_name", expected)
    if actual != expected:
        raise CheckpointError(f"{CONFIGS[name]} is of a {actual}; only a {expected} is known here")
    return {key: config[key] for key in config if not key.startswith("_")}


def _gated(unet: Mapping[str, Any]) -> bool:
    """Whether a network reads boxes, as GLIGEN's does; raises CheckpointError where it reads images in them."""
    kind = unet.get("attention_type", "default")
    if kind not in ("default", "gated"):
        raise CheckpointError(
            f"{CONFIGS['unet']} has the attention_type {kind!r}; known are 'default' and 'gated', which reads "
            "boxes with words"
        )
    return kind == "gated"


def _without_gates(unet: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the network alone."""
    return {key: value for key, value in unet.items() if key != "attention_type"}


def _conditioner(unet: Mapping[str, Any]) -> dict[str, Any] | None:
    return None if unet.get("addition_embed_type") else {"type": "vectors"}


def _scheduler(config: Config, pipeline: str | None) -> dict[str, Any]:
    actual = config["_class_name"]
    if actual not in SCHEDULERS:
        raise CheckpointError(
            f"{CONFIGS['scheduler']} is of a {actual}; known are {', '.join(SCHEDULERS)}, and any of them can "
            "be put in its place"
        )
    own = _arguments(actual)
    others = set().union(*map(_arguments, (*SCHEDULERS, *OTHER_SCHEDULERS)))
    unknown = [key for key in config if key not in others and not key.startswith("_")]
    if unknown:
        raise CheckpointError(
            f"{CONFIGS['scheduler']} has the option {unknown[0]!r}, which no scheduler knows"
        )
    options = {key: config[key] for key in config if key in own}
    if pipeline == "StableDiffusionPipeline":
        options |= {key: value for key, value in FORCED.items() if key in own}
    return {"type": SCHEDULERS[actual], "config": options}


def _arguments(scheduler: str) -> set[str]:
    try:
        constructor = getattr(library("the family 'diffusers'"), scheduler).__init__
    except RecipeError as error:
        raise CheckpointError(str(error)) from None
    return set(inspect.signature(constructor).parameters)
