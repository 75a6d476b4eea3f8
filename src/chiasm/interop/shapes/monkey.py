"""Monkey's and TextMonkey's encoder, Qwen-VL's on windows, in its own names (arXiv 2311.06607, 2403.04473)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import reader
from chiasm.interop.mapping import Join, OwnTensors, Reshape, Rule, Split, Stack, Transform, Unused
from chiasm.interop.shapes import qwen_vl
from chiasm.interop.shapes.internlm2 import GroupedQKV

PATCH, TILE = (
    14,
    32,
)  # pixels of a patch, patches of a window: fixed in the originals' code, as is what follows
# TextMonkey's attention across windows, in a ViT of 48 blocks.
CROSSINGS = {
    "window_pos": [2, 6, 24, 46],
    "window_dim": [128, 256, 512, 1024],
    "window_head": [4, 8, 16, 32],
    "window_size": 12,
}
RESAMPLER = {"in_dim": 1024, "depth": 1, "dim_head": 128, "heads": 8}  # TextMonkey's token resampler
UPDATES = {"attn.in_proj_lora": "qkv", "attn.out_proj_lora": "out", "mlp_lora": "mlp"}
CROSSING = {
    "attn.relative_position_bias_table": "distances",
    "attn.qkv.{p}": "qkv.{p}",
    "attn.proj.{p}": "out.{p}",
    "downsample.weight": "input.weight",
    "norm1.{p}": "attention_norm.{p}",
    "norm2.{p}": "mlp_norm.{p}",
    "mlp.fc1.weight": "up.weight",
    "mlp.fc2.weight": "down.weight",
    "mlp.scale": "scale",
}
Rules = list[Rule | Unused | OwnTensors]


@dataclass(frozen=True)
class StackedHeads(Transform):
    """As `Stack`, of matrices whose rows are, head by head, a query's, key's and value's; ours are three blocks."""

    heads: int

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [torch.stack([torch.cat(GroupedQKV(self.heads, 1).to_ours([each])) for each in theirs])]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [GroupedQKV(self.heads, 1).to_theirs(list(each.chunk(3)))[0] for each in ours[0].unbind()]


def stretched(visual: Mapping[str, Any]) -> dict[str, Any]:
    """The views for a `visual` section."""
    height, width = canvas(visual)
    return {"type": "stretched", "height": height, "width": width}


