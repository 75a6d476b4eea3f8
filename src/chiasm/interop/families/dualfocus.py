"""DualFocus (arXiv 2402.14767): LLaVA-1.5's checkpoints, two looks at an image, and a choice by perplexity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chiasm.errors import DataError
from chiasm.inference.likelihood import mean_losses
from chiasm.interop.config import reader
from chiasm.interop.convert import load
from chiasm.interop.families.llava import IMAGE
from chiasm.interop.family import Original, find_family
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays, replays_table
from chiasm.sequence import IGNORE, PADDING
from chiasm.views import Size
from chiasm.views.focus import MARGIN, Focus


@replays("dualfocus", "LlavaLlamaForCausalLM", without_effect={})
@torch.no_grad()
def replay_selection(case: Case) -> dict[str, Tensor]:
    """Each row holds the same images, whole and enlarged, the same question and another answer."""
    config, inputs = reader(case.config), case.inputs
    llava = {
        **config["llm"],
        "model_type": "llava_llama",
        "mm_projector_type": config["projector"],
        "mm_vision_select_layer": config["select_layer"],
        "image_aspect_ratio": "pad",
    }
    original = Original({"config": llava, "vision_config": config["vision"]}, case.tensors)
    model = load(find_family("llava"), original).model
    pixels = unnormalised(model.encoder, inputs["images"])
    images = [
        CasePicture(str(i), Size(*each.shape[-2:]), each[None])
        for i, each in enumerate(pixels.repeat(len(inputs["input_ids"]), 1, 1, 1))
    ]
    documents = []
    for ids, labels, mask in zip(inputs["input_ids"], inputs["labels"], inputs["attention_mask"].bool()):
        learnt = labels[mask] != IGNORE
        documents.append(case_document(model, ids[mask], images, IMAGE, learnt=learnt, repeated=False))
    read = read_documents(model, documents)
    real, labels = read.batch.documents != PADDING, read.batch.labels
    losses = mean_losses(read.logits[labels != IGNORE], labels)
    return {
        "option_loss": losses,
        "choice": losses.argmin(),
        "attention_mask": real.long(),
        "logits": scattered(read.logits, real),
    }


@replays_table("dualfocus")
def replay_crops(case: Case) -> list[dict[str, Any]]:
    """What is cut out for the box that a model names, in fractions of the image's sides."""
    margin = case.parameters.get("enlarge_pixel", MARGIN)
    return [_row(row, margin) for row in case.record["rows"]]


def _row(row: dict[str, Any], margin: int) -> dict[str, Any]:
    plain = {key: row[key] for key in ("width", "height", "box")}
    try:
        focus = Focus.of(Size(row["height"], row["width"]), tuple(row["box"]), margin)
    except DataError:
        return {**plain, "error": "AssertionError: "}  # the original's, of a box without an area
    return {
        **plain,
        "denormalised": focus.box,
        "square": focus.square,
        "enlarged": focus.enlarged,
        "crop": focus.crop,
    }
