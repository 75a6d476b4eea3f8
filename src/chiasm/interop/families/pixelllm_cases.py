"""Replays of PixelLLM's cases: what is said of boxes of an image, and where each word is."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.errors import CheckpointError
from chiasm.heads.points import WordPoints
from chiasm.interop.convert import build_model, load_named
from chiasm.interop.families.pixelllm import WITHOUT_EFFECT, rules, specification
from chiasm.interop.mapping import NameMap
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.recipe import load_recipe
from chiasm.sequence import Kind
from chiasm.sequence.layout import Layout

TOWERS = {"eva": "git", "sam": "sam"}  # what the case calls the features of each encoder
PREFIX = "points."  # of the point predictor's tensors, which stands beside the model


@replays("pixelllm", "PixelLlmFlaxModel", without_effect=WITHOUT_EFFECT)
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Each prompt of an image is a document: what is seen from the box, the context words, and the text."""
    inputs = case.inputs
    images = rearrange(inputs["images"], "n h w c -> n c h w")
    height, width = images.shape[-2:]
    if height != width:
        raise CheckpointError(f"{case.name}: images are known as squares only, not {height} x {width} pixels")
    spec, options = specification(case.config, width)
    model, predictor = _loaded(case, spec, options)
    encoders: Any = model.encoder.encoders
    features = {f"{TOWERS[each.name]}_features": each(unnormalised(each, images)) for each in encoders}
    fused = model.encoder.joined([unnormalised(each, images) for each in encoders])
    prompts = inputs["prompt_boxes"].shape[1]
    grids = repeat(fused, "n gh gw c -> (n p) gh gw c", p=prompts)
    seen = model.connector.prompted(grids, rearrange(inputs["prompt_boxes"], "n p b -> (n p) b"))
    visual = model.connector.norm(model.connector.out(seen))
    texts = inputs["text_tokens"].flatten(0, 1).long()
    contexts = (
        inputs["context_tokens"].flatten(0, 1).long() if "context_tokens" in inputs else [None] * len(texts)
    )
    hidden = torch.stack([_read(model, *row, case.name) for row in zip(visual, contexts, texts, strict=True)])
    points, extra = predictor(hidden)
    outputs = {
        "logits": model.language.logits(hidden),
        "point_coords": points * torch.tensor([width, height]),
        "point_logits": extra,
        "prompt_features": seen,
    }
    by_prompt = {name: rearrange(each, "(n p) ... -> n p ...", p=prompts) for name, each in outputs.items()}
    return {**features, "fused_features": fused, **by_prompt}


def _loaded(case: Case, spec: dict[str, Any], options: dict[str, Any]) -> tuple[Any, WordPoints]:
    names: NameMap = rules(spec, options)
    ours, _ = names.to_ours(case.tensors, case.name)
    recipe = load_recipe({"name": "case", "model": spec, "data": {}, "stages": []})
    model, predictor = build_model(recipe.model, None), WordPoints(**options)
    of_points = {name: tensor for name, tensor in ours.items() if name.startswith(PREFIX)}
    parts: list[tuple[nn.Module, dict[str, Tensor], str]] = [
        (model, {name: tensor for name, tensor in ours.items() if name not in of_points}, ""),
        (predictor, of_points, PREFIX),
    ]
    for module, tensors, prefix in parts:
        load_named(module.eval(), tensors, names, case.name, prefix)
    return model, predictor


def _read(
    model: Any,
    visual: Float[Tensor, "k d"],
    context: Int[Tensor, " c"] | None,
    text: Int[Tensor, " t"],
    where: str,
) -> Float[Tensor, "t d"]:
    """Hidden states at the text; 0 among the context words is padding behind them."""
    words = context[: int((context > 0).sum())] if context is not None else text[:0]
    if not bool((words > 0).all()):
        raise CheckpointError(f"{where}: context words are known with padding behind them only")
    embeddings = torch.cat([visual, model.language.embed(words), model.language.embed(text)])
    prompt = len(visual) + len(words)
    place = torch.arange(len(embeddings))
    kinds = torch.where(place < len(visual), int(Kind.READ), int(Kind.TEXT))
    opens = (place >= prompt) | (place == 0)
    every = torch.ones_like(opens)
    layout = Layout(place[None] * 0, opens[None], every[None], kinds=kinds[None])
    return model.language(embeddings[None], layout)[0, prompt:]
