"""Latent diffusion in the folders of diffusers (`unet`, `vae`, `scheduler`), as one decoder of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError, nearest
from chiasm.interop.config import plain
from chiasm.interop.family import Folder
from chiasm.interop.mapping import Rule

NETWORKS = {"unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}
SCHEDULERS = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "EulerDiscreteScheduler": "euler",
    "PNDMScheduler": "pndm",
}
# Written by other schedulers of diffusers into a file that Euler's reads, and passes over.
NOT_OF_EULER = ("clip_sample", "clip_sample_range", "sample_max_value", "set_alpha_to_one", "skip_prk_steps")


def read_networks(
    folder: Folder, place: Path, networks: Sequence[str] = ("unet", "vae")
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All configs at a place of the folder, and the tensors of some networks as `unet/NAME` and `vae/NAME`.

    Raises CheckpointError naming what is missing.
    """
    missing = [f"{name}/{file}" for name, file in NETWORKS.items() if not (place / name / file).is_file()]
    if missing:
        raise CheckpointError(f"{place} lacks {', '.join(missing)} of its diffusion model")
    beside = Folder(place, averaged=folder.averaged)
    configs = {name: beside.json(f"{name}/{file}") for name, file in NETWORKS.items()}
    tensors = {
        f"{name}/{key}": tensor for name in networks for key, tensor in folder.read(place / name).items()
    }
    return configs, tensors


def network_parts(
    config: Mapping[str, Any], size: int, scheduler: str = "EulerDiscreteScheduler"
) -> dict[str, Any]:
    """Options of the image decoder 'diffusion' for the configs of the networks.

    size: of the images in pixels. scheduler: the class that the original reads the scheduler's file with.
    """
    if scheduler not in SCHEDULERS:
        raise CheckpointError(f"there is no scheduler {scheduler!r}{nearest(scheduler, SCHEDULERS)}")
    passed_over = NOT_OF_EULER if SCHEDULERS[scheduler] == "euler" else ()
    options = {name: _own(config[name]) for name in NETWORKS}
    return {
        "autoencoder": {"type": "vae", "size": size, "config": options["vae"]},
        "denoiser": {"type": "unet", "config": options["unet"]},
        "scheduler": {
            "type": SCHEDULERS[scheduler],
            "config": {key: value for key, value in options["scheduler"].items() if key not in passed_over},
        },
    }


def image_size(config: Mapping[str, Any]) -> int:
    """Pixels along the side of the images that a network was made for."""
    blocks = len(config["vae"]["block_out_channels"])
    return int(config["unet"]["sample_size"]) * 2 ** (blocks - 1)


def network_rules(unet: str, vae: str) -> list[Rule]:
    """Rules for the networks' tensors, whose names begin with `unet` and `vae`."""
    ours = {unet: "denoiser", vae: "autoencoder"}
    return [
        Rule(f"{theirs}{{rest...}}", f"image_decoder.denoising.{part}.inner.{{rest...}}")
        for theirs, part in ours.items()
    ]


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what diffusers notes about itself."""
    return {key: value for key, value in plain(config).items() if not key.startswith("_")}
