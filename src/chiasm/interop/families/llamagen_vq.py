"""LlamaGen's image tokenizer (arXiv 2406.06525)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from chiasm import parts
from chiasm.errors import CheckpointError
from chiasm.interop.config import reader
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import channels_first, replay_nearest
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import load_case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.lightning import read_arguments, read_wrapped, wrapped_as
from chiasm.storage.weights import find_named

MIDDLE = ("block_1", "attn_1", "block_2")
WRAPPERS = ("ema", "model", "state_dict")  # in the order in which the original's evaluation looks for them
# Arguments of its training that tensors do not tell, and what its constructor calls them.
ARGUMENTS = {
    "codebook_l2_norm": "codebook_l2_norm",
    "commit_loss_beta": "commit_loss_beta",
    "entropy_loss_ratio": "entropy_loss_ratio",
    "dropout_p": "dropout_p",
    "image_size": "res",
}
MULTIPLIERS = (1, 1, 2, 2, 4)
SIZE = 256  # of the released checkpoints' training; any multiple of the downsampling works


class LlamaGenTokenizer(Family, name="llamagen-vq"):
    """One .pt file without a config: the structure is read from the tensors, and from the arguments of its training
    where the file has them. Where it has a moving average of the weights, that is taken, as in the original's
    evaluation.
    """

    looks_for = "one vq_ds*.pt and no transformer (c2i_*.pt, t2i_*.pt)"
    without_effect: ClassVar = {
        "codebook_show_usage": "a record of the last codes, for the progress line",
        "dropout_p": "in training only",
    }

    def recognises(self, folder: Folder) -> bool:
        transformers = [*folder.path.glob("c2i_*.pt"), *folder.path.glob("t2i_*.pt")]
        return len(list(folder.path.glob("vq_ds*.pt"))) == 1 and not transformers

    def read(self, folder: Folder) -> Original:
        file = folder.path if folder.path.is_file() else find_named(folder.path, "vq_ds*.pt")
        wrapper = wrapped_as(file, *WRAPPERS)
        tensors = read_wrapped(file, *WRAPPERS)
        arguments = {ARGUMENTS[k]: v for k, v in read_arguments(file, "args").items() if k in ARGUMENTS}
        try:
            width = len(tensors["encoder.conv_in.weight"])
            levels = {int(key.split(".")[2]) for key in tensors if key.startswith("encoder.conv_blocks.")}
            downwards, upwards = (
                [
                    len(tensors[f"{side}coder.conv_blocks.{n}.res.0.conv1.weight"]) // width
                    for n in sorted(levels)
                ]
                for side in ("en", "de")
            )
            size, code_width = tensors["quantize.embedding.weight"].shape
            latent_width = tensors["quant_conv.weight"].shape[1]
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{folder.path} is not LlamaGen's tokenizer: it lacks {error}") from None
        config = {
            **arguments,
            **({"weights": wrapper} if wrapper else {}),
            "codebook_size": size,
            "codebook_embed_dim": code_width,
            "z_channels": latent_width,
            "encoder_ch_mult": downwards,
            "decoder_ch_mult": upwards[::-1],  # the decoder's levels are counted from the lowest
            "ch": width,
        }
        return Original(config, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        multipliers = list(config.get("encoder_ch_mult", MULTIPLIERS))
        upwards = list(config.get("decoder_ch_mult", MULTIPLIERS))
        size = config.get("res", SIZE)
        lowest = size // 2 ** (len(multipliers) - 1)
        spec = {
            "type": "vqgan",
            "size": size,
            "width": config.get("ch", 128),
            "multipliers": multipliers,
            "decoder_multipliers": [] if upwards == multipliers else upwards,
            "latent_width": config.get("z_channels", 256),
            "attention_sizes": [lowest],
        }
        codes = {
            "width": config.get("codebook_embed_dim", 8),
            "codebook_size": config.get("codebook_size", 16384),
            "commitment": config.get("commit_loss_beta", 0.25),
            "entropy": config.get("entropy_loss_ratio", 0.0),
        }
        if config.get("codebook_l2_norm", True):
            squared = {"absolute": 0.0, "squared": 1.0}
            return {"image_tokenizer": {**spec, **squared, "quantizer": {"type": "cosine", **codes}}}
        # Codes without a fixed length: taming's tokenizer, with the weight on the other loss.
        return {
            "image_tokenizer": {**spec, "quantizer": {"type": "nearest", **codes, "codebook_weight": 1.0}}
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        levels = len(config.get("encoder_ch_mult", MULTIPLIERS))
        rules = []
        for level in range(levels):  # the original counts the decoder's from the lowest
            for side, theirs, ours in (
                ("encoder", level, f"down.{level}"),
                ("decoder", levels - 1 - level, f"up.{level}"),
            ):
                blocks, stage = f"{side}.conv_blocks.{theirs}", f"image_tokenizer.{side}.{ours}"
                rules.append(Rule(f"{blocks}.res.{{rest...}}", f"{stage}.block.{{rest...}}"))
                rules.append(Rule(f"{blocks}.{{rest...}}", f"{stage}.{{rest...}}"))
        for side in ("encoder", "decoder"):
            for i, name in enumerate(MIDDLE):
                rules.append(
                    Rule(f"{side}.mid.{i}.{{rest...}}", f"image_tokenizer.{side}.mid.{name}.{{rest...}}")
                )
        used = Unused("quantize.codebook_used")  # a record of the last codes, for the progress line
        return NameMap(used, *rules, Rule("{rest...}", "image_tokenizer.{rest...}"))

    def write(self, original: Original, folder: Path) -> None:
        factor = 2 ** (len(original.config.get("encoder_ch_mult", MULTIPLIERS)) - 1)
        torch.save({original.config.get("weights", "model"): original.tensors}, folder / f"vq_ds{factor}.pt")

    def remark(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> str:
        return "the moving average of its weights" if config.get("weights") == "ema" else ""


@replays("llamagen", "VQModel")
@torch.no_grad()
def replay_tokenizer(case: Case) -> dict[str, Tensor]:
    """The picture through codes of length 1."""
    model = load(find_family("llamagen-vq"), Original(case.config, case.tensors)).model
    return replay_nearest(model["image_tokenizer"], case)


@replays("llamagen", "VectorQuantizer")
def replay_losses(case: Case) -> dict[str, Tensor]:
    """The quantizer alone: its three losses and the gradients of their sum with that of the codes' vectors."""
    plan = find_family("llamagen-vq").plan(case.config, case.tensors.keys(), case.name)
    quantizer = parts.build("image_tokenizer", plan.model["image_tokenizer"]).quantize
    load_case(quantizer, case, plan.names, "image_tokenizer.quantize.")
    latents = rearrange(case.inputs["z"], "n c h w -> n h w c").clone().requires_grad_()
    quantized = quantizer.train()(latents)
    losses = {name: each.weight * each.mean for name, each in quantized.losses.items()}
    vectors = channels_first(quantized.vectors)
    (sum(losses.values()) + (vectors * case.inputs["r"]).sum()).backward()
    assert latents.grad is not None
    return {
        "vq_loss": losses["codebook"],
        "commit_loss": losses["commitment"],
        "entropy_loss": losses.get("entropy", torch.tensor(0.0)),
        "indices": quantized.codes.view(case.outputs["indices"].shape),
        "quant": vectors,
        "grad_z": channels_first(latents.grad),
        "grad_codebook": quantizer.embedding.weight.grad,
    }
