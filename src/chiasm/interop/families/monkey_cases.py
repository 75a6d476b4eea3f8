"""Replays of Monkey's and TextMonkey's cases: whole models, the encoder, the token resampler, and their windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from chiasm import parts
from chiasm.connectors.token_resampler import least_redundant
from chiasm.interop.convert import load
from chiasm.interop.families.qwen_vl import SIZES, VISUAL
from chiasm.interop.family import Original, find_family
from chiasm.interop.mapping import NameMap
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, load_case, read_documents, unnormalised
from chiasm.interop.parity.verify import replays, replays_table
from chiasm.interop.shapes import qwen_vl
from chiasm.interop.shapes.monkey import (
    encoder_rules,
    resampler,
    resampler_rules,
    text_monkey_encoder,
    token_resampler,
)
from chiasm.views import Size

IMAGE = -1  # the id that stands for an image in a row of ours


@replays("monkey", "MonkeyLMHeadModel", without_effect={})
@torch.no_grad()
def replay_whole(case: Case) -> dict[str, Tensor]:
    """Each row has one image, whose tokens stand in the places of the bytes of its path."""
    config, inputs = case.config, case.inputs
    (rows, columns), tile = config["grid"], config["visual"]["tile"]
    visual = {**config["visual"], "image_size": [rows * tile, columns * tile]}
    sizes = qwen_vl.measured(case.tensors, VISUAL)
    whole = {**config["llm"], "visual": visual, SIZES: sizes}
    model = load(find_family("monkey"), Original(whole, case.tensors)).model
    pixels, begin = unnormalised(model.encoder.encoder, inputs["images"]), config["image_start_id"]
    documents = []
    for row, ids in enumerate(inputs["input_ids"]):
        spliced = ids.clone()
        spliced[_place(ids, begin) + 1 : _place(ids, begin + 1)] = IMAGE
        image = CasePicture(f"{row}", Size(*pixels.shape[2:]), pixels[row : row + 1])
        documents.append(case_document(model, spliced, [image], IMAGE, repeated=True))
    read = read_documents(model, documents)
    return {
        "image_features": read.visual.unflatten(0, (len(documents), -1)),
        "logits": read.logits,
    }


def _place(ids: Tensor, id: int) -> int:
    return int((ids == id).nonzero()[0])


@replays("textmonkey", "VisionTransformer", without_effect={})
@torch.no_grad()
def replay_encoder(case: Case) -> dict[str, Tensor]:
    """Encoder and token resampler together, and the first attention across windows alone."""
    config, inputs = case.config, case.inputs
    encoder = text_monkey_encoder(config, qwen_vl.measured(case.tensors))
    spec = {"encoder": encoder, "connector": token_resampler(config, encoder)}
    width = config["output_dim"]
    modules = nn.ModuleDict({
        "encoder": parts.build("encoder", spec["encoder"]),
        "connector": parts.build("connector", spec["connector"], width, width),
    })  # fmt: skip
    names = NameMap(
        *encoder_rules(spec["encoder"], config, "", "encoder."),
        *resampler_rules(spec["connector"], "downresampler.", "connector."),
    )
    load_case(modules.eval(), case, names)
    built: Any = modules["encoder"]
    pixels = unnormalised(built.encoder, inputs["images"])
    outputs = {"features": modules["connector"](built(pixels))}
    if "window_map" in inputs:
        crossed = built.crossings[0](inputs["window_map"].permute(0, 2, 3, 1))
        outputs["window_attention0"] = crossed.permute(0, 3, 1, 2)
    return outputs


@replays("textmonkey", "PerceiverResampler", without_effect={})
@torch.no_grad()
def replay_resampler(case: Case) -> dict[str, Tensor]:
    """The token resampler alone, on a row of features."""
    config, x = case.config, case.inputs["x"]
    spec, width = resampler(config, config["r"], 0), config["out_dim"]
    connector = parts.build("connector", spec, width, width)
    names = NameMap(*resampler_rules(spec, "", ""))
    load_case(connector.eval(), case, names)
    return {"kept_index": least_redundant(x, config["r"]), "y": connector(x[:, None])}


@replays_table("monkey")
def replay_windows(case: Case) -> list[dict[str, Any]]:
    """Windows of an image that has been stretched already; what remains on the right and below is dropped."""
    return _rows(case, math.floor)


@replays_table("textmonkey")
def replay_all_windows(case: Case) -> list[dict[str, Any]]:
    """The same, but what remains is a smaller window."""
    return _rows(case, math.ceil)


def _rows(case: Case, rounded: Callable[[float], int]) -> list[dict[str, Any]]:
    window, stride = case.parameters["window"], case.parameters["stride"]
    answers = []
    for row in case.record["rows"]:
        size = Size(row["height"], row["width"])
        rows, columns = (max(0, rounded((side - window) / stride) + 1) for side in size)
        corners = [(column * stride, line * stride) for line in range(rows) for column in range(columns)]
        answers.append({
            "width": size.width,
            "height": size.height,
            "rows": rows,
            "cols": columns,
            "boxes": [
                (x, y, min(x + window, size.width), min(y + window, size.height)) for x, y in corners
            ],
        })  # fmt: skip
    return answers