def canvas(visual: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width in pixels to which every image is stretched."""
    size = visual["image_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return height, width


def monkey_encoder(visual: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """The encoder for Monkey's `visual` section; sizes: see `qwen_vl.measured`. What fills no window is dropped."""
    visual = reader(visual)
    positions = qwen_vl.rows_of_positions(sizes)
    window, sets = _window(visual, visual.get("tile")), visual.get("lora_repeat_num", 4)
    height, width = canvas(visual)
    windows = (height // window) * (width // window)
    if sets < windows or not windows:
        raise CheckpointError(
            f"{visual.place}lora_repeat_num is {sets}, but images of {height}x{width} pixels have {windows} "
            f"windows of {window}, of which each has updates of its own"
        )
    return {
        "type": "windows",
        "encoder": qwen_vl.encoder(visual, positions=positions),
        "window": window,
        "fixed": True,
        "remainder": "drop",
        "updates": sets,
    }


def text_monkey_encoder(visual: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """The encoder for TextMonkey's. Where its updates are not named by `lora_idx`, there are as many as it has."""
    visual = reader(visual)
    sets = visual.get("lora_repeat_num", 0)
    chosen = visual.get("lora_idx", sets or None)
    tile, (height, width) = visual.get("tile_grid"), canvas(visual)
    spec = {
        "type": "windows",
        "encoder": qwen_vl.encoder(visual, **sizes),
        "window": _window(visual, tile and tile * visual.get("patch_size", PATCH)),
        "overview": visual.get("use_global", False),
        "fixed": True,
        "updates": 0 if chosen is None else 1 if chosen < 2 else sets,
    }
    if not visual.get("add_window", "window_pos" in visual):
        return spec
    if height != width:
        raise CheckpointError(
            f"{visual.place}image_size is {height}x{width}, but attention across windows is known of squares only"
        )
    options = {key: visual.get(key, usual) for key, usual in CROSSINGS.items()}
    within = [place for place in options["window_pos"] if place < visual["layers"]]
    return {
        **spec,
        "crossings": within,
        "crossing_widths": options["window_dim"][: len(within)],
        "crossing_heads": options["window_head"][: len(within)],
        "crossing_window": options["window_size"],
        "crossing_side": height // spec["encoder"]["patch_size"],
    }


def token_resampler(visual: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, Any]:
    """The connector for TextMonkey's `visual` section and `encoder`."""
    visual = reader(visual)
    retained = visual.get("r", 512)
    if not visual.get("resampler", False):
        return {"type": "identity"}
    overview = encoder["encoder"]["side"] ** 2 if encoder["overview"] else 0
    return resampler({**RESAMPLER, **visual.get("downresampler", {})}, retained, overview)


def resampler(options: Mapping[str, Any], retained: int, overview: int) -> dict[str, Any]:
    """The connector for the arguments of TextMonkey's PerceiverResampler."""
    return {
        "type": "token_resampler",
        "retained": retained,
        "overview": overview,
        "width": options["in_dim"],
        "depth": options["depth"],
        "heads": options["heads"],
        "head_width": options["dim_head"],
    }


def encoder_rules(spec: Mapping[str, Any], visual: Mapping[str, Any], theirs: str, ours: str) -> Rules:
    """Rules for the encoder `spec` of a `visual` section; theirs, ours: what its tensors' names begin with."""
    inner, used, crossed = spec["encoder"], spec["updates"], len(spec.get("crossings", ()))
    sets, places = visual.get("lora_repeat_num", 0), visual.get("window_pos", CROSSINGS["window_pos"])
    block, update = f"{theirs}transformer.resblocks.{{n}}.", f"{ours}updates.{{n}}."
    rules: Rules = []
    for layer, our_layer in UPDATES.items() if used else ():
        up = StackedHeads(inner["heads"]) if our_layer == "qkv" else Stack()
        for name, our_name, transform in (
            ("lora_a.weight", "down", Stack()),
            ("lora_b.weight", "up", up),
            ("lora_scale", "scale", Join((1,) * used)),
        ):
            sources = tuple(f"{block}{layer}.{number}.{name}" for number in range(used))
            rules.append(Rule(sources, f"{update}{our_layer}.{our_name}", transform))
    rules += [Unused(f"{block}{layer}.{k}.{{rest...}}") for layer in UPDATES for k in range(used, sets)]
    for number in range(crossed):
        rules += _crossing_rules(spec, f"{theirs}transformer.window_attention.{number}.", ours, number)
    # Those before blocks that it has not are built all the same.
    rest = range(crossed, len(places)) if "crossings" in spec else ()
    rules += [Unused(f"{theirs}transformer.window_attention.{number}.{{rest...}}") for number in rest]
    return [*rules, *qwen_vl.encoder_rules(inner, theirs, f"{ours}encoder.")]


def resampler_rules(spec: Mapping[str, Any], theirs: str, ours: str) -> Rules:
    """Rules for the connector `spec`."""
    if spec["type"] != "token_resampler":
        return []
    attention, mlp, our_layer = f"{theirs}layers.{{n}}.0.", f"{theirs}layers.{{n}}.1.", f"{ours}layers.{{n}}."
    inner = spec["heads"] * spec["head_width"]
    return [
        Rule(f"{theirs}downsample.weight", f"{ours}input.weight"),
        Rule(f"{attention}norm_media.{{p}}", f"{our_layer}feature_norm.{{p}}"),
        Rule(f"{attention}norm_latents.{{p}}", f"{our_layer}latent_norm.{{p}}"),
        Rule(f"{attention}to_q.weight", f"{our_layer}query.weight"),
        Rule(
            f"{attention}to_kv.weight",
            (f"{our_layer}key.weight", f"{our_layer}value.weight"),
            Split((inner, inner)),
        ),
        Rule(f"{attention}to_out.weight", f"{our_layer}out.weight"),
        Rule(f"{mlp}norm.{{p}}", f"{our_layer}mlp_norm.{{p}}"),
        Rule(f"{mlp}fc1.weight", f"{our_layer}up.weight"),
        Rule(f"{mlp}fc2.weight", f"{our_layer}down.weight"),
        Rule(f"{mlp}scale", f"{our_layer}scale"),
    ]


def _window(visual: Mapping[str, Any], pixels: int | None) -> int:
    """Pixels along a window; of published models 448, whatever their config says of patches."""
    patch = visual.get("patch_size", PATCH)
    if pixels is None and patch != PATCH:
        raise CheckpointError(
            f"patch_size is {patch}, but windows of {TILE * PATCH} pixels are known in patches of {PATCH} only"
        )
    return pixels or TILE * PATCH


def _crossing_rules(spec: Mapping[str, Any], theirs: str, ours: str, number: int) -> Rules:
    cells, width = spec["crossing_side"] ** 2, spec["encoder"]["width"]
    our_block = f"{ours}crossings.{number}."
    return [
        Rule(
            f"{theirs}position_embedding",
            f"{our_block}positions",
            Reshape((1, cells, width), (cells, width)),
        ),
        *[Rule(f"{theirs}shift_attn.{a}", our_block + b) for a, b in CROSSING.items()],
    ]
