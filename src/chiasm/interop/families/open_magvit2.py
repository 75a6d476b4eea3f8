"""Open-MAGVIT2's tokenizers of pictures and moving pictures (arXiv 2409.04410)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from einops import rearrange
from torch import Tensor

from chiasm.interop.config import reader
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import channels_first, signed, unsigned
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.lightning import read_state_dict
from chiasm.storage.weights import find_file
from chiasm.tokenizers.lookup_free import split_code
from chiasm.tokenizers.quantizers.lfq import LookupFree

IMAGE, VIDEO = ".lfqgan.VQModel", ".video_lfqgan.VQModel"
CLASSES = (IMAGE, VIDEO, ".lfqgan_pretrain.VQModel")
TRAINING = (
    *("lossconfig", "learning_rate", "min_learning_rate", "resume_lr", "lr_drop_epoch", "lr_drop_iter"),
    *("lr_drop_rate", "warmup_epochs", "scheduler_type", "sche_type", "use_shared_epoch"),
    *("max_iter", "wp", "wp0", "wpe", "wp_iter"),
)
SMOOTHED = "model_ema."


class OpenMagvit2Tokenizer(Family, name="open-magvit2-vq"):
    """A .ckpt beside the YAML of its training; the config is that YAML's `model.init_args`.

    Where the original keeps moving averages of its weights (`use_ema`, the default of its video tokenizer and
    pretraining) and the checkpoint has them, these are the weights, as in the original's evaluation; the raw ones
    are kept aside.
    """

    looks_for = (
        f"a .yaml with model.class_path {' or '.join('...' + name for name in CLASSES)}, and one .ckpt"
    )
    without_effect: ClassVar = {
        "class_path": "read by `recognises`",
        "embed_dim": "the original's quantizer goes by n_embed alone",
        "ddconfig.double_z": "the original does not read it",
        "token_factorization": "a code's number is split in two by the head that writes it",
        "factorized_bits": "a code's number is split in two by the head that writes it",
        "T": "the length of a case's video",
        "B": "the number of a case's videos",
        "ckpt_path": "where training began",
        "ignore_keys": "where training began",
        "image_pretrain_path": "where training began",
        "stage": "which weights a later training asks for",
        "image_key": "the name of a column of its data",
        "colorize_nlabels": "colours for the pictures of its log",
        "monitor": "what its trainer watched",
        **dict.fromkeys(TRAINING, "in training only"),
    }

    def recognises(self, folder: Folder) -> bool:
        return _model_yaml(folder) is not None

    def read(self, folder: Folder) -> Original:
        content = _model_yaml(folder) or {}
        section = content["model"]
        size = _data_size(content.get("data"))
        config = {
            **section.get("init_args", {}),
            "class_path": section["class_path"],
            **({"res": size} if size else {}),
        }
        return Original(config, read_state_dict(find_file(folder.path, ".ckpt")))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        structure = config["ddconfig"]
        for key in ("in_channels", "out_ch"):
            structure.only(key, 3)
        bits = structure["z_channels"]
        config.only("n_embed", 2**bits)
        spec = {
            "type": "open_magvit2_video" if _moves(config) else "open_magvit2",
            "size": config.get("res", structure.get("resolution", 128)),
            "width": structure["ch"],
            "multipliers": list(structure.get("ch_mult", (1, 2, 2, 4))),
            "depth": structure["num_res_blocks"],
            "quantizer": {
                "type": "lfq",
                "bits": bits,
                "sure": config.get("sample_minimization_weight", 1.0),
                "even": config.get("batch_maximization_weight", 1.0),
            },
        }
        structure.get("resolution")  # the original does not read it; it stands in for `res`
        return {"image_tokenizer": spec}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        plain = [key for key in keys if key.startswith(("encoder.", "decoder."))]
        entries: list[Rule | Unused] = [Unused("loss.{rest...}"), Unused("colorize")]
        averaged = _averaged(config, keys)
        for key in plain:
            smoothed = SMOOTHED + key.replace(".", "")
            ours = "image_tokenizer." + key.replace(".conv_1.", ".")
            entries += (
                [Rule(smoothed, ours), Unused(key)] if averaged else [Rule(key, ours), Unused(smoothed)]
            )
        return NameMap(*entries, Unused(SMOOTHED + "decay"), Unused(SMOOTHED + "num_updates"))

    def remark(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> str:
        if _averaged(config, keys):
            return "the moving average of its weights (use_ema), as the original evaluates it"
        return "the raw weights"

    def write(self, original: Original, folder: Path) -> None:
        if not any(folder.glob("*.yaml")):
            args = dict(original.config)
            section = {"model": {"class_path": args.pop("class_path"), "init_args": args}}
            (folder / "model.yaml").write_text(yaml.safe_dump(section, sort_keys=False), encoding="utf-8")
        torch.save({"state_dict": original.tensors}, folder / "last.ckpt")


def _model_yaml(folder: Folder) -> dict[str, Any] | None:
    for content in folder.yamls.values():
        section = content.get("model") if isinstance(content, dict) else None
        if isinstance(section, dict) and ("." + str(section.get("class_path", ""))).endswith(CLASSES):
            return content
    return None


def _averaged(config: Mapping[str, Any], keys: Collection[str]) -> bool:
    """Whether the weights are the moving averages: the original keeps some, and the checkpoint has them."""
    keeps = config.get("use_ema", not _class(config).endswith(IMAGE) or _moves(config))
    return bool(keeps) and any(key.startswith(SMOOTHED + "encoder") for key in keys)


def _moves(config: Mapping[str, Any]) -> bool:
    return bool(config.get("video", _class(config).endswith(VIDEO)))


def _class(config: Mapping[str, Any]) -> str:
    return "." + str(config.get("class_path", IMAGE))


def _data_size(content: Any) -> int | None:
    """The side of the pictures it was trained on, wherever the data section has it."""
    if not isinstance(content, Mapping):
        return None
    if isinstance(content.get("size"), int):
        return content["size"]
    return next((size for each in content.values() if (size := _data_size(each))), None)


@replays("open_magvit2", "VQModel (lightning")
@torch.no_grad()
def replay_image(case: Case) -> dict[str, Tensor]:
    """The picture through signs, with the raw weights and with their moving averages."""
    outputs: dict[str, Tensor] = {}
    for suffix, tokenizer in _tokenizers(case).items():
        latents = tokenizer.latents(unsigned(case.inputs["img"]))
        codes = tokenizer.quantize.encode(latents)
        vectors = tokenizer.quantize.vectors(codes)
        named = {
            "z": channels_first(latents),
            "quant": channels_first(vectors),
            "indices": codes.flatten(),
            "rec": signed(tokenizer.render(vectors)),
        }
        named |= _factors(codes, case.config)
        outputs |= {name + suffix: tensor for name, tensor in named.items()}
    return outputs


@replays("open_magvit2", "VQModel (video)")
@torch.no_grad()
def replay_video(case: Case) -> dict[str, Tensor]:
    """The moving picture through signs, with the raw weights and with their moving averages."""
    outputs: dict[str, Tensor] = {}
    for suffix, tokenizer in _tokenizers(case).items():
        latents = tokenizer.video_latents(rearrange(unsigned(case.inputs["img"]), "n c t h w -> n t c h w"))
        codes = tokenizer.quantize.encode(latents)
        vectors = tokenizer.quantize.vectors(codes)
        named = {
            "z": rearrange(latents, "n t h w c -> n c t h w"),
            "quant": rearrange(vectors, "n t h w c -> n c t h w"),
            "indices": codes.flatten(),
            "rec": signed(rearrange(tokenizer.render_video(vectors), "n t c h w -> n c t h w")),
        }
        named |= _factors(codes, case.config)
        outputs |= {name + suffix: tensor for name, tensor in named.items()}
    return outputs


def _tokenizers(case: Case) -> dict[str, Any]:
    """By the suffix of their outputs: the raw weights, and, where the case has them, their moving averages."""
    layout = find_family("open-magvit2-vq")
    averages = any(key.startswith(SMOOTHED) for key in case.tensors)
    return {
        "_ema" if averaged else "": load(
            layout, Original({**case.config, "use_ema": averaged}, case.tensors)
        ).model["image_tokenizer"]
        for averaged in ((False, True) if averages else (False,))
    }


def _factors(codes: Tensor, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The two numbers that a code is split into, the low bits first."""
    if not config.get("token_factorization", config.get("tf")):
        return {}
    low, high = split_code(codes.flatten(), config.get("factorized_bits", (9, 9)))
    return {"idx_pre": low, "idx_post": high, "indices_pre": low, "indices_post": high}


