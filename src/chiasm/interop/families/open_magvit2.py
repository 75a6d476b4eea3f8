"""Open-MAGVIT2's tokenizers of pictures and moving pictures (arXiv 2409.04410)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from einops import rearrange
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.cases import Case
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import channels_first, signed, unsigned
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.lightning import read_state_dict
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.verify import replays
from chiasm.tokenizers.lookup_free import LookupFree, split_code
from chiasm.weights import find_file

IMAGE, VIDEO = "lfqgan.VQModel", "video_lfqgan.VQModel"
SMOOTHED = "model_ema."


class OpenMagvit2(Family, name="open-magvit2-vq"):
    """A .ckpt beside the YAML of its training; the config is that YAML's `model.init_args`.

    Where the checkpoint has moving averages of its weights (`use_ema`), these are the weights, as in the original's
    evaluation; the raw ones are kept aside.
    """

    looks_for = f"a .yaml with model.class_path ...{IMAGE} or ...{VIDEO}, and one .ckpt"

    def recognises(self, folder: Folder) -> bool:
        return _told(folder) is not None

    def read(self, folder: Folder) -> Original:
        content = _told(folder) or {}
        told = content["model"]
        size = _data_size(content.get("data"))
        config = {
            **told.get("init_args", {}),
            "class_path": told["class_path"],
            **({"res": size} if size else {}),
        }
        return Original(config, read_state_dict(find_file(folder.path, ".ckpt")))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        told = config["ddconfig"]
        if told.get("double_z") or (told.get("in_channels", 3), told.get("out_ch", 3)) != (3, 3):
            raise CheckpointError("ddconfig: only pictures of 3 channels without double_z are known")
        if not told["z_channels"] == config["embed_dim"] or config["n_embed"] != 2 ** config["embed_dim"]:
            raise CheckpointError(
                f"embed_dim {config['embed_dim']} must be z_channels {told['z_channels']} and the bits of "
                f"{config['n_embed']} codes"
            )
        spec = {
            "type": "lfq_video" if _moves(config) else "lfq",
            "size": config.get("res", told["resolution"]),
            "width": told["ch"],
            "multipliers": list(told["ch_mult"]),
            "depth": told["num_res_blocks"],
            "bits": config["embed_dim"],
            "sure": config.get("sample_minimization_weight", 1.0),
            "even": config.get("batch_maximization_weight", 1.0),
        }
        return {"image_tokenizer": spec}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        plain = [key for key in keys if key.startswith(("encoder.", "decoder."))]
        entries: list[Rule | Unused] = [Unused("loss.{rest...}")]
        for key in plain:
            smoothed = SMOOTHED + key.replace(".", "")
            ours = "image_tokenizer." + key.replace(".conv_1.", ".")
            if config.get("use_ema") and smoothed in keys:
                entries += [Rule(smoothed, ours), Unused(key)]
            else:
                entries += [Rule(key, ours), Unused(smoothed)]
        return NameMap(*entries, Unused(SMOOTHED + "decay"), Unused(SMOOTHED + "num_updates"))

    def write(self, original: Original, folder: Path) -> None:
        if not any(folder.glob("*.yaml")):
            args = dict(original.config)
            told = {"model": {"class_path": args.pop("class_path"), "init_args": args}}
            (folder / "model.yaml").write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
        torch.save({"state_dict": original.tensors}, folder / "last.ckpt")


def _told(folder: Folder) -> dict[str, Any] | None:
    for content in folder.yamls.values():
        told = content.get("model") if isinstance(content, dict) else None
        if isinstance(told, dict) and str(told.get("class_path", "")).endswith(IMAGE):
            return content
    return None


def _moves(config: Mapping[str, Any]) -> bool:
    return bool(config.get("video", str(config.get("class_path", "")).endswith(VIDEO)))


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
    layout = find_family("open-magvit2-vq")
    made: dict[str, Tensor] = {}
    for smoothed in {False, bool(case.config.get("use_ema"))}:
        config = {**case.config, "use_ema": smoothed}
        tokenizer = load(layout, Original(config, case.tensors)).model["image_tokenizer"]
        latents = tokenizer.latents(unsigned(case.inputs["img"]))
        codes = tokenizer.quantize.encode(latents)
        vectors = tokenizer.quantize.vectors(codes)
        found = {
            "z": channels_first(latents),
            "quant": channels_first(vectors),
            "indices": codes.flatten(),
            "rec": signed(tokenizer.render(vectors)),
        }
        if case.config.get("token_factorization"):
            parts = split_code(codes.flatten(), case.config["factorized_bits"])
            found |= {"idx_pre": parts[0], "idx_post": parts[1]}
        made |= {name + ("_ema" if smoothed else ""): tensor for name, tensor in found.items()}
    return made


@replays("open_magvit2", "VQModel (video)")
@torch.no_grad()
def replay_video(case: Case) -> dict[str, Tensor]:
    """The moving picture through signs."""
    tokenizer = load(find_family("open-magvit2-vq"), Original(case.config, case.tensors)).model[
        "image_tokenizer"
    ]
    latents = tokenizer.video_latents(rearrange(unsigned(case.inputs["img"]), "n c t h w -> n t c h w"))
    codes = tokenizer.quantize.encode(latents)
    vectors = tokenizer.quantize.vectors(codes)
    return {
        "z": rearrange(latents, "n t h w c -> n c t h w"),
        "quant": rearrange(vectors, "n t h w c -> n c t h w"),
        "indices": codes.flatten(),
        "rec": signed(rearrange(tokenizer.render_video(vectors), "n t c h w -> n c t h w")),
    }


@replays("open_magvit2", "LFQ")
def replay_losses(case: Case) -> dict[str, Tensor]:
    """The quantizer alone, and the gradient of its losses with that of the codes' vectors."""
    told = case.config
    quantizer = LookupFree(told["dim"], commitment=0.25, entropy=1.0, sure=told["smw"], even=told["bmw"])
    z = case.inputs["z"].clone().requires_grad_()
    latents = rearrange(z, "n c h w -> n h w c")
    quantized = quantizer(latents)
    losses = {name: each.weight * each.mean for name, each in quantized.losses.items()}
    vectors = channels_first(quantized.vectors)
    (sum(losses.values()) + (vectors * case.inputs["r"]).sum()).backward()
    single, mean = quantizer.entropies(latents.flatten(0, 2))
    assert z.grad is not None
    return {
        "quant": vectors,
        "entropy_aux_loss": losses["entropy"],
        "per_sample_entropy": single.mean(),
        "codebook_entropy": mean,
        "commitment": quantized.losses["commitment"].mean,
        "grad_z": z.grad,
        "indices": quantized.codes.flatten(),
        "entry": channels_first(quantizer.vectors(quantized.codes)),
    }
