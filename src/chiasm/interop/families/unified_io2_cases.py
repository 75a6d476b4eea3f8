"""Replays of Unified-IO 2's cases."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.heads import GREEDY, finish
from chiasm.inference.session import Session
from chiasm.interop.config import plain
from chiasm.interop.convert import load
from chiasm.interop.families.unified_io2 import FIRST_WORDS
from chiasm.interop.families.vqgan import channels_first, signed, unsigned
from chiasm.interop.family import Original, find_family
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import DrawStep, prompt
from chiasm.interop.parity.verify import replays
from chiasm.nn.losses import cross_entropy
from chiasm.sequence import PADDING, Document, Kind
from chiasm.sequence.layout import Layout
from chiasm.sequence.rule import hiding

BEGIN, END = 0, 1  # of a text, in the original's numbers


@dataclass(frozen=True, eq=False)
class CaseLayout(Layout):
    """A layout as the original has it: what is padding in a prompt is encoded, and padding sees all alike.

    prompt: what the encoder reads.
    """

    prompt: Bool[Tensor, "b t"] = field(default=None, kw_only=True)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "queries", self.documents.shape[1])

    @cached_property
    def first_block(self) -> Bool[Tensor, "b t"]:
        return self.prompt

    @cached_property
    def mask(self) -> Float[Tensor, "b 1 q t"]:
        return hiding(~self.allowed, torch.float32)[:, None]


@dataclass(frozen=True, eq=False)
class CasePiece:
    """Positions of one kind in all rows: what stands there before it is marked, and which are no padding."""

    embeddings: Float[Tensor, "b s d"]
    real: Bool[Tensor, "b s"]
    kind: Kind
    prompt: bool
    cells: Int[Tensor, "b s 3"] | None = None

    def columns(self, document: int) -> dict[str, Tensor]:
        real = self.real
        return {
            "documents": torch.where(real, document, PADDING),
            "opens": torch.full_like(real, not self.prompt),
            "exposed": torch.ones_like(real),
            "kinds": torch.full_like(real, int(self.kind), dtype=torch.long),
            "coordinates": torch.zeros(*real.shape, 3, dtype=torch.long)
            if self.cells is None
            else self.cells,
            "prompt": torch.full_like(real, self.prompt),
        }


def laid(documents: list[list[CasePiece]]) -> tuple[Float[Tensor, "b t d"], dict[str, Any]]:
    """Embeddings and columns of a layout: in each row these documents, one behind another."""
    columns: list[dict[str, Tensor]] = []
    for number, document in enumerate(documents):
        own = [piece.columns(number) for piece in document]
        joined = {name: torch.cat([each[name] for each in own], 1) for name in own[0]}
        first = joined["documents"].ne(PADDING).long().argmax(1)
        joined["opens"][torch.arange(len(first)), first] = True
        columns.append(joined)
    embeddings = torch.cat([piece.embeddings for document in documents for piece in document], 1)
    return embeddings, {name: torch.cat([each[name] for each in columns], 1) for name in columns[0]}


class ReplayedCase:
    """A case's model, and its inputs as pieces."""

    def __init__(self, case: Case):
        config = case.config
        original = Original(_published(config), case.tensors)
        self.model = load(find_family("unified-io-2"), original).model
        self.language = self.model.language
        self.inputs = case.inputs
        ids = torch.arange(self.language.vocabulary_size)
        ids[list(FIRST_WORDS)] = torch.arange(len(FIRST_WORDS))
        self.ids = ids  # ours, by theirs

    def words(self, ids: Int[Tensor, "b s"], real: Tensor, *, prompt: bool) -> CasePiece:
        return CasePiece(self.language.embed(self.ids[ids.long()]), real.bool(), Kind.TEXT, prompt)

    def word_logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]:
        return self.language.logits(hidden)[..., self.ids]

    @cached_property
    def prompt(self) -> list[CasePiece]:
        inputs = self.inputs
        pieces = [self.words(inputs["inputs/text/tokens"], inputs["inputs/text/mask"], prompt=True)]
        if "inputs/image/input" in inputs:
            encoder, size = self.model.encoder, self.model.views.size
            grid, places = encoder.grid(size, size), inputs["inputs/image/pos_ids"].long()
            real = inputs["inputs/image/mask"].bool()
            features = encoder.features(inputs["inputs/image/input"], places, grid, real)
            cells = torch.stack([places, places // grid[1], places % grid[1]], -1)
            pieces.append(CasePiece(self.model.connector(features[:, None]), real, Kind.READ, True, cells))
        return pieces

    def answer_words(self) -> CasePiece:
        inputs = self.inputs
        ids, places = inputs["targets/text/inputs"], inputs["targets/text/pos_ids"]
        segments = inputs.get("targets/text/segment_ids", torch.ones_like(ids))
        if not torch.equal(places, torch.arange(ids.shape[1]).expand_as(places)):
            raise CheckpointError("targets/text/pos_ids do not count the words of one answer")
        if bool((segments != segments[:, :1]).any()):
            raise CheckpointError("targets/text/segment_ids name several answers, of which one is known")
        return self.words(ids, inputs["targets/text/mask"], prompt=False)

    def answer_image(self, codes: Int[Tensor, "b gh gw"]) -> CasePiece:
        head, real = self.model.image_head, self.inputs["targets/image/mask"].bool()
        count = real.shape[1]  # without the last code, behind which nothing is predicted
        cells = torch.tensor(head.layout().coordinates)[:count].expand(len(real), -1, -1)
        return CasePiece(head.prepare(codes).embeddings[:, :count], real, Kind.WRITTEN, False, cells)

    def cosines_and_sines(self) -> Float[Tensor, "b s e"]:
        """Cosines and sines of the encoder's positions, padding counted."""
        parts = []
        for piece in self.prompt:
            words = torch.full_like(piece.real, piece.kind == Kind.TEXT)
            places = torch.arange(words.shape[1]).expand_as(words)
            cells = torch.zeros(*words.shape, 2) if piece.cells is None else piece.cells[..., 1:].float()
            rotary = self.language.rotation(words, places, cells * self.language.read_scale)
            parts.append(torch.view_as_real(rotary).flatten(-2))
        return torch.cat(parts, 1)

    def greedy(self, most: int) -> Int[Tensor, "b n"]:
        """The likeliest words, until all rows have ended; their begin before them."""
        rows = len(self.prompt[0].real)
        drawn = torch.full((rows, 1), BEGIN)
        begin = self.words(drawn, torch.ones_like(drawn), prompt=False)
        embeddings, columns = laid([[*self.prompt, begin]])
        columns.pop("prompt")
        layout, cache = Layout(**columns), self.language.new_cache()
        while True:
            hidden = self.language(embeddings, layout, cache)[:, -1]
            ended = (drawn[:, 1:] == END).any(1)
            words = torch.where(ended, END, self.word_logits(hidden).argmax(-1))
            drawn = torch.cat([drawn, words[:, None]], 1)
            if drawn.shape[1] > most or bool((drawn[:, 1:] == END).any(1).all()):
                return drawn
            embeddings = self.language.embed(self.ids[words[:, None]])
            layout = layout.extended(Layout.causal(rows, 1))

    def scores(self, options: list[list[int]]) -> Float[Tensor, " o"]:
        """The mean loss of each option as the answer to the first prompt; 0 is padding."""
        ids = torch.tensor(options)
        real, before = ids > 0, torch.cat([torch.full_like(ids[:, :1], BEGIN), ids[:, :-1]], 1)
        prompts = [
            replace(
                piece,
                embeddings=piece.embeddings[:1].expand(len(ids), -1, -1),
                real=piece.real[:1].expand(len(ids), -1),
                cells=None if piece.cells is None else piece.cells[:1].expand(len(ids), -1, -1),
            )
            for piece in self.prompt
        ]
        embeddings, columns = laid([[*prompts, self.words(before, real, prompt=False)]])
        columns.pop("prompt")
        logits = self.word_logits(self.language(embeddings, Layout(**columns))[:, -ids.shape[1] :])
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
        return (losses.view_as(ids) * real).sum(1) / real.sum(1)


def _published(config: Mapping[str, Any]) -> dict[str, Any]:
    """A case's config as config.json has it."""
    names = {"t5": "t5_config", "vqgan": "image_vqgan", "vit": "image_vit_cfg"}
    sizes = {names[key]: plain(config[key]) for key in names if key in config}
    return {
        "input_modalities": plain(config["inputs"]),
        "target_modalities": plain(config["targets"]),
        **sizes,
    }


def _mean(logits: Float[Tensor, "b s v"], targets: Int[Tensor, "b s"], learnt: Tensor) -> Tensor:
    chosen = learnt.bool()
    return cross_entropy(logits[chosen], targets[chosen].long()) / chosen.sum()


@replays("unified_io2", "UnifiedIOModel (", without_effect={"generate": "the class of the case says so too"})
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Reads a prompt, and learns answers in words and as an image, each a document of its own."""
    replayed, inputs = ReplayedCase(case), case.inputs
    targets = plain(case.config["targets"])
    documents = {}
    if "text" in targets:
        documents["text"] = [*replayed.prompt, replayed.answer_words()]
    if "image" in targets:
        tokenizer = replayed.model.image_tokenizer
        latents = tokenizer.latents(unsigned(inputs["targets/image/image"].permute(0, 3, 1, 2)))
        quantized = tokenizer.quantize(latents)
        documents["image"] = [*replayed.prompt, replayed.answer_image(quantized.codes)]
    embeddings, columns = laid(list(documents.values()))
    layout = CaseLayout(**columns)
    hidden = replayed.language(embeddings, layout)
    read = sum(piece.real.shape[1] for piece in replayed.prompt)
    lengths = [sum(piece.real.shape[1] for piece in document) for document in documents.values()]
    parts = dict(zip(documents, hidden.split(lengths, 1), strict=True))
    outputs = {
        "encoder_in": replayed.language.marked(embeddings, layout)[:, :read],
        "encoder_out": hidden[:, :read],
        "encoder_rope": replayed.cosines_and_sines(),
    }
    if "text" in targets:
        logits, learnt = replayed.word_logits(parts["text"][:, read:]), inputs["targets/text/mask"]
        words = inputs["targets/text/targets"].long()
        outputs |= {"logits_text": logits, "targets_text": words, "mask_text": learnt.long()}
        outputs["loss_text"] = _mean(logits, words, learnt)
        if "greedy_text" in case.outputs:
            outputs["greedy_text"] = replayed.greedy(case.outputs["greedy_text"].shape[1] - 1)
        if "answer_scores" in case.outputs:
            outputs["answer_scores"] = replayed.scores(_options(case))
    if "image" in targets:
        alphabet, learnt = replayed.model.image_head.alphabet, inputs["targets/image/loss_mask"]
        logits, rows = (
            alphabet.row_logits(parts["image"][:, read:]),
            alphabet.rows(quantized.codes.flatten(1)),
        )
        outputs |= {"logits_image": logits, "targets_image": rows, "mask_image": learnt.long()}
        outputs["loss_image"] = _mean(logits, rows, learnt)
        outputs["vqgan_z"] = channels_first(latents)
        outputs["vqgan_rec"] = signed(tokenizer.render(quantized.vectors))
    return outputs


def _options(case: Case) -> list[list[int]]:
    """The answers that a case scores, which stand in the meaning of their scores."""
    listed = re.search(r"\[\[.*\]\]", case.record["outputs"]["answer_scores"].get("meaning", ""))
    if listed is None:
        raise CheckpointError("answer_scores has no options ([[...], ...]) in its meaning")
    options: list[list[int]] = json.loads(listed[0])
    return options


@replays(
    "unified_io2", "UnifiedIOModel.generate", without_effect={"generate": "the class of the case says so too"}
)
@torch.no_grad()
def replay_drawing(case: Case) -> dict[str, Tensor]:
    """Draws the likeliest codes behind a prompt, guided away from a negative one."""
    replayed, inputs = ReplayedCase(case), case.inputs
    model, head = replayed.model, replayed.model.image_head
    prompts, without = (
        [
            _prompt(replayed.ids[row[real.bool()].long()].tolist())
            for row, real in zip(inputs[place + "tokens"], inputs[place + "mask"], strict=True)
        ]
        for place in ("inputs/text/", "neg/inputs/text/")
    )
    step = DrawStep(Session(model, [*prompts, *(without * len(prompts))[: len(prompts)]]))
    sampling = replace(GREEDY, guidance=1 + case.config.get("gs", 10.0))
    codes = finish(head.write(step.start, sampling), step)
    image = model.image_tokenizer.decode(codes).permute(0, 2, 3, 1)
    name = next(each for each in case.outputs if each.startswith("image_stride"))
    stride = int(name.removeprefix("image_stride"))
    return {"tokens": codes.flatten(1), name: image[:, ::stride, ::stride]}


def _prompt(ids: list[int]) -> Document:
    document = prompt(ids)
    document.join(len(document))
    return document
