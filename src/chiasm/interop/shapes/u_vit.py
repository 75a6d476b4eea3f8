"""JanusFlow's shallow networks under their own names, as the order `u_vit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from chiasm.heads.u_vit import EXPANSION
from chiasm.interop.config import known_value
from chiasm.interop.mapping import Reshape, Rule

# What the original's networks take where their params say nothing.
BOTH = {
    "block_out_channels": [768],
    "layers_in_middle": 2,
    "use_bias": True,
    "norm_eps": 1e-6,
    "use_mid_block": True,
}
ENCODER = {**BOTH, "input_channels": 3, "stride": 4, "kernel_size": 7, "padding": None}
DECODER = {**BOTH, "in_channels": 768, "out_channels": 3, "upsamples": 2}
EPSILON = 1e-6  # of a Llama's norms


def flow_head(config: Mapping[str, Any]) -> dict[str, Any]:
    """The image head; raises CheckpointError where the two networks do not fit each other."""
    encoder = _params(config, "vision_gen_enc_config", ENCODER)
    decoder = _params(config, "vision_gen_dec_config", DECODER)
    where, width = "vision_gen_dec_config.params.", _width(encoder, "vision_gen_enc_config")
    for name, value in (
        ("out_channels", encoder["input_channels"]),
        ("use_bias", encoder["use_bias"]),
        ("norm_eps", encoder["norm_eps"]),
    ):
        known_value(where + name, decoder[name], value)
    known_value(where + "block_out_channels", _width(decoder, "vision_gen_dec_config"), width)
    known_value("2 ** " + where + "upsamples", 2 ** decoder["upsamples"], encoder["stride"])
    padding = encoder["padding"]
    return {
        "type": "u_vit",
        "alphabet": {"type": "regression", "depth": 0},
        "width": width,
        "decoder_width": decoder["in_channels"],
        "stride": encoder["stride"],
        "kernel": encoder["kernel_size"],
        "padding": encoder["kernel_size"] - encoder["stride"] if padding is None else padding,
        "depth": _depth(encoder),
        "decoder_depth": _depth(decoder),
        "bias": encoder["use_bias"],
        "epsilon": encoder["norm_eps"],
        "hidden_epsilon": config["language_config"].get("rms_norm_eps", EPSILON),
    }


def flow_rules(config: Mapping[str, Any], head: str) -> list[Rule]:
    """Rules for both networks and what stands between them and the language model; `head`: what ours begin with."""
    spec, decoder = flow_head(config), _params(config, "vision_gen_dec_config", DECODER)
    both = spec["width"] + spec["decoder_width"]
    ends = [both] + [spec["width"]] * (decoder["upsamples"] - 1) + [decoder["out_channels"]]
    return [
        Rule("vision_gen_enc_model.time_embed.linear_1.{p}", head + "encoder.time.0.{p}"),
        Rule("vision_gen_enc_model.time_embed.linear_2.{p}", head + "encoder.time.2.{p}"),
        Rule("vision_gen_enc_model.in_conv.{p}", head + "encoder.patchify.{p}"),
        *_block_rules("vision_gen_enc_model.", head + "encoder.", spec["width"]),
        Rule("vision_gen_enc_aligner.{p}", head + "input.{p}"),
        Rule("vision_gen_dec_aligner_norm.{p}", head + "norm.{p}"),
        Rule("vision_gen_dec_aligner.{p}", head + "output.{p}"),
        Rule("vision_gen_dec_model.input_norm.{p}", head + "decoder.norm.{p}"),
        *_block_rules("vision_gen_dec_model.", head + "decoder.", both),
        *_doubling_rules("vision_gen_dec_model.out_convs.", head + "decoder.doublings.", ends),
    ]


def _params(config: Mapping[str, Any], network: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    params = config[network]["params"]
    return {name: params.get(name, default) for name, default in defaults.items()}


def _width(params: Mapping[str, Any], network: str) -> int:
    """The network's only width; the original has no layer between several."""
    widths: list[int] = list(params["block_out_channels"])
    return int(known_value(f"{network}.params.block_out_channels", widths, [widths[0]] * len(widths))[0])


def _depth(params: Mapping[str, Any]) -> int:
    return int(params["layers_in_middle"]) if params["use_mid_block"] else 0


def _block_rules(theirs: str, ours: str, width: int) -> list[Rule]:
    """The blocks of a network of this width."""
    hidden = EXPANSION * width
    names = {
        "depthwise": "depthwise",
        "norm": "norm",
        "channelwise_linear_1": "up",
        "channelwise_linear_2": "down",
        "cond_embeds_mapper": "modulation",
    }
    theirs, ours = theirs + "mid_block.res_blocks.{n}.", ours + "blocks.{n}."
    return [
        *(Rule(f"{theirs}{a}.{{p}}", f"{ours}{b}.{{p}}") for a, b in names.items()),
        Rule(theirs + "channelwise_norm.{p}", ours + "response.{p}", Reshape((1, 1, 1, hidden), (hidden,))),
    ]


def _doubling_rules(theirs: str, ours: str, ends: Sequence[int]) -> list[Rule]:
    """Each doubling's layer is a convolution that reads one place there."""
    rules = [
        Rule(theirs + "{n}.norm.{p}", ours + "{n}.norm.{p}"),
        Rule(theirs + "{n}.unpatch_conv.bias", ours + "{n}.output.bias"),
    ]
    for n, (a, b) in enumerate(pairwise(ends)):
        flat = Reshape((4 * b, a, 1, 1), (4 * b, a))
        rules.append(Rule(f"{theirs}{n}.unpatch_conv.weight", f"{ours}{n}.output.weight", flat))
    return rules
