"""Emu3's vision tokenizer (arXiv 2409.18869), in its own layout and in transformers'."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from chiasm.interop.config import TRANSFORMERS, Config, reader
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import signed, unsigned
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import Chain, NameMap, Rule, Unsqueeze
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.preprocessor import refuse_other_pixels

SIZE = 512  # pixels; the original takes any multiple of the downsampling
OURS = "image_tokenizer."
CASE = {
    "cls": "the replay's name",
    "config_cls": "the replay's name",
    "T": "the length of a case's video",
    "B": "the number of a case's videos",
}
PIXELS = Chain((Unsqueeze(-1), Unsqueeze(-1)))  # a linear layer as a convolution of 1 x 1


class Emu3Tokenizer(Family, name="emu3-vq"):
    """BAAI/Emu3-VisionTokenizer."""

    looks_for = "config.json with model_type Emu3VisionVQ"
    without_effect: ClassVar = {**TRANSFORMERS, "dropout": "in training only"}

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "Emu3VisionVQ"

    def read(self, folder: Folder) -> Original:
        refuse_other_pixels(folder)
        return super().read(folder)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        return _part(config, "double_z", "z_channels", "ch", "ch_mult")

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        return NameMap(*time_rules(), Rule("{rest...}", OURS + "{rest...}"))


class Emu3TokenizerOfTransformers(Family, name="emu3-vq-hf"):
    """transformers' Emu3VQVAE."""

    looks_for = "config.json with model_type emu3_vqgan"
    without_effect: ClassVar = {**TRANSFORMERS, "attention_dropout": "in training only"}

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "emu3_vqgan"

    def read(self, folder: Folder) -> Original:
        refuse_other_pixels(folder)
        return super().read(folder)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        model = _part(config, "double_latent", "latent_channels", "base_channels", "channel_multiplier")
        spec = model["image_tokenizer"]
        spec["heads"] = config.get("num_attention_heads", 1)
        # transformers gives every self-attention this width, whatever the channels where it stands.
        levels = dict(enumerate(spec["multipliers"]))
        attending = {spec["multipliers"][-1], *(levels[n] for n in spec["attention_levels"] if n in levels)}
        for multiplier in sorted(attending):
            config.only("hidden_size", spec["width"] * multiplier, default=1024)
        return model

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


def _part(
    config: Config, double: str, latents: str, width: str, multipliers: str
) -> dict[str, dict[str, Any]]:
    """The tokenizer, in the words of either layout where they differ."""
    code_width = config.get("embed_dim", 4)
    config.only(double, False)
    config.only(latents, code_width, default=4)  # another breaks the original too
    for key in ("in_channels", "out_channels"):
        config.only(key, 3)
    spec = {
        "type": "vqgan_video",
        "size": config.get("res", SIZE),
        "width": config.get(width, 256),
        "multipliers": list(config.get(multipliers, (1, 2, 2, 4))),
        "depth": config.get("num_res_blocks", 2),
        "attention_levels": list(config.get("attn_resolutions", (3,)) or ()),
        "downsample_time": config.get("temporal_downsample_factor", 4),
        "quantizer": {
            "type": "nearest",
            "width": code_width,
            "codebook_size": config.get("codebook_size", 32768),
            "codebook_weight": 1.0,
            "commitment": 0.25,
        },
    }
    return {"image_tokenizer": spec}


def time_rules() -> list[Rule]:
    """Convolutions over time stand within one or two wrappers."""
    return [
        Rule("{side}.time_conv.{i}.conv.conv.{w}", OURS + "{side}.time_conv.{i}.{w}"),
        Rule("{side}.time_res_stack.{i}.conv1.conv.{w}", OURS + "{side}.time_res_stack.{i}.conv1.{w}"),
        Rule("{side}.time_res_stack.{i}.conv2.conv.{w}", OURS + "{side}.time_res_stack.{i}.conv2.{w}"),
        Rule("quant_conv.conv.{w}", OURS + "quant_conv.{w}"),
        Rule("post_quant_conv.conv.{w}", OURS + "post_quant_conv.{w}"),
    ]


@replays("emu3", "Emu3VisionVQModel", without_effect=CASE)
def replay(case: Case) -> dict[str, Tensor]:
    return _replayed("emu3-vq", case)


@replays("emu3", "Emu3VQVAE", without_effect=CASE)
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
    frames = tokenizer.render_video(tokenizer.quantize.vectors(codes))
    return {
        "z": rearrange(latents, "n t h w c -> n t c h w"),
        "codes": codes if moving else codes[:, 0],
        "rec": signed(frames if moving else frames[:, 0]),
    }
