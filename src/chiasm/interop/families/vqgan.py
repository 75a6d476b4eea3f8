"""taming-transformers' VQGAN (arXiv 2012.09841), with nearest or Gumbel codes; Chameleon's too (2405.09818)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from einops import rearrange
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import Config, reader
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.lightning import read_state_dict
from chiasm.storage.weights import find_file
from chiasm.tokenizers.autoencoder import QuantizedAutoencoder

# What the layout has no word for.
PLAIN = {
    "decoder_width": 0,
    "decoder_multipliers": [],
    "decoder_depths": [],
    "decoder_middle": 0,
    "decoder_attention_sizes": None,
    "kernel": 1,
    "signed": True,
}
TARGETS = ("taming.models.vqgan.VQModel", "taming.models.vqgan.GumbelVQ", "chameleon.inference.vqgan.VQModel")


class Vqgan(Family, name="vqgan"):
    """A .ckpt beside the YAML of its training; the config here is that YAML's `model.params` and its `target`."""

    looks_for = (
        f"a .yaml with model.params.ddconfig and model.target {' or '.join(TARGETS)}, or none, and one .ckpt"
    )

    without_effect: ClassVar = {
        "target": "read by `recognises`",
        "ddconfig.dropout": "in training only",
        "lossconfig": "the critics of its training",
        "temperature_scheduler_config": "in training only",
        "learning_rate": "in training only",
        "ckpt_path": "where training began",
        "ignore_keys": "where training began",
        "image_key": "the name of a column of its data",
        "colorize_nlabels": "colours for the pictures of its log",
        "monitor": "what its trainer watched",
        "unknown_index": "of codes that are numbered anew, which are refused",
        "sane_index_shape": "the form in which codes are returned",
        "res": "the size of a case's image",
    }

    def recognises(self, folder: Folder) -> bool:
        return _section(folder) is not None

    def read(self, folder: Folder) -> Original:
        section = _section(folder) or {}
        file = find_file(folder.path, ".ckpt")
        target = {"target": section["target"]} if "target" in section else {}
        return Original({**section["params"], **target}, read_state_dict(file))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        structure = config["ddconfig"]
        structure.only("double_z", False, None)
        for key, channels in (("in_channels", 3), ("out_ch", 3)):
            structure.only(key, channels)
        for key in ("use_linear_attn", "use_timestep", "tanh_out", "give_pre_end"):
            structure.only(key, False)
        config.only("remap", None)  # codes that are numbered anew
        attends = structure.only("attn_type", "vanilla", "none") != "none"
        attention_sizes = list(structure["attn_resolutions"])
        spec = {
            "size": structure["resolution"],
            "width": structure["ch"],
            "multipliers": list(structure.get("ch_mult", (1, 2, 4, 8))),
            "depth": structure["num_res_blocks"],
            "attention_sizes": attention_sizes if attends else [],
            "latent_width": structure["z_channels"],
            "convolved": structure.get("resamp_with_conv", True),
        }
        codes = {"codebook_size": config["n_embed"], "width": config["embed_dim"]}
        if not _is_gumbel(config, keys):
            codes = {"type": "nearest", **codes, **_weights(config)}
            spec |= {"middle_attention": attends, "quantizer": codes}
            return {"image_tokenizer": {"type": "vqgan", **spec}}
        if config["embed_dim"] != structure["z_channels"]:
            raise CheckpointError(
                f"GumbelVQ needs embed_dim {config['embed_dim']} to be z_channels {structure['z_channels']}"
            )
        structure.only("attn_type", "vanilla")
        config.only("straight_through", True)
        codes |= {"kl": config.get("kl_weight", 1e-8), "temperature": config.get("temp_init", 1.0)}
        return {"image_tokenizer": {"type": "vqgan", **spec, "quantizer": {"type": "gumbel", **codes}}}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        critics, colours = Unused("loss.{rest...}"), Unused("colorize")
        return NameMap(critics, colours, Rule("{rest...}", "image_tokenizer.{rest...}"))

    def config(self, model: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        spec = model.get("image_tokenizer", {})
        codes = spec.get("quantizer", {})
        if spec.get("type") != "vqgan" or codes.get("type") not in ("nearest", "gumbel"):
            raise CheckpointError(
                "'vqgan' needs an image tokenizer 'vqgan' with the quantizer 'nearest' or 'gumbel', not "
                f"{spec.get('type')!r} with {codes.get('type')!r}"
            )
        gumbel = codes["type"] == "gumbel"
        for option, value in (PLAIN | ({} if gumbel else {"quantizer.entropy": 0.0})).items():
            place, _, key = option.rpartition(".")
            own = (codes if place else spec).get(key, value)
            if own != value:
                raise CheckpointError(
                    f"'vqgan' has no {option} but {value!r}; the image tokenizer's is {own!r}"
                )
        structure = {
            "double_z": False,
            "z_channels": spec["latent_width"],
            "resolution": spec["size"],
            "in_channels": 3,
            "out_ch": 3,
            "ch": spec["width"],
            "ch_mult": spec["multipliers"],
            "num_res_blocks": spec["depth"],
            "attn_resolutions": spec["attention_sizes"],
            "dropout": 0.0,
        }
        if not spec.get("middle_attention", True):
            structure["attn_type"] = "none"
        if not spec.get("convolved", True):
            structure["resamp_with_conv"] = False
        config = {"ddconfig": structure, "n_embed": codes["codebook_size"], "embed_dim": codes["width"]}
        return {**config, "target": TARGETS[gumbel], **({"kl_weight": codes["kl"]} if gumbel else {})}

    def write(self, original: Original, folder: Path) -> None:
        params = dict(original.config)
        target = {"target": params.pop("target")} if "target" in params else {}
        section = {"model": {**target, "params": params}}
        (folder / "model.yaml").write_text(yaml.safe_dump(section, sort_keys=False), encoding="utf-8")
        torch.save({"state_dict": original.tensors}, folder / "last.ckpt")


def _section(folder: Folder) -> dict[str, Any] | None:
    for content in folder.yamls.values():
        section = content.get("model") if isinstance(content, dict) else None
        if not isinstance(section, dict) or "ddconfig" not in (section.get("params") or {}):
            continue
        if section.get("target", TARGETS[0]) in TARGETS:  # Chameleon's names none
            return section
    return None


def _is_gumbel(config: Mapping[str, Any], keys: Collection[str]) -> bool:
    return config.get("target") == TARGETS[1] or "kl_weight" in config or "quantize.proj.weight" in keys


def _weights(config: Config) -> dict[str, float]:
    """Of the quantizer's two losses: by default beta stands with the one it was not meant for."""
    beta = config.get("beta", 0.25)
    if config.get("legacy", True):
        return {"codebook_weight": beta, "commitment": 1.0}
    return {"codebook_weight": 1.0, "commitment": beta}


def signed(pixels: Tensor) -> Tensor:
    """Ours in [0, 1] to the original's in [-1, 1]."""
    return 2 * pixels - 1


def unsigned(pixels: Tensor) -> Tensor:
    return (pixels + 1) / 2


def channels_first(grid: Tensor) -> Tensor:
    return rearrange(grid, "n h w c -> n c h w")


def replay_nearest(tokenizer: QuantizedAutoencoder, case: Case) -> dict[str, Tensor]:
    """What VQGANs with a codebook put out: latents, codes, the picture, and the picture of the codes alone."""
    latents = tokenizer.latents(unsigned(case.inputs["img"]))
    quantized = tokenizer.quantize(latents)
    from_codes = tokenizer.quantize.vectors(quantized.codes)
    return {
        "z": channels_first(latents),
        "quant": channels_first(quantized.vectors),
        "indices": quantized.codes.view(case.outputs["indices"].shape),
        "emb_loss": torch.stack([each.weight * each.mean for each in quantized.losses.values()]).sum(),
        "rec": signed(tokenizer.render(quantized.vectors)),
        "rec_from_code": signed(tokenizer.render(from_codes)),
    }


@replays("taming_vqgan", "VQModel")
@replays("chameleon", "VQModel")
@torch.no_grad()
def replay_vqgan(case: Case) -> dict[str, Tensor]:
    """The picture through nearest codes, and its loss."""
    model = load(find_family("vqgan"), Original(case.config, case.tensors)).model
    return replay_nearest(model["image_tokenizer"], case)


@replays("taming_vqgan", "GumbelVQ")
@torch.no_grad()
def replay_gumbel(case: Case) -> dict[str, Tensor]:
    """The picture through codes drawn with the case's noise."""
    tokenizer = load(find_family("vqgan"), Original(case.config, case.tensors)).model["image_tokenizer"]
    latents = tokenizer.latents(unsigned(case.inputs["img"]))
    noise = rearrange(case.inputs["gumbels"], "n k h w -> n h w k")
    quantized = tokenizer.quantize.draw(latents, noise)
    divergence = quantized.losses["divergence"]
    return {
        "z": channels_first(latents),
        "logits": channels_first(tokenizer.quantize.logits(latents)),
        "quant": channels_first(quantized.vectors),
        "kl": divergence.weight * divergence.mean,
        "indices": quantized.codes.view(case.outputs["indices"].shape),
        "rec": signed(tokenizer.render(quantized.vectors)),
    }
