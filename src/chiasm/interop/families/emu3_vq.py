"""Emu3's vision tokenizer (arXiv 2409.18869), in its own layout and in transformers'."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.cases import Case
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import signed, unsigned
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import Chain, NameMap, Rule, Unsqueeze
from chiasm.interop.verify import replays

SIZE = 512  # pixels; the original takes any multiple of the downsampling
OURS = "image_tokenizer."
PIXELS = Chain((Unsqueeze(-1), Unsqueeze(-1)))  # a linear layer as a convolution of 1 x 1


class Emu3Tokenizer(Family, name="emu3-vq"):
    """BAAI/Emu3-VisionTokenizer."""

    looks_for = "config.json with model_type Emu3VisionVQ"

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "Emu3VisionVQ"

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        latent_width, code_width = config.get("z_channels", 4), config.get("embed_dim", 4)
        if config.get("double_z") or latent_width != code_width:
            raise CheckpointError(
                f"z_channels {latent_width} must be embed_dim {code_width}, without double_z, as published"
            )
        spec = {
            "type": "vqgan_video",
            "size": config.get("res", SIZE),
            "width": config.get("ch", 256),
            "multipliers": list(config.get("ch_mult", (1, 2, 2, 4))),
            "depth": config.get("num_res_blocks", 2),
            "attention_levels": list(config.get("attn_resolutions", (3,))),
            "code_width": code_width,
            "codebook_size": config.get("codebook_size", 32768),
            "downsample_time": config.get("temporal_downsample_factor", 4),
        }
        return {"image_tokenizer": spec}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        return NameMap(*time_rules(), Rule("{rest...}", OURS + "{rest...}"))


class Emu3TokenizerOfTransformers(Family, name="emu3-vq-hf"):
    """transformers' Emu3VQVAE."""

    looks_for = "config.json with model_type emu3_vqgan"

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "emu3_vqgan"

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        if config.get("num_attention_heads", 1) != 1:
            raise CheckpointError("num_attention_heads is known as 1 only")
        words = {"latent_channels": "z_channels", "base_channels": "ch", "channel_multiplier": "ch_mult"}
        told = {words.get(key, key): value for key, value in config.items()}
        return find_family("emu3-vq").model({**told, "double_z": config.get("double_latent", False)})

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        rules = []
        for side, levels, name in (("encoder", "down_block.down", "down"), ("decoder", "up_block.up", "up")):
            places = (
                (
                    f"{side}.{levels}.{{level}}",
                    "attn.{i}",
                    "attn_norms.{i}",
                    f"{side}.{name}.{{level}}",
                    "attn.{i}",
                ),
                (f"{side}.middle_block", "attn_1", "attn_norm", f"{side}.mid", "attn_1"),
            )
            for theirs, attention, normalise, ours, own in places:
                for projection, short in (
                    ("q_proj", "q"),
                    ("k_proj", "k"),
                    ("v_proj", "v"),
                    ("out_proj", "proj_out"),
                ):
                    target = f"{OURS}{ours}.{own}.{short}"
                    rules.append(
                        Rule(f"{theirs}.{attention}.{projection}.weight", f"{target}.weight", PIXELS)
                    )
                    rules.append(Rule(f"{theirs}.{attention}.{projection}.bias", f"{target}.bias"))
                rules.append(
                    Rule(f"{theirs}.{normalise}.{{rest...}}", f"{OURS}{ours}.{own}.norm.{{rest...}}")
                )
                rules.append(Rule(f"{theirs}.{{rest...}}", f"{OURS}{ours}.{{rest...}}"))
        return NameMap(*time_rules(), *rules, Rule("{rest...}", OURS + "{rest...}"))


def time_rules() -> list[Rule]:
    """Convolutions over time stand within one or two wrappers."""
    return [
        Rule("{side}.time_conv.{i}.conv.conv.{w}", OURS + "{side}.time_conv.{i}.{w}"),
        Rule("{side}.time_res_stack.{i}.conv1.conv.{w}", OURS + "{side}.time_res_stack.{i}.conv1.{w}"),
        Rule("{side}.time_res_stack.{i}.conv2.conv.{w}", OURS + "{side}.time_res_stack.{i}.conv2.{w}"),
        Rule("quant_conv.conv.{w}", OURS + "quant_conv.{w}"),
        Rule("post_quant_conv.conv.{w}", OURS + "post_quant_conv.{w}"),
    ]


@replays("emu3", "Emu3VisionVQModel")
def replay(case: Case) -> dict[str, Tensor]:
    return _replayed("emu3-vq", case)


@replays("emu3", "Emu3VQVAE")
def replay_transformers(case: Case) -> dict[str, Tensor]:
    return _replayed("emu3-vq-hf", case)


@torch.no_grad()
def _replayed(layout: str, case: Case) -> dict[str, Tensor]:
    """A picture, or a moving one, to codes and back."""
    config = {**case.config["config"], "res": case.config["res"]}
    tokenizer = load(find_family(layout), Original(config, case.tensors)).model["image_tokenizer"]
    pixels = unsigned(case.inputs["pixel_values"])
    moving = pixels.ndim == 5
    video = pixels if moving else pixels[:, None].repeat_interleave(tokenizer.still, 1)
    latents = tokenizer.video_latents(video)
    codes = tokenizer.quantize.encode(latents)
    made = tokenizer.render_video(tokenizer.quantize.vectors(codes))
    return {
        "z": rearrange(latents, "n t h w c -> n t c h w"),
        "codes": codes if moving else codes[:, 0],
        "rec": signed(made if moving else made[:, 0]),
    }
