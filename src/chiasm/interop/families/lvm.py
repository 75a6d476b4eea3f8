"""LVM's image tokenizer, open-muse's VQGAN (arXiv 2312.00785)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.cases import Case
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import channels_first
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.verify import replays


class MuseVQGAN(Family, name="vqgan-muse"):
    """open-muse's layout: config.json beside the weights."""

    looks_for = "config.json with _class_name VQGANModel, or with quantized_embed_dim and hidden_channels"

    def recognises(self, folder: Folder) -> bool:
        return {"quantized_embed_dim", "hidden_channels"} <= folder.config.keys()

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        if not config.get("resample_with_conv", True) or config.get("num_channels", 3) != 3:
            raise CheckpointError("only pictures of 3 channels and resample_with_conv are known")
        spec = {
            "type": "vqgan_muse",
            "size": config.get("resolution", 256),
            "width": config.get("hidden_channels", 128),
            "multipliers": list(config.get("channel_mult", (1, 1, 2, 2, 4))),
            "depth": config.get("num_res_blocks", 2),
            "attention_sizes": _list(config.get("attn_resolutions", (16,))),
            "middle_attention": not config.get("no_attn_mid_block", False),
            "latent_width": config.get("z_channels", 256),
            "code_width": config.get("quantized_embed_dim", 256),
            "codebook_size": config.get("num_embeddings", 1024),
            "codebook_weight": config.get("commitment_cost", 0.25),
        }
        return {"image_tokenizer": spec}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        idle = [Unused("encoder.down.{level}.attn.{rest...}")] if config.get("num_res_blocks", 2) == 1 else []
        return NameMap(
            *idle,
            Unused("loss.{rest...}"),
            Rule("{rest...}", "image_tokenizer.{rest...}"),
        )


def _list(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value or ())


@replays("lvm", "VQGANModel (open-muse)")
@torch.no_grad()
def replay_tokenizer(case: Case) -> dict[str, Tensor]:
    """The picture through nearest codes, its loss, and how near all codes are."""
    tokenizer = load(find_family("vqgan-muse"), Original(case.config, case.tensors)).model["image_tokenizer"]
    pixels = case.inputs["img"]
    latents = tokenizer.latents(pixels)
    quantized = tokenizer.quantize(latents)
    codes = quantized.codes.flatten(1)
    squares = torch.cdist(latents.flatten(1, 2), tokenizer.quantize.embedding.weight).square()
    rows, places, _ = case.outputs["soft_code"].shape
    return {
        "z": channels_first(latents),
        "quant": channels_first(quantized.vectors),
        "indices": codes,
        "loss": torch.stack([each.weight * each.mean for each in quantized.losses.values()]).sum(),
        "rec": tokenizer.render(quantized.vectors),
        "code": tokenizer.quantize.encode(latents).flatten(1),
        "soft_code": (-squares).softmax(-1)[:rows, :places],
    }
