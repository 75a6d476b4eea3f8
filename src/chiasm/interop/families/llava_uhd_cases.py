"""Replays of LLaVA-UHD's cases: its resampler, its slicing, and the whole on slices that are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from chiasm import parts
from chiasm.interop.convert import load
from chiasm.interop.families.llava_uhd import COMMA, LINE_END, REGIONS, RESAMPLER, SEPARATORS
from chiasm.interop.family import Original, find_family
from chiasm.interop.mapping import NameMap
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import (
    CasePicture,
    case_document,
    load_case,
    read_documents,
    scattered,
    unnormalised,
)
from chiasm.interop.parity.slicing import sliced
from chiasm.interop.parity.verify import replays, replays_table
from chiasm.interop.shapes.resampler_2d import resampler_rules
from chiasm.sequence import PADDING
from chiasm.views import Size
from chiasm.views.slicing import SlicePlan
from chiasm.views.uhd_slices import UHDSlices

IMAGE = -200  # the id that marks an image in the original's input
VIEW_TOKENS = 144  # of the released resampler, by which a table counts
TOKENS = (",", "<0x0A>")


@replays("llava_uhd", "AdaptSpatialResampler", without_effect={})
@torch.no_grad()
def replay_resampler(case: Case) -> dict[str, Tensor]:
    """Features of several grids, and what of the first of them is in each query's region."""
    config, inputs = case.config, case.inputs
    width = config["embed_dim"]
    connector: Any = parts.build(
        "connector",
        {
            "type": "region_resampler",
            "queries": config["grid_size"] ** 2,
            "heads": config["num_heads"],
        },
        config.get("kv_dim") or width,
        width,
    )
    names = NameMap(*resampler_rules(width, "", "", placed=True))
    load_case(connector.eval(), case, names)
    outputs = {}
    for i, (rows, columns) in enumerate(config["sizes"]):
        grid = inputs[f"x{i}"].view(len(inputs[f"x{i}"]), rows, columns, -1)
        outputs[f"y{i}"] = connector(grid)
        outputs[f"regions{i}"] = connector.regions(connector.feature_norm(connector.input(grid[:1])))[0]
    return outputs


@replays_table("llava_uhd")
def replay_slices(case: Case) -> list[dict[str, Any]]:
    """How an image is sliced, and which ids stand behind its slices."""
    parameters = case.parameters
    views = UHDSlices(
        size=parameters["scale_resolution"],
        slices=1 if parameters.get("never_split") else parameters["max_slice_nums"],
        patch=parameters["patch_size"],
        separators=TOKENS,
    )
    rows = []
    for row in case.record["rows"]:
        size = Size(row["height"], row["width"])
        cut_out = views.split(size)
        order = views.arrange(size, [(1, VIEW_TOKENS)] * len(cut_out))
        rows.append({
            **sliced(size, views.plan(size), cut_out[:-1]),
            "ind_tokens": [(COMMA, LINE_END)[-1 - index] for index in order if index < 0],
            "views": len(cut_out),
            "tokens": len(order),
        })  # fmt: skip
    return rows


class CaseSlices(UHDSlices):
    """The slices of a case's images, which it names by sizes of their own."""

    def __init__(self, plans: Mapping[Size, SlicePlan], separators: tuple[str, str]):
        super().__init__(separators=separators)
        self.plans = plans

    def plan(self, size: Size) -> SlicePlan:
        return self.plans[size]


@replays("llava_uhd", "LlavaLlamaForCausalLM")
@torch.no_grad()
def replay_whole(case: Case) -> dict[str, Tensor]:
    """An image is its slices, row by row, and itself; a row without one has an image all the same."""
    inputs = case.inputs
    model = load(find_family("llava-uhd"), Original(_public(case.config), case.tensors)).model
    tokens, plans, images = case.config["ind_tokens"], {}, []
    for i, behind in enumerate(tokens):
        views = [*inputs.get(f"slices{i}", []), inputs[f"source{i}"]]
        size = Size(1, 1 + i)  # of its own, whatever the image's was
        sides = [Size(*view.shape[-2:]) for view in views]
        columns = behind.index(behind[-1]) + 1 if behind else 0
        plans[size] = SlicePlan(sides[-1], sides[0], len(behind) // max(columns, 1), columns)
        pixels = [unnormalised(model.encoder, view) for view in views]
        images.append(CasePicture(f"{i}", size, pixels))
    model.views = CaseSlices(plans, model.views.words)
    mask, documents = inputs["attention_mask"].bool(), []
    for row, real in zip(inputs["input_ids"], mask, strict=True):
        documents.append(case_document(model, row[real], images, IMAGE, repeated=False))
        if not documents[-1].slots:
            images.pop(0)
    read = read_documents(model, documents)
    real = read.batch.documents != PADDING
    return {
        "inputs_embeds": scattered(read.embeddings, real),
        "attention_mask": real.long(),
        "logits": scattered(read.logits, real),
    }


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """A case's config in the form of a published one; its separators are called by their numbers."""
    llava = {
        **config["llm"],
        "model_type": "llava_llama",
        "mm_projector_type": REGIONS,
        "mm_vision_select_layer": config.get("select_layer", -2),
    }
    return {
        "config": llava,
        "vision_config": config["vision"],
        RESAMPLER: config["resampler"],
        SEPARATORS: [f"<{id}>" for id in _separators(config["ind_tokens"])],
    }


def _separators(rows: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The ids behind a slice and behind the last of a row, with which every image's end."""
    ends = [row[-1] for row in rows if row]
    end = ends[0] if ends else 0
    return next((id for row in rows for id in row if id != end), end), end
