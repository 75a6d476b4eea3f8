"""Replays of MiniCPM-V's cases: its resamplers, its whole models on slices that are cut, and its slicing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from chiasm import parts
from chiasm.errors import CheckpointError
from chiasm.interop.convert import load
from chiasm.interop.families.minicpm_v import USUAL, _slices
from chiasm.interop.family import Original, find_family
from chiasm.interop.mapping import NameMap
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, load_case, read_documents, unnormalised
from chiasm.interop.parity.slicing import sliced
from chiasm.interop.parity.verify import replays, replays_table
from chiasm.interop.shapes.resampler_2d import resampler_rules
from chiasm.model import Model
from chiasm.views import Size
from chiasm.views.bounded import Bounded
from chiasm.views.slices import Slices

IMAGE = -1  # the id that stands for an image in a row of ours
TIMM = {"embed_dim": "width", "depth": "layers", "num_heads": "heads"}  # its names and ours of a structure
LONGEST = 1 << 14  # pixels of a side of a slice that is read as it stands


@replays("minicpm_v", "Resampler", without_effect={
    "max_size": "of a table that grows as it is needed", "tgt_sizes": "read where the grids are not square",
})  # fmt: skip
@torch.no_grad()
def replay_resampler(case: Case) -> dict[str, Tensor]:
    """Features of several grids, each for itself."""
    config, inputs = case.config, case.inputs
    width, fed = config["embed_dim"], config.get("kv_dim") or config["embed_dim"]
    adaptive = config.get("adaptive", False)
    newer = "num_queries" in config
    connector = parts.build(
        "connector",
        {
            "type": "resampler_2d",
            "queries": config["num_queries"] if newer else config["grid_size"] ** 2,
            "heads": config["num_heads"],
            "positions": "keys" if newer else "both" if adaptive else "resized",
        },
        fed,
        width,
    )
    names = NameMap(*resampler_rules(width, "", "", placed=not newer))
    load_case(connector.eval(), case, names)
    if newer:
        grids = inputs["tgt_sizes"].tolist()
        answers = [
            connector(each[: r * c].view(1, r, c, -1))
            for each, (r, c) in zip(inputs["x"], grids, strict=True)
        ]
        return {"y": torch.cat(answers)}
    sizes = config.get("tgt_sizes")
    outputs = {}
    for i in range(len(inputs)):
        x = inputs[f"x{i}"]
        rows, columns = sizes[i] if sizes else (math.isqrt(x.shape[1]),) * 2
        outputs[f"y{i}"] = connector(x.view(len(x), rows, columns, -1))
    return outputs


@replays("minicpm_v", "MiniCPMV")
@torch.no_grad()
def replay_whole(case: Case) -> dict[str, Tensor]:
    """Each slice is an image of its own, between bounds that the case names."""
    inputs = case.inputs
    model = load(find_family("minicpm-v"), Original(_public(case.config), case.tensors)).model
    patch = model.encoder.patch_size
    model.views = Bounded(longest=LONGEST, shortest=1, patch=patch if isinstance(patch, int) else patch[0])
    documents, features = [], []
    for row, ids in enumerate(inputs["input_ids"]):
        _check_positions(inputs["position_ids"][row])
        bounds = _named(inputs, "image_bound", row).tolist()
        images = [_slice(model, inputs, row, i) for i in range(len(bounds))]
        features += [model.connector(model.encode(image.tiles)) for image in images]
        spliced = ids.clone()
        for start, end in bounds:
            spliced[start:end] = IMAGE
        documents.append(case_document(model, spliced, images, IMAGE, repeated=True))
    return {"vision": torch.cat(features), "logits": read_documents(model, documents).logits}


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """A case's config in the form of a published one."""
    shared = {key: value for key, value in config.items() if key not in ("vit", "vision", "llm")}
    vision: dict[str, Any] = {"vision_encoder": "vit", "slice_mode": True}
    if "vit" in config:
        vision["vit"] = {TIMM.get(key, key): value for key, value in config["vit"].items()}
    else:
        vision = {"vision_config": config["vision"], "use_image_id": True}
    return {**config["llm"], **shared, **vision}


def _named(inputs: Mapping[str, Tensor], name: str, row: int) -> Tensor:
    """An input that is called by one name in 2.0 and by its singular in 2.6."""
    return inputs[f"{name}s{row}"] if f"{name}s{row}" in inputs else inputs[f"{name}{row}"]


def _slice(model: Model, inputs: Mapping[str, Tensor], row: int, number: int) -> CasePicture:
    pixels, grids = inputs[f"pixels{row}_{number}"], inputs.get(f"tgt_sizes{row}")
    encoder: Any = model.encoder
    if grids is not None:  # patches side by side
        rows, columns = grids[number].tolist()
        pixels = rearrange(pixels, "c p (r s q) -> c (r p) (s q)", r=rows, s=columns)
        pixels = unnormalised(encoder, pixels[None])
    else:  # filled up to whole patches, with what is grey to the encoder
        height, width = (-side % encoder.patch_size for side in pixels.shape[-2:])
        pixels = functional.pad(pixels[None], (0, width, 0, height)) * 0.5 + 0.5
    return CasePicture(f"{row}/{number}", Size(*pixels.shape[-2:]), pixels)


def _check_positions(positions: Tensor) -> None:
    if not torch.equal(positions, torch.arange(len(positions))):
        raise CheckpointError("position_ids are known as counted from 0 only")


@replays_table("minicpm_v")
def replay_slices(case: Case) -> list[dict[str, Any]]:
    """How an image is sliced, and what the language model reads, with ? for a visual token."""
    parameters = case.parameters
    layouts = {
        name: Slices(
            **{
                key: value
                for key, value in _slices({**parameters, **version}, USUAL).items()
                if key != "type"
            }
        )
        for name, version in {"placeholder_v2": {}, "placeholder_new": {"use_image_id": True}}.items()
    }
    rows = []
    for row in case.record["rows"]:
        size = Size(row["height"], row["width"])
        views = layouts["placeholder_v2"]
        plan, patch = views.plan(size), parameters["patch_size"]
        rows.append({
            **sliced(size, plan, views.split(size)[1:]),
            "source_patches_hw": [side // patch for side in plan.overview],
            **{name: _placeholder(each, size) for name, each in layouts.items()},
        })  # fmt: skip
    return rows


def _placeholder(views: Slices, size: Size) -> str:
    order = views.arrange(size, [(1, 2)] * len(views.split(size)))
    return "".join("?" if index >= 0 else views.words[-1 - index] for index in order)
