"""Replays of SEED-X's encoder, and of the language model that reads and draws with its features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chiasm import parts
from chiasm.data.picture_reader import PictureReader
from chiasm.heads import GREEDY, finish
from chiasm.inference.session import Session
from chiasm.interop.convert import build_model
from chiasm.interop.mapping import NameMap, OwnTensors, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import DrawStep
from chiasm.interop.parity.replay import CasePicture, load_case, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes import qwen_vl, seed_x
from chiasm.interop.shapes.towers import causal_config
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import Document, Kind, PackedBatch, ReadImages, Slot, WrittenImages, pack
from chiasm.views import Size

BEGIN = 48  # <img> in the cases' small vocabulary; the words of an image follow, and behind them </img>
STOP = 2


@replays(
    "seed_x",
    "VisionTransformerWithAttnPool",
    without_effect={"image_size": "positions are interpolated to whatever the images have"},
)
@torch.no_grad()
def replay_encoder(case: Case) -> dict[str, Tensor]:
    """The frozen encoder, and the target that its features are drawn as."""
    spec = qwen_vl.encoder(case.config)
    encoder = parts.build("encoder", spec).eval()
    names = NameMap(*qwen_vl.encoder_rules(spec, "", "encoder."))
    load_case(encoder, case, names, "encoder.")
    grid = encoder(unnormalised(encoder, case.inputs["img"]))
    return {"features": grid.flatten(1, 2), "features_down": _strips(grid.flatten(1, 2))}


@replays("seed_x", "ContinuousLVLM", without_effect={})
@torch.no_grad()
def replay_agent(case: Case) -> dict[str, Tensor]:
    """The losses of reading and drawing together, and an answer that draws."""
    model, inputs = _agent(case), case.inputs
    batch = _batch(case, model)
    losses = {name: loss.mean for name, loss in model.losses(batch).items()}
    drawn = losses.get("image", torch.zeros(()))
    answer, features = _answer(case, model)
    assert model.connector is not None
    outputs = {
        "lm_loss": losses["text"],
        "rec_loss": drawn,
        "total_loss": losses["text"] + case.config["rec_scale"] * drawn,
        "input_resampled": model.connector(_square(inputs["image_embeds"])),
        "sequences": torch.cat([inputs["prompt_ids"], answer], 1),
    }
    return outputs | ({"img_gen_feat": features} if features is not None else {})


def _strips(features: Float[Tensor, "n s c"]) -> Float[Tensor, "n k c"]:
    return rearrange(features, "n (k p) c -> n k p c", p=seed_x.POOL).mean(2)


def _square(features: Float[Tensor, "n s c"]) -> Float[Tensor, "n r r c"]:
    return rearrange(features, "n (r c) d -> n r c d", r=round(features.shape[1] ** 0.5))


def _agent(case: Case) -> Model:
    """The model of a case, in which an encoder that is not the case's stands for the one whose features it has."""
    config = case.config
    words = list(range(BEGIN + 1, BEGIN + 1 + config["n_tok"]))
    agent = {"vit_down": True, "mse": config["mse"], **_resamplers(case)}
    features = case.inputs["image_embeds"].shape[1]
    side = round(features**0.5)
    stand_in = {
        **{"type": "qwen_vl", "patch_size": 1, "width": 1, "depth": 1, "heads": 1, "hidden": 1},
        **{"side": side, "out_width": config["venc"], "pool_heads": 1},
    }
    language = {
        "vocab_size": len(case.tensors["llm.model.embed_tokens.weight"]),
        "hidden_size": config["hidden"],
        "intermediate_size": config["inter"],
        "num_hidden_layers": config["layers"],
        "num_attention_heads": config["heads"],
    }
    spec = {
        "views": {"type": "seed_x_tiles", "size": side, "located": "patch_pos_embed" in case.tensors},
        "encoder": stand_in,
        "connector": seed_x.resampler_part(agent["input_resampler"]),
        "language": {
            **causal_config(language, "llama"),
            **{"draw_marker": f"<{BEGIN}>", "draw_end": f"<{words[-1] + 1}>"},
        },
        "image_tokenizer": {
            "type": "features",
            "encoder": stand_in,
            "size": side,
            "grid": [side, side // seed_x.POOL],
        },
        "heads": {"image": seed_x.head(agent, words)},
    }
    recipe = load_recipe({"name": "seed_x", "model": spec, "data": {}, "stages": []})
    model: Any = build_model(recipe.model, None).eval()
    names = NameMap(
        *seed_x.agent_rules((config["hidden"], config["venc"]), ""),
        *[OwnTensors(f"{slot}.{{rest...}}") for slot in ("encoder", "image_tokenizer", "image_decoder")],
        OwnTensors("views.markers"),
        Unused("llm.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
        Rule("llm.{rest...}", "language.inner.{rest...}"),
    )
    load_case(model, case, names)
    return model  # type: ignore[no-any-return]


def _resamplers(case: Case) -> dict[str, Any]:
    heads = case.config["rheads"]
    sides = seed_x.agent_shape(case.tensors)
    return {name: {**sides[name], "num_heads": heads} for name in ("input_resampler", "output_resampler")}


class _Features(PictureReader):
    """Gives images that are read the features and places of a case."""

    def __init__(self, model: Model, features: Float[Tensor, "n s c"], centres: Float[Tensor, "n 2"] | None):
        super().__init__(model.contract)
        self.model, self.grids, self.centres = model, _square(features), centres

    def attach(self, batch: PackedBatch, slots: Any) -> PackedBatch:
        read = [(start, slot) for start, slot in slots if slot.kind == Kind.READ]
        if not read:
            return batch
        lengths = [slot.length for _, slot in read]
        assert self.model.connector is not None
        located = self.centres is not None and self.model.views is not None and self.model.views.locates
        images = ReadImages(
            groups=[self.grids],
            encoded=True,
            places=torch.cat([torch.arange(start, start + slot.length) for start, slot in read]),
            sources=torch.arange(sum(lengths)),
            tokens=[self.model.connector.tokens((self.grids.shape[1], self.grids.shape[2]))],
            lengths=lengths,
            centres=[self.centres] if located and self.centres is not None else None,
        )
        return replace(batch, read=images)


def _document(
    model: Model,
    ids: Int[Tensor, " t"],
    real: Bool[Tensor, " t"],
    read: Bool[Tensor, " t"],
    written: Bool[Tensor, " t"],
    learnt: Bool[Tensor, " t"],
) -> Document:
    """A row of a case; images fill the places where `read` or `written` is True."""
    result, position = Document("a row of the case"), 0
    span, picture = model.contract.span, CasePicture("case", Size(1, 1), torch.zeros(1, 3, 1, 1))
    assert span is not None
    connector: Any = model.connector
    tokens = connector.side**2
    while position < len(ids):
        if read[position]:
            result.add_picture(picture, Kind.READ, 0, [True] * tokens, [True] * tokens)
            position += tokens
        elif written[position]:
            columns = span.opens, span.exposed, span.coordinates
            result.add_picture(picture, Kind.WRITTEN, 0, *columns)
            position += span.length
        else:
            if real[position]:
                result.add_text([int(ids[position])], learn=bool(learnt[position]))
            position += 1
    return result


def _batch(case: Case, model: Model) -> PackedBatch:
    """The rows of a case as training sees them."""
    inputs = case.inputs
    names = ("input_ids", "attention_mask", "ids_cmp_mask", "ids_gen_mask")
    ids, mask, read, written = (inputs[name] for name in names)
    learnt = inputs["labels"] != -100
    documents = [_document(model, *row) for row in zip(ids, mask.bool(), read, written, learnt, strict=True)]
    batch, slots = pack([[each] for each in documents])
    own = inputs["embeds_cmp_mask"]
    centres = inputs.get("patch_positions")
    reader = _Features(model, inputs["image_embeds"][own], None if centres is None else centres[own])
    batch = reader.attach(batch, slots)
    starts = [start for start, slot in slots if _is_written(slot)]
    if starts:
        strips = _strips(inputs["image_embeds"][inputs["embeds_gen_mask"]])
        targets = strips.unflatten(1, model.image_tokenizer.grid)  # type: ignore[union-attr]
        batch.written.image = WrittenImages(targets, True, torch.tensor(starts))
    return batch


def _is_written(slot: Slot) -> bool:
    return slot.kind == Kind.WRITTEN


def _answer(case: Case, model: Model) -> tuple[Int[Tensor, "1 m"], Float[Tensor, "i k c"] | None]:
    """The ids of a greedy answer, those of the words of images among them, and the vectors of its images."""
    inputs, most = case.inputs, case.config["max_new"]
    (ids,), (read,) = inputs["prompt_ids"], inputs["prompt_cmp_mask"]
    nowhere, everywhere = torch.zeros_like(read), torch.ones_like(read)
    document = _document(model, ids, everywhere, read, nowhere, nowhere)
    reader = _Features(model, inputs["prompt_image_embeds"], inputs.get("prompt_patch_pos"))
    session = Session(model, [document], reader)
    head: Any = model.image_head
    answer: list[int] = []
    images: list[Tensor] = []
    last = int(ids[-1])
    while len(answer) < most and last != STOP:
        if last == BEGIN:
            step = DrawStep(session)
            images.append(finish(head.write(step.start, GREEDY), step).flatten(1, 2))
            answer += head.words
            last = head.words[-1] + 1
        else:
            last = int(model.text_logits(session.last).argmax())
        answer.append(last)
        session.step_text(torch.tensor([last]))
    whole = len(answer) <= most  # an image whose end was cut off is none
    return torch.tensor([answer[:most]]), torch.cat(images) if images and whole else None
