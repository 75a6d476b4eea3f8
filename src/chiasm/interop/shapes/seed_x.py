"""SEED-X's parts from the arguments of their classes, and their tensors' rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import reader
from chiasm.interop.mapping import OwnTensors, Reshape, Rule, Split, Unused
from chiasm.interop.shapes import qwen_vl
from chiasm.interop.shapes.lavit import ratio

POOL = 4  # features of a strip, of which the target is the mean (`vit_down`)
# What the classes are published with and the tensors do not tell (configs/ of the original's repository).
VISUAL = {"image_size": 448, "heads": 16}
HEADS = 32  # of the resamplers
AGENT = {"vit_down": True, "mse": True}
ADAPTER = {"heads": 16, "dim_head": 64, "normalize": False, "vit_down": True}
RESAMPLER = {
    "heads": 16,
    "dim_head": 64,
    "normalize": True,
}  # what its class takes where arguments are left out
Rules = list[Rule | Unused | OwnTensors]


def visual_shape(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of the encoder that its tensors tell."""
    patches, out_width = tensors["conv1.weight"], tensors["proj"].shape[0]
    return {
        "patch_size": patches.shape[-1],
        "width": patches.shape[0],
        "layers": count(tensors, "transformer.resblocks."),
        "mlp_ratio": ratio(tensors["transformer.resblocks.0.mlp.c_fc.weight"]),
        "n_queries": len(tensors["attn_pool.query"]),
        "output_dim": out_width,
    }


def agent_shape(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Of the agent: its resamplers' sides, and whether tiles say where they lie."""
    sides = {
        name: {"grid_size": math.isqrt(len(tensors[f"{name}.query"]))}
        for name in ("input_resampler", "output_resampler")
    }
    return {**sides, "add_patch_pos": "patch_pos_embed" in tensors}


def adapter_shape(tensors: Mapping[str, Tensor], prefix: str = "resampler.") -> dict[str, Any]:
    """Of the adapter of the diffusion model; whether it changes an image shows in its first layer."""
    latents = tensors[prefix + "latents"]
    return {
        "dim": latents.shape[2],
        "depth": count(tensors, prefix + "layers."),
        "num_queries": latents.shape[1],
        "ff_mult": ratio(tensors[prefix + "layers.0.1.1.weight"]),
        "output1_dim": len(tensors[prefix + "unet_proj_1.weight"]),
        "output2_dim": len(tensors[prefix + "unet_proj_2.weight"]),
    }


def count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})


def tokenizer(visual: Mapping[str, Any]) -> dict[str, Any]:
    """The target of images: means of strips of four features, in raster order."""
    encoder = qwen_vl.encoder(visual)
    side = encoder["side"]
    if side % POOL:
        raise CheckpointError(
            f"n_queries makes {side} x {side} features, but the rows of the target are strips of {POOL}"
        )
    return {
        "type": "features",
        "encoder": encoder,
        "size": visual["image_size"],
        "grid": [side, side // POOL],
    }


def grey_target(tokenizer: Any) -> Tensor:
    """The target of an image of the encoder's mean colour, which guidance of the decoder leads away from."""
    encoder, size = tokenizer.encoder, tokenizer.size
    target: Tensor = tokenizer.encode(encoder.mean.expand(1, 3, size, size))[0]
    return target


def head(agent: Mapping[str, Any], words: list[int]) -> dict[str, Any]:
    """The image head: hidden states at the words of an image, through a resampler. words: their ids."""
    agent = reader(agent)
    agent.only("vit_down", True, default=False)
    resampler = agent["output_resampler"]
    side = math.isqrt(len(words))
    if side**2 != len(words):
        raise CheckpointError(f"an image has {len(words)} words, which are no square")
    return {
        "type": "queries",
        "grid": [side, side],
        "words": words,
        "causal": True,
        "alphabet": {
            "type": "regression",
            "loss": "mse" if agent.get("mse", False) else "cosine",
            "depth": 0,
        },
        "bridge": resampler_part(resampler),
    }


def resampler_part(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "grid_resampler", "side": config["grid_size"], "heads": config["num_heads"]}


def conditioner(adapter: Mapping[str, Any]) -> dict[str, Any]:
    """From the target to what SDXL's network is conditioned on."""
    adapter = reader(adapter)
    adapter.only("vit_down", True)
    width = adapter["dim"]
    return {
        "type": "perceiver",
        "latents": adapter["num_queries"],
        "depth": adapter["depth"],
        "width": width,
        "heads": adapter["heads"],
        "head_width": adapter["dim_head"],
        "hidden": int(width * adapter.get("ff_mult", 4)),
        "normalised": adapter.get("normalize", True),
    }


def agent_rules(widths: tuple[int, int], theirs: str) -> Rules:
    """widths: of the resamplers for reading and for drawing."""
    ours = ("connector.resampler.", "heads.image.bridge.resampler.")
    return [
        *[
            rule
            for name, width, own in zip(("input", "output"), widths, ours, strict=True)
            for rule in qwen_vl.resampler_rules(width, f"{theirs}{name}_resampler.", own)
        ],
        Rule(theirs + "patch_pos_embed", "views.location"),
    ]


def conditioner_rules(options: Mapping[str, Any], theirs: str, ours: str) -> Rules:
    """Rules for the adapter's resampler; options: of our conditioner. What guidance leads away from is our own."""
    inner = options["heads"] * options["head_width"]
    shape = (options["latents"], options["width"])
    block, own = theirs + "layers.{n}.", ours + "layers.{n}."
    pool = {"k_proj": "key", "q_proj": "query", "v_proj": "value", "c_proj": "out"}
    return [
        Rule(theirs + "latents", ours + "latents", Reshape((1, *shape), shape)),
        Rule(theirs + "proj_in.{p}", ours + "input.{p}"),
        Rule(theirs + "norm_out.{p}", ours + "norm.{p}"),
        Rule(theirs + "unet_proj_1.{p}", ours + "projections.0.{p}"),
        Rule(theirs + "unet_proj_2.{p}", ours + "projections.1.{p}"),
        Rule(theirs + "unet_attnpool.positional_embedding", ours + "pool.positions"),
        *[Rule(f"{theirs}unet_attnpool.{a}.{{p}}", f"{ours}pool.{b}.{{p}}") for a, b in pool.items()],
        Rule(block + "0.norm1.{p}", own + "feature_norm.{p}"),
        Rule(block + "0.norm2.{p}", own + "latent_norm.{p}"),
        Rule(block + "0.to_q.weight", own + "query.weight"),
        Rule(block + "0.to_kv.weight", (own + "key.weight", own + "value.weight"), Split((inner, inner))),
        Rule(block + "0.to_out.weight", own + "output.weight"),
        Rule(block + "1.{rest...}", own + "mlp.{rest...}"),
        OwnTensors(ours + "negative"),
    ]
