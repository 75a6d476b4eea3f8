"""The diffusion models that language models are put before: what checkpoints name, and their configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.decoders.denoisers.unet import SD2_UNET, SD15_UNET
from chiasm.decoders.schedulers.diffusers_schedulers import STABLE_DIFFUSION
from chiasm.errors import CheckpointError, reason
from chiasm.interop.config import plain
from chiasm.interop.families.diffusers import network_weights
from chiasm.interop.family import Folder
from chiasm.interop.mapping import Rule
from chiasm.storage.weights import resolve
from chiasm.tokenizers.vae import SD_VAE

PLACE, EMPTY = "image_decoder.", "empty_prompt"  # where its tensors stand among a checkpoint's
NETWORKS = {"unet": "config", "vae": "config", "scheduler": "scheduler_config"}  # a folder, and its JSON file
NOISE = {**STABLE_DIFFUSION, "clip_sample": False}
# By their names on the hub, which is where checkpoints refer to; a folder of that name is read instead.
PUBLISHED: dict[str, dict[str, Any]] = {
    "stable-diffusion-v1-5": {"unet": SD15_UNET, "vae": SD_VAE, "scheduler": NOISE},
    "stable-diffusion-2": {
        "unet": {**SD2_UNET, "sample_size": 96},
        "vae": {**SD_VAE, "sample_size": 768},
        "scheduler": {**NOISE, "prediction_type": "v_prediction"},
    },
    "stable-diffusion-2-1-base": {
        "unet": SD2_UNET,
        "vae": {**SD_VAE, "sample_size": 768},
        "scheduler": NOISE,
    },
}
# What the configuration of one class of schedulers may hold that another does without.
FOREIGN = {
    "ddim": ("skip_prk_steps",),
    "ddpm": ("set_alpha_to_one", "skip_prk_steps"),
    "euler": ("clip_sample", "set_alpha_to_one", "skip_prk_steps"),
    "pndm": ("clip_sample",),
}


def named_folder(folder: Folder, reference: str) -> Folder:
    """What a checkpoint refers to: a folder inside it, or a checkpoint of its own."""
    inside = folder.path / reference
    return Folder(inside if reference and inside.is_dir() else resolve(reference))


def diffusion_configs(folder: Folder, reference: str) -> dict[str, dict[str, Any]]:
    """The configurations of `unet`, `vae` and `scheduler` of the diffusion model that a checkpoint refers to.

    Raises CheckpointError naming a file that its folder lacks.
    """
    name = reference.rstrip("/").split("/")[-1]
    if name in PUBLISHED and not (folder.path / reference).is_dir() and not Path(reference).is_dir():
        return PUBLISHED[name]
    place = named_folder(folder, reference)
    configs = {part: place.json(f"{part}/{file}.json") for part, file in NETWORKS.items()}
    lacking = [f"{part}/{NETWORKS[part]}.json" for part, config in configs.items() if not config]
    if lacking:
        raise CheckpointError(
            f"{place.path}, the diffusion model of {folder.path}, has no {', '.join(lacking)}"
        )
    return configs


def image_size(configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Height and width in pixels of the images that the networks were made for."""
    factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    return int(configs["unet"]["sample_size"] * factor)


def decoder(
    configs: Mapping[str, Mapping[str, Any]], scheduler: str, *, steps: int, guidance: float, **options: Any
) -> dict[str, Any]:
    """The image decoder of these networks, conditioned on vectors as wide as its tokens.

    scheduler: the part; what its class does without, if another one wrote the configuration, is left out.
    """
    size = image_size(configs)
    noise = {
        key: value for key, value in plain(configs["scheduler"]).items() if key not in FOREIGN[scheduler]
    }
    return {
        "type": "diffusion",
        "size": size,
        "autoencoder": {"type": "vae", "size": size, "config": plain(configs["vae"])},
        "denoiser": {"type": "unet", "config": plain(configs["unet"])},
        "conditioner": {"type": "vectors"},
        "scheduler": {"type": scheduler, "config": noise},
        "steps": steps,
        "guidance": guidance,
        "unconditional": 0.0,  # what guidance leads away from is the empty prompt's, of the language model
        **options,
    }


def decoder_rules(theirs: str = PLACE) -> list[Rule]:
    """Rules for the networks' tensors, `unet.*` and `vae.*` behind `theirs`, and the image decoder's."""
    ours = "image_decoder.denoising."
    return [
        Rule(theirs + "unet.{rest...}", ours + "denoiser.inner.{rest...}"),
        Rule(theirs + "vae.{rest...}", ours + "autoencoder.inner.{rest...}"),
        Rule(theirs + EMPTY, "image_decoder.conditioner.empty_tokens"),
    ]


def diffusion_tensors(folder: Folder, reference: str, tokens: int) -> dict[str, Tensor]:
    """The networks' tensors, and the `tokens` that the text encoder makes of an empty prompt (`decoder_rules`).

    Raises CheckpointError naming a file that is missing.
    """
    place = named_folder(folder, reference)
    tensors = {
        f"{PLACE}{part}.{key}": tensor
        for part in ("unet", "vae")
        for key, tensor in network_weights(place, part).items()
    }
    return tensors | {PLACE + EMPTY: empty_prompt(place.path, tokens)}


def empty_prompt(place: Path, tokens: int) -> Float[Tensor, "k d"]:
    """What the text encoder of a diffusion model makes of a prompt without words, padded as in its training."""
    from transformers import AutoTokenizer, CLIPTextModel

    try:
        words = AutoTokenizer.from_pretrained(place / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(place / "text_encoder")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{place} lacks its tokenizer or its text_encoder, whose empty prompt guidance leads away from: "
            f"{reason(error)}"
        ) from None
    ids = words("", padding="max_length", max_length=tokens, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return encoder.eval()(ids).last_hidden_state[0].float()
