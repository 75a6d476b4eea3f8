"""Replays of PSALM's case: masks for classes that are named, for a sentence, and for regions."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.convert import load
from chiasm.interop.families.psalm import Psalm
from chiasm.interop.family import Original, find_family
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.model import Model
from chiasm.nn.region_pooling import region_means
from chiasm.sequence.layout import Layout

IMAGE, SEGMENT, CLASS, REGION, SENTENCE = -200, -201, -202, -203, -204  # ids that stand for something else
CHANNELS = 8  # of the mask features, which a case stores
KINDS = {"class": (CLASS, "classes"), "refer": (SENTENCE, "sentence"), "region": (REGION, "regions")}


@replays("psalm", "PSALM", without_effect=Psalm.without_effect)
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """One image, and up to three prompts, each with its own kind of condition."""
    config, inputs = case.config, case.inputs
    model = load(find_family("psalm"), Original(dict(config), case.tensors)).model
    pyramid = model.encoder.pyramid(unnormalised(model.encoder, inputs["images"]))
    image_tokens = model.connector(pyramid[-1])
    features, levels = model.heads.mask.pixel_decoder(pyramid)
    outputs = {"image_tokens": image_tokens, "mask_features": features[:, :CHANNELS], "level0": levels[0]}
    for name, (condition, kind) in KINDS.items():
        if f"{name}_ids" not in inputs:
            continue
        rows = [
            _row(model, case, inputs[f"{name}_ids"][i], image_tokens[i], i) for i in range(len(image_tokens))
        ]
        scored = []
        for i, (embeddings, standing) in enumerate(rows):
            hidden = model.language(embeddings[None], Layout.causal(1, len(embeddings)))
            asked = [hidden[:, standing == each].mean(1) for each in _numbers(standing, condition)]
            queries = hidden[:, standing == SEGMENT]
            of_image = [level[i : i + 1] for level in pyramid]
            scored.append(
                (hidden, model.heads.mask.propose(queries, of_image, {kind: torch.stack(asked, 1)})[-1])
            )
        outputs[f"{name}_hidden"] = torch.cat([hidden for hidden, _ in scored])
        outputs[f"{name}_masks"] = torch.cat([each.masks for _, each in scored])
        logits = torch.cat([each.scores[kind] for _, each in scored])
        outputs[f"{name}_logits"] = rearrange(logits, "n q k -> (n k) q") if name == "region" else logits
    return outputs


def _row(
    model: Model, case: Case, ids: Int[Tensor, " t"], image: Float[Tensor, "k d"], row: int
) -> tuple[Float[Tensor, "s d"], Int[Tensor, " s"]]:
    """What is read in place of a row of ids, and for each position what stands there.

    Words are 0; the n-th condition of its kind is the kind's id less 1,000 for each before it.
    """
    pieces: list[Tensor] = []
    standing: list[int] = []
    seen = 0
    for each in ids.tolist():
        if each >= 0:
            piece, mark = model.language.embed(torch.tensor([each])), 0
        elif each == IMAGE:
            piece, mark = image, IMAGE
        elif each == SEGMENT:
            assert model.mask_head is not None
            piece, mark = model.mask_head.embeddings(), SEGMENT
        else:
            piece, mark = _condition(model, case, each, image, row, seen), each - 1000 * seen
            seen += 1
        pieces.append(piece)
        standing += [mark] * len(piece)
    return torch.cat(pieces), torch.tensor(standing)


def _condition(
    model: Model, case: Case, mark: int, image: Float[Tensor, "k d"], row: int, number: int
) -> Float[Tensor, "k d"]:
    inputs = case.inputs
    if mark == SENTENCE:
        return model.language.embed(inputs["token_refer_id"][row])
    if mark == CLASS:
        owners = inputs["cls_indices"][row]
        classes = owners[owners >= 0].unique_consecutive()
        return model.language.embed(inputs["class_name_ids"][row][owners == classes[number]])
    if mark == REGION:
        side = math.isqrt(len(image))
        grid = rearrange(image, "(gh gw) c -> gh gw c", gh=side)
        return region_means(grid, inputs["region_masks"][row][number : number + 1])
    raise CheckpointError(f"{case.name}: the id {mark} stands for nothing that is known")


def _numbers(standing: Int[Tensor, " s"], mark: int) -> list[int]:
    """The conditions of a kind in their order."""
    return [each for each in standing.unique().flip(0).tolist() if each <= mark and (mark - each) % 1000 == 0]
