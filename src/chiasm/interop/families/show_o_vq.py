"""Show-o's image tokenizer, showlab/magvitv2 (arXiv 2408.12528)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.interop.config import reader
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import channels_first, signed, unsigned
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays


class ShowOTokenizer(Family, name="show-o-vq"):
    """The original has no options: the config is empty, or holds the arguments of its encoder and decoder."""

    looks_for = "config.json with _class_name MAGVITv2"
    without_effect: ClassVar = {
        "_class_name": "read by `recognises`",
        "_diffusers_version": "where the config came from",
        "_version": "where the config came from",
        "dropout": "in training only",
        "num_codebook_entry": "the original does not read it",
        "res": "the size of a case's image",
    }

    def recognises(self, folder: Folder) -> bool:
        return str(folder.config.get("_class_name", "")).lower() == "magvitv2"

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        for key in ("in_ch", "out_ch"):
            config.only(key, 3)
        config.only("double_z", False)
        bits = config.get("z", config.get("z_channels", 13))
        config.only("codebook_dim", bits)
        spec = {
            "type": "vqgan",
            "size": config.get("resolution", 256),
            "width": config.get("ch", 128),
            "multipliers": list(config.get("ch_mult", (1, 2, 2, 4, 4))),
            "decoder_multipliers": list(config.get("dec_mult", (1, 1, 2, 2, 4))),
            "depth": list(config.get("enc_blocks", (4, 3, 4, 3, 4))),
            "decoder_depths": list(config.get("dec_blocks", (4, 4, 3, 4, 3))),
            "attention_sizes": list(config.get("attn_resolutions", (5,))),
            "latent_width": bits,
            "quantizer": {
                "type": "lfq_bitwise",
                "bits": bits,
                "commitment": config.get("commit_loss_multiplier", 0.1),
                "entropy": config.get("entropy_multiplier", 0.1),
                "repeated": config.get("beta", 0.25),
            },
        }
        return {"image_tokenizer": spec}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        return NameMap(
            Unused("quantize.embedding"),  # all codes written out
            Unused("quantize.power_vals"),
            Rule("encoder.quant_conv.{w}", "image_tokenizer.quant_conv.{w}"),
            Rule("decoder.post_quant_conv.{w}", "image_tokenizer.post_quant_conv.{w}"),
            Rule("{rest...}", "image_tokenizer.{rest...}"),
        )


@replays("show_o", "MAGVITv2")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The picture through bits, and the quantizer's losses."""
    tokenizer = load(find_family("show-o-vq"), Original(case.config, case.tensors)).model["image_tokenizer"]
    latents = tokenizer.latents(unsigned(case.inputs["img"]))
    quantized = tokenizer.quantize(latents)
    losses = {name: each.weight * each.mean for name, each in quantized.losses.items()}
    return {
        "z": channels_first(latents),
        "quant": channels_first(quantized.vectors),
        "indices": quantized.codes.flatten(1),
        "quantizer_loss": losses["commitment"],
        "entropy_loss": losses["entropy"],
        "rec": signed(tokenizer.render(quantized.vectors)),
    }
