"""The replay of SEED-X's de-tokenizer: from features to latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.decoders.guidance import Guidance
from chiasm.decoders.schedulers.diffusers_schedulers import EULER
from chiasm.errors import CheckpointError
from chiasm.interop.convert import load_named
from chiasm.interop.families.vqgan import unsigned
from chiasm.interop.mapping import NameMap, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes import qwen_vl, seed_x
from chiasm.interop.shapes.diffusers_shape import added_shape, unet_shape, vae_shape
from chiasm.interop.shapes.latent_diffusion import network_parts, network_rules
from chiasm.nn.generators import Generators

HEADS, UNET_GROUPS, VAE_GROUPS, SCALING = 4, 16, 8, 0.13025  # of the cases' networks, which no shape tells


@replays("seed_x", "SDXLAdapter", without_effect={})
@torch.no_grad()
def replay_decoder(case: Case) -> dict[str, Tensor]:
    """From features to latents, with the case's own noise, and the loss of one step of training."""
    decoder, inputs = _decoder(case), case.inputs
    target = rearrange(inputs["image_embeds"], "n k c -> n 1 k c")
    source = _source(case, decoder)
    condition = decoder.condition(target)._replace(source=source)
    without = decoder.empty(condition)
    added, other = condition.added, without.added
    outputs = {
        "prompt_embeds": condition.tokens,
        "neg_prompt_embeds": without.tokens,
        "pooled": added["text_embeds"],
        "neg_pooled": other["text_embeds"],
        "latents": decoder.denoising.sample(
            condition,
            without,
            Generators(range(len(target))),
            steps=case.config["steps"],
            guidance=Guidance(case.config["gs"], decoder.guidance.source_scale),
            noise=inputs["noise"],
        ),
    }
    if "noisy" in inputs:
        predicted = decoder.denoising.denoiser(inputs["noisy"], inputs["t"], condition._replace(source=None))
        outputs["train_noise_pred"] = predicted
        outputs["train_loss"] = functional.mse_loss(predicted, inputs["target"])
    return outputs


def _decoder(case: Case) -> Any:
    """The decoder of a case, led away from the features of a grey image."""
    config = case.config
    below = {
        name: {k.removeprefix(f"{name}."): t for k, t in case.tensors.items() if k.startswith(f"{name}.")}
        for name in ("adapter", "vae", "visual")
    }
    unet = {k.removeprefix("unet."): t for k, t in below["adapter"].items() if k.startswith("unet.")}
    shape = unet_shape(unet, heads=HEADS, groups=UNET_GROUPS) | added_shape(unet, config["o2"])
    vae = vae_shape(below["vae"], groups=VAE_GROUPS, scaling=SCALING)
    size = case.inputs["noise"].shape[-1] * 2 ** (len(vae["block_out_channels"]) - 1)
    adapter = {
        **seed_x.adapter_shape(below["adapter"]),
        **{"heads": config["heads"], "dim_head": config["dim_head"], "normalize": config["normalize"]},
    }
    _check(case, adapter, {"dim": "dim", "depth": "depth", "num_queries": "nq", "output1_dim": "o1"})
    conditioner = seed_x.conditioner(adapter)
    encoder, grey = _grey(case)
    space = parts.build("image_tokenizer", {"type": "features", **encoder}).space
    spec = {
        "type": "diffusion",
        "size": size,
        "edits": config["edit"],
        "conditioner": conditioner,
        **network_parts({"unet": shape, "vae": vae, "scheduler": EULER}, size),
        **{"steps": config["steps"], "guidance": config["gs"]},
        "source_guidance": config.get("igs", 1.5) if config["edit"] else 1.0,
    }
    decoder = parts.build("image_decoder", spec, DecoderContext(space)).eval()
    names = NameMap(
        *network_rules("adapter.unet.", "vae."),
        *seed_x.conditioner_rules(conditioner, "adapter.resampler.", "image_decoder.conditioner."),
        Unused("visual.{rest...}"),
    )
    ours, _ = names.to_ours(case.tensors, case.name)
    ours["image_decoder.conditioner.negative"] = grey
    load_named(decoder, ours, names, case.name, prefix="image_decoder.")
    return decoder


def _grey(case: Case) -> tuple[dict[str, Any], Float[Tensor, "r c d"]]:
    """Options of the target's encoder, and the target of an image that is zero all over once it is normalised."""
    visual = case.config["venc"]
    options = {key: value for key, value in seed_x.tokenizer(visual).items() if key != "type"}
    tokenizer = parts.build("image_tokenizer", {"type": "features", **options}).eval()
    names = NameMap(*qwen_vl.encoder_rules(options["encoder"], "visual.", "encoder."))
    theirs = {name: tensor for name, tensor in case.tensors.items() if name.startswith("visual.")}
    ours, _ = names.to_ours(theirs, case.name)
    load_named(tokenizer, ours, names, case.name)
    return options, seed_x.grey_target(tokenizer)


def _source(case: Case, decoder: Any) -> Float[Tensor, "n c h w"] | None:
    """Latents of the image to change; None where there is none."""
    if not decoder.edits:
        return None
    others = set(case.inputs) - {"image_embeds", "noise", "noisy", "t", "target"}
    if len(others) != 1:
        raise CheckpointError(
            f"{case.name} changes an image, which has to be its one further input, not {others}"
        )
    image = case.inputs[others.pop()]
    return decoder.source_latents(unsigned(image)) if image.shape[1] == 3 else image


def _check(case: Case, shape: Mapping[str, Any], config: Mapping[str, str]) -> None:
    """Raise CheckpointError where the config of a case contradicts its tensors."""
    for name, key in config.items():
        if case.config[key] != shape[name]:
            raise CheckpointError(
                f"{case.name}: {key} is {case.config[key]}, but by the tensors {name} is {shape[name]}"
            )
