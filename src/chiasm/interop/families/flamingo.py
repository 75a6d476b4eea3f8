"""Flamingo (arXiv 2204.14198) in OpenFlamingo's layout, and lucidrains' resampler."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from chiasm import parts
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Reshape, Rule, Split, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import (
    CasePicture,
    case_document,
    load_case,
    read_documents,
    scattered,
    unnormalised,
)
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.flamingo_languages import (
    LAYERS,
    borrowed_language,
    language_config,
    language_rules,
    language_type,
)
from chiasm.interop.shapes.frozen import frozen_clip
from chiasm.interop.shapes.towers import causal_config, normalisation, tower, tower_rules
from chiasm.routing.gated_cross_attention import GatedCrossAttentionBlock
from chiasm.sequence import Document
from chiasm.sequence.cross_attended import CrossAttended
from chiasm.views import Size

# What the original asks with in its evaluations.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "Question:{{ message['content'] }} Short answer:"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}<|endofchunk|>"
    "{% else %}{{ message['content'] }} {% endif %}{% endfor %}"
)


class Flamingo(Family, name="flamingo"):
    """OpenFlamingo's state dict (github.com/mlfoundations/open_flamingo), language model and tower included.

    The config, which the original keeps in code, is `{lm: {type, cfg}, vision, perceiver, gated,
    cross_attn_every_n_layers, media_token_id}`. Published checkpoints hold what was trained alone; then `lm` and
    `vision` have a `checkpoint` more, a folder or hub name in transformers' layout, for the rest.
    """

    looks_for = "config.json with lm, vision, perceiver and cross_attn_every_n_layers"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "vision.kind": "its structure tells",
        "eoc_token_id": "ends a text when one is drawn",
        "lm.checkpoint": "where frozen weights are, which the reader follows",
        "vision.checkpoint": "where frozen weights are, which the reader follows",
    }

    def recognises(self, folder: Folder) -> bool:
        return {"lm", "vision", "perceiver", "cross_attn_every_n_layers"} <= folder.config.keys()

    def read(self, folder: Folder) -> Original:
        config, own = folder.config, folder.tensors
        own = {name.removeprefix("module."): tensor for name, tensor in own.items()}
        lm, vision = config["lm"], config["vision"]
        ours: dict[str, Tensor] = {}
        if "checkpoint" in vision:
            ours |= frozen_clip(vision["checkpoint"])
        if "checkpoint" in lm:
            ours |= borrowed_language(lm)
        renamed = self.names(config, own).to_theirs(ours, str(folder.path))
        borrowed = {name: tensor for name, tensor in renamed.items() if name not in own}
        return Original(config, {**own, **borrowed}, set(borrowed))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        vision, gated = config["vision"], config.get("gated", {})
        return {
            "views": {"type": "whole", "size": vision["image_size"], "fit": "crop"},
            "encoder": tower(_clip(vision), "clip_vision_model", layer=-1),
            "connector": perceiver_options(config["perceiver"], vision["width"]),
            "language": causal_config(language_config(config["lm"]), language_type(config["lm"])),
            "routing": _gated(gated, config["cross_attn_every_n_layers"], _width(config)),
        }

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder)

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config)
        layers = LAYERS[language_type(config["lm"])][0]
        resampler, gates = spec["connector"], spec["routing"]
        return NameMap(
            Unused("vision_encoder.proj"),
            Unused("vision_encoder.ln_post.{p}"),
            *open_clip_rules("vision_encoder.", _clip(config["vision"])["hidden_size"]),
            *tower_rules(spec["encoder"], "vision_encoder."),
            *perceiver_rules("perceiver.", resampler, config["vision"]["width"]),
            # The original holds its layers in two lists more.
            Unused("lang_encoder.old_decoder_blocks.{rest...}"),
            Unused("lang_encoder.gated_cross_attn_layers.{rest...}"),
            *gated_rules(
                f"lang_encoder.{layers}.{{n}}.gated_cross_attn_layer.",
                "routing.blocks.{n}.",
                gates["heads"] * gates["head_width"],
            ),
            *language_rules(config["lm"], "lang_encoder.", config["media_token_id"], keys),
        )


def _width(config: Mapping[str, Any]) -> int:
    cfg = config["lm"]["cfg"]
    return cfg[next((key for key in ("n_embd", "d_model") if key in cfg), "hidden_size")]


def _clip(vision: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' config of an open_clip tower."""
    width = vision["width"]
    return {
        "hidden_size": width,
        "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
        "num_hidden_layers": vision["layers"],
        "num_attention_heads": vision.get("heads", width // vision.get("head_width", 64)),
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "hidden_act": str(vision.get("act", "quick_gelu")).split(" ", 1)[0],
    }


def perceiver_options(config: Mapping[str, Any], width: int) -> dict[str, Any]:
    return {
        "type": "perceiver_resampler",
        "latents": config.get("num_latents", 64),
        "depth": config.get("depth", 6),
        "heads": config.get("heads", 8),
        "head_width": config.get("dim_head", 64),
        "hidden": int(width * config.get("ff_mult", 4)),
        "pictures": config.get("num_media_embeds", config.get("max_num_media")) or 0,
        "frames": config.get("max_num_frames") or 0,
    }


def _gated(config: Mapping[str, Any], every: int, width: int) -> dict[str, Any]:
    return {
        "type": "gated_cross_attention",
        "every": every,
        "heads": config.get("heads", 8),
        "head_width": config.get("dim_head", 64),
        "hidden": int(width * config.get("ff_mult", 4)),
        "looks_at": "latest" if config.get("only_attend_immediate_media", True) else "all",
    }


def open_clip_rules(prefix: str, width: int) -> list[Rule]:
    """An open_clip vision transformer's names, as those of transformers' CLIP behind `encoder.model.`."""
    block, ours = f"{prefix}transformer.resblocks.{{n}}.", "encoder.model.encoder.layers.{n}."
    heads = tuple(f"{ours}self_attn.{each}_proj.{{p}}" for each in "qkv")
    return [
        Rule(f"{prefix}class_embedding", "encoder.model.embeddings.class_embedding"),
        Rule(f"{prefix}conv1.weight", "encoder.model.embeddings.patch_embedding.weight"),
        Rule(f"{prefix}positional_embedding", "encoder.model.embeddings.position_embedding.weight"),
        Rule(f"{prefix}ln_pre.{{p}}", "encoder.model.pre_layrnorm.{p}"),
        Rule(f"{block}ln_1.{{p}}", f"{ours}layer_norm1.{{p}}"),
        Rule(f"{block}ln_2.{{p}}", f"{ours}layer_norm2.{{p}}"),
        Rule(f"{block}attn.in_proj_{{p}}", heads, Split((width, width, width))),
        Rule(f"{block}attn.out_proj.{{p}}", f"{ours}self_attn.out_proj.{{p}}"),
        Rule(f"{block}mlp.c_fc.{{p}}", f"{ours}mlp.fc1.{{p}}"),
        Rule(f"{block}mlp.c_proj.{{p}}", f"{ours}mlp.fc2.{{p}}"),
    ]


def perceiver_rules(prefix: str, options: Mapping[str, Any], width: int) -> list[Rule]:
    """The resampler of OpenFlamingo and of lucidrains; options: our connector's options."""
    inner, count = options["heads"] * options["head_width"], options["pictures"]
    ordered = Reshape((count, 1, width), (count, width))
    theirs, ours = f"{prefix}layers.{{n}}.", "connector.layers.{n}."
    return [
        Rule(f"{theirs}0.norm_media.{{p}}", f"{ours}feature_norm.{{p}}"),
        Rule(f"{theirs}0.norm_latents.{{p}}", f"{ours}latent_norm.{{p}}"),
        Rule(f"{theirs}0.to_q.weight", f"{ours}query.weight"),
        Rule(f"{theirs}0.to_kv.weight", (f"{ours}key.weight", f"{ours}value.weight"), Split((inner, inner))),
        Rule(f"{theirs}0.to_out.weight", f"{ours}output.weight"),
        Rule(f"{theirs}1.{{rest...}}", f"{ours}mlp.{{rest...}}"),
        Rule(f"{prefix}latents", "connector.latents"),
        Rule(f"{prefix}frame_embs", "connector.frames"),
        Rule(f"{prefix}media_time_embs", "connector.pictures", ordered),
        Rule(f"{prefix}media_pos_emb", "connector.pictures", ordered),  # lucidrains' name
        Rule(f"{prefix}norm.{{p}}", "connector.norm.{p}"),
    ]


def gated_rules(prefix: str, ours: str, inner: int) -> list[Rule]:
    """A gated cross-attention block of OpenFlamingo."""
    return [
        Rule(f"{prefix}attn.norm.{{p}}", f"{ours}norm.{{p}}"),
        Rule(f"{prefix}attn.to_q.weight", f"{ours}query.weight"),
        Rule(
            f"{prefix}attn.to_kv.weight", (f"{ours}key.weight", f"{ours}value.weight"), Split((inner, inner))
        ),
        Rule(f"{prefix}attn.to_out.weight", f"{ours}output.weight"),
        Rule(f"{prefix}attn_gate", f"{ours}attention_gate"),
        Rule(f"{prefix}ff.{{rest...}}", f"{ours}mlp.{{rest...}}"),
        Rule(f"{prefix}ff_gate", f"{ours}mlp_gate"),
    ]


@replays("flamingo", "Flamingo")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The media id stands once for each picture of a row; rows are padded on either side."""
    inputs = case.inputs
    model = load(find_family("flamingo"), Original(case.config, case.tensors)).model
    pixels = unnormalised(model.encoder, inputs["vision_x"][:, :, 0])
    mask = inputs["attention_mask"].bool()
    documents: list[Document] = []
    for row, real, own in zip(inputs["lang_x"], mask, pixels, strict=True):
        images = [
            CasePicture(f"{len(documents)}/{i}", Size(*each.shape[-2:]), each[None])
            for i, each in enumerate(own)
        ]
        image = case.config["media_token_id"]
        documents.append(case_document(model, row[real], images, image, repeated=False))
    features = model.encode(rearrange(pixels, "b m c h w -> (b m) c h w"))
    return {
        "vision_tokens": rearrange(features, "n gh gw c -> n (gh gw) c"),
        "media": rearrange(model.connector(features), "(b m) k d -> b m k d", b=len(pixels)),
        "logits": scattered(read_documents(model, documents).logits, mask),
    }


@replays("flamingo", "PerceiverResampler")
@torch.no_grad()
def replay_perceiver(case: Case) -> dict[str, Tensor]:
    """`[b, m, f, s, c]`; lucidrains' has no axis of frames."""
    options, width = perceiver_options(case.config, case.config["dim"]), case.config["dim"]
    connector = parts.build("connector", options, width, width).eval()
    names = NameMap(*perceiver_rules("", options, width))
    load_case(connector, case, names, "connector.")
    x = case.inputs["x"]
    x = rearrange(x, "b m s c -> b m 1 s c") if x.ndim == 4 else x
    return {"latents": connector.resample(x)}


@replays("flamingo", "GatedCrossAttentionBlock")
@torch.no_grad()
def replay_block(case: Case) -> dict[str, Tensor]:
    """One block; behind a cache every position stands after the last picture."""
    config, inputs = case.config, case.inputs
    spec = _gated(config, 1, config["dim"])
    looks_at_all = spec["looks_at"] == "all"
    block = GatedCrossAttentionBlock(
        config["dim"], config["dim_visual"], spec["heads"], spec["head_width"], spec["hidden"], looks_at_all
    )
    names = NameMap(*gated_rules("", "", spec["heads"] * spec["head_width"]))
    load_case(block.eval(), case, names)
    x, media, media_starts = inputs["x"], inputs["media"], inputs["media_locations"].long()
    rows, images, length = media.shape[:3]
    before = torch.arange(rows)[:, None] * images
    first = before.expand(media_starts.shape)
    cross_attended = CrossAttended(
        rearrange(media, "b m k c -> (b m k) c"),
        torch.arange(rows * images).repeat_interleave(length),
        first,
        first + media_starts.cumsum(1) - 1,
        first + images,
    )
    few = case.outputs["out_cached"].shape[1] if "out_cached" in case.outputs else 0
    last = replace(
        cross_attended,
        first=first[:, :few],
        latest=cross_attended.latest[:, -1:].expand(-1, few),
        end=cross_attended.end[:, :few],
    )
    return {"out": block(x, cross_attended), **({"out_cached": block(x[:, :few], last)} if few else {})}
