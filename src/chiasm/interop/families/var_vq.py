"""VAR's multi-scale tokenizer (arXiv 2404.02905)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import channels_first, signed, unsigned
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Split, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays
from chiasm.nn.losses import objective
from chiasm.tokenizers import split_scales
from chiasm.tokenizers.multi_scale import MultiScale

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # of 256 pixels; at 512 the same tensors serve other scales


class VarTokenizer(Family, name="var-vq"):
    """One vae_ch*.pth without a config: the structure is read from the tensors."""

    looks_for = "one vae_ch*.pth"
    without_effect: ClassVar = {
        "dropout": "in training only",
        "test_mode": "whether its weights are frozen",
        "res": "the size of a case's image, which the scales say too",
    }

    def recognises(self, folder: Folder) -> bool:
        return len(list(folder.path.glob("vae_ch*.pth"))) == 1 and not any(folder.path.glob("var_*.pth"))

    def read(self, folder: Folder) -> Original:
        return Original(structure(folder.tensors, str(folder.path)), folder.tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        return {"image_tokenizer": part(config)}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        return NameMap(*rules(config))

    def write(self, original: Original, folder: Path) -> None:
        config = original.config
        name = f"vae_ch{config['ch']}v{config['vocab_size']}z{config['z_channels']}.pth"
        torch.save(original.tensors, folder / name)


def structure(tensors: Mapping[str, Tensor], where: str, scales: Sequence[int] = SCALES) -> dict[str, Any]:
    """The original's arguments, as far as tensors tell them; `scales` they tell only by their number."""
    try:
        size, width = tensors["quantize.embedding.weight"].shape
        count = len(tensors["quantize.ema_vocab_hit_SV"])
        channels = len(tensors["encoder.conv_in.weight"])
        kernel = tensors["quant_conv.weight"].shape[-1]
    except KeyError as error:
        raise CheckpointError(f"{where} is not VAR's tokenizer: it lacks {error}") from None
    if count != len(scales):
        raise CheckpointError(f"{where} has {count} scales, not the {len(scales)} of {list(scales)}")
    smooth = {key.rpartition(".")[0] for key in tensors if key.startswith("quantize.quant_resi.")}
    shared = len(smooth) if any("qresi" in key for key in smooth) else 0
    return {
        "vocab_size": size,
        "z_channels": width,
        "ch": channels,
        "share_quant_resi": shared,
        "quant_conv_ks": kernel,
        "v_patch_nums": list(scales),
    }


def part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The image tokenizer's options."""
    blend = abs(config.get("quant_resi", 0.5))
    scales = list(config.get("v_patch_nums", SCALES))
    per_scale = config.get("default_qresi_counts", 0) or len(scales)
    return {
        "type": "multi_scale",
        "scales": scales,
        "width": config.get("ch", 128),
        "multipliers": list(config.get("ch_mult", (1, 1, 2, 2, 4))),
        "depth": config.get("num_res_blocks", 2),
        "code_width": config.get("z_channels", 32),
        "codebook_size": config.get("vocab_size", 4096),
        "convolutions": config.get("share_quant_resi", 4) or per_scale,
        "blend": blend if blend > 1e-6 else 0.0,
        "cosine": config.get("using_znorm", False),
        "kernel": config.get("quant_conv_ks", 3),
        "commitment": config.get("beta", 0.25),
    }


def rules(config: Mapping[str, Any], prefix: str = "") -> list[Rule | Unused]:
    """Names of the tokenizer's tensors; `prefix` stands before the original's."""
    options = part(config)
    lowest, ours = options["width"] * options["multipliers"][-1], "image_tokenizer."
    fused = tuple(f"{ours}{{place...}}.{name}.{{w}}" for name in "qkv")
    shared = config.get("share_quant_resi", 4)
    smooth = {0: "quant_resi.{n}", 1: "quant_resi.qresi"}.get(shared, "quant_resi.qresi_ls.{n}")
    n = "0" if shared == 1 else "{n}"
    return [
        Unused(f"{prefix}quantize.ema_vocab_hit_SV"),  # how often codes were used, for the progress line
        Rule(f"{prefix}quantize.{smooth}.{{w}}", f"{ours}quantize.smooth.{n}.{{w}}"),
        Rule(f"{prefix}{{place...}}.qkv.{{w}}", fused, Split((lowest,) * 3)),
        Rule(f"{prefix}{{rest...}}", f"{ours}{{rest...}}"),
    ]


@replays("var", "VQVAE")
@torch.no_grad()
def replay_tokenizer(case: Case) -> dict[str, Tensor]:
    """The picture to the codes of every scale, what they say, and back."""
    tokenizer = load(find_family("var-vq"), Original(case.config, case.tensors)).model["image_tokenizer"]
    pixels = unsigned(case.inputs["img"])
    latents = tokenizer.latents(pixels)
    codes = tokenizer.quantize.encode(latents)
    through = tokenizer.render(tokenizer.quantize(latents).vectors).clamp(0, 1)
    return _by_scale(tokenizer, codes) | {
        "f": channels_first(latents),
        "fhat_last": tokenizer.quantize.progress(codes)[-1],
        "var_input": tokenizer.quantize.next_inputs(codes),
        "rec": signed(through),
        "img_from_idx": signed(tokenizer.decode(codes)),
    }


@replays("var", "VQVAE.forward")
def replay_training(case: Case) -> dict[str, Tensor]:
    """One training step: its losses and their gradients."""
    original = Original(case.config, case.tensors)
    tokenizer = load(find_family("var-vq"), original).model["image_tokenizer"]
    pixels = unsigned(case.inputs["img"])
    latents = tokenizer.latents(pixels)
    latents.retain_grad()
    quantized = tokenizer.quantize(latents)
    reconstructed = tokenizer.render(quantized.vectors)
    losses = quantized.losses | {"reconstruction": tokenizer.reconstruction(reconstructed, pixels)}
    objective(losses).backward()
    assert latents.grad is not None
    gradients = {f"image_tokenizer.{name}": each.grad for name, each in tokenizer.named_parameters()}
    theirs = NameMap(*rules(case.config)).to_theirs(gradients, case.name)
    hits = case.tensors["quantize.ema_vocab_hit_SV"]
    margin = 0.08 * latents[..., 0].numel() / hits.shape[1]
    return {
        **_by_scale(tokenizer, quantized.codes),
        **{f"grad:{name}": gradient for name, gradient in theirs.items()},
        "f": channels_first(latents),
        "f_hat_st": channels_first(quantized.vectors),
        "vq_loss": objective(quantized.losses),
        "rec": signed(reconstructed),
        "loss": objective(losses),
        "grad_f": channels_first(latents.grad),
        "usages": 100 * (hits >= margin).float().mean(1),
    }


def _by_scale(tokenizer: MultiScale, codes: Tensor) -> dict[str, Tensor]:
    parts = split_scales(codes, tokenizer.scales)
    return {f"idx_{i}": each.flatten(1) for i, each in enumerate(parts)}