LFQ = {"codebook_size": "2 to the number of bits, which the channels say"}


@replays("open_magvit2", "LFQ", without_effect=LFQ)
def replay_losses(case: Case) -> dict[str, Tensor]:
    """The quantizer alone, and the gradient of its losses with that of the codes' vectors.

    Several codebooks are groups of channels, each quantized by itself.
    """
    config = case.config
    books, channels = config.get("num_codebooks", 1), case.inputs["z"].shape[1]
    config.get("dim")  # the original does not go by it
    quantizer = LookupFree(
        bits=channels // books,
        commitment=0.25,
        entropy=1.0,
        sure=config.get("smw", config.get("sample_minimization_weight", 1.0)),
        even=config.get("bmw", config.get("batch_maximization_weight", 1.0)),
    )
    z = case.inputs["z"].clone().requires_grad_()
    latents = rearrange(z, "n (b c) ... -> n ... b c", b=books)
    quantized = quantizer(latents)
    losses = {name: each.weight * each.mean for name, each in quantized.losses.items()}
    vectors = rearrange(quantized.vectors, "n ... b c -> n (b c) ...")
    (sum(losses.values()) + (vectors * case.inputs["r"]).sum()).backward()
    single, mean = quantizer.entropies(latents.flatten(0, -2))
    assert z.grad is not None
    entry = rearrange(quantizer.vectors(quantized.codes), "n ... b c -> n (b c) ...")
    factors = _factors(quantized.codes, config)
    halves = config.get("factorized_bits", (9, 9)) if factors else ()
    entries = dict(
        zip(("entry_pre", "entry_post"), entry.split(tuple(halves), 1) if halves else (), strict=False)
    )
    return {
        "quant": vectors,
        "entropy_aux_loss": losses["entropy"],
        "per_sample_entropy": single.mean(),
        "codebook_entropy": mean,
        "commitment": quantized.losses["commitment"].mean,
        "grad_z": z.grad,
        "indices": quantized.codes.flatten(),
        "entry": entry,
        **factors,
        **entries,
    }
