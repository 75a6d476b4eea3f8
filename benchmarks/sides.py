"""The two sides of the comparison: one model, its weights shared, trained by Chiasm and by transformers.

Each runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from chiasm import parts
from chiasm.data import Picture, Source
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.model import Model
from chiasm.recipe import Recipe, load_recipe
from chiasm.sequence import IGNORE, PADDING, Document, Kind, PackedBatch
from chiasm.training.aims import DocumentsAim
from chiasm.training.batches import DocumentBatches
from chiasm.training.feed import Feed
from chiasm.training.optimiser import build_optimiser
from chiasm.training.step import TrainStep
from chiasm.views import View

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """What both sides are given. plan: names of the samples of each step, in order."""

    recipe: dict[str, Any]
    threads: int
    plan: tuple[tuple[str, ...], ...] = ()


class Seen(NamedTuple):
    """What one step has learnt from: positions that hold something, and those with a loss."""

    real: int
    supervised: int


class Chiasm:
    """Packed rows, one attention call for documents of like length, the head on supervised rows only."""

    def __init__(self, settings: Settings):
        self.recipe, self.model, self.source = built(settings)
        self.stage = self.recipe.stages[0]
        self.optimiser = build_optimiser(self.model, self.stage)
        self.step_once = TrainStep(
            DocumentsAim(self.model), self.optimiser, self.stage, Ranks.start(CPU), CPU
        )

    def batches(self) -> DocumentBatches:
        return DocumentBatches(self.model.contract, {"samples": self.source}, self.stage, seed=0)

    def plan(self) -> tuple[tuple[str, ...], ...]:
        """Names of the samples that each step takes, so that the other side takes the same."""
        batches, order = self.batches(), self.batches().mixture
        steps = []
        for _ in range(self.stage.steps):
            packed, _ = batches.pack()
            names = []
            for _ in range(sum(len(set(row.tolist()) - {PADDING}) for row in packed.documents)):
                names.append(order.peek()[1].name)
                order.advance()
            steps.append(tuple(names))
        return tuple(steps)

    def seen(self, batch: PackedBatch) -> Seen:
        return Seen(batch.real, int((batch.labels != IGNORE).sum()))

    def places(self, batch: PackedBatch) -> int:
        return batch.ids.numel()

    def loss(self, batch: PackedBatch) -> float:
        return float(self.model.losses(batch)["text"].mean)

    def step(self, batch: PackedBatch) -> float:
        return self.step_once([batch]).losses["text"]


class Transformers:
    """`LlavaForConditionalGeneration` on right-padded batches, with its own image splice and its own loss."""

    def __init__(self, settings: Settings):
        self.recipe, owner, self.source = built(settings)
        self.stage, self.plan = self.recipe.stages[0], settings.plan
        self.contract, self.encoder = owner.contract, owner.encoder
        self.peer = peer(owner)
        learns = [p for p in self.peer.parameters() if p.requires_grad]
        rate = self.stage.train["language"]
        self.optimiser = torch.optim.AdamW(
            learns, lr=rate, betas=self.stage.betas, weight_decay=0.0, fused=True
        )
        self.learns = learns

    def batches(self) -> Padded:
        return Padded(self)

    def seen(self, batch: dict[str, Tensor]) -> Seen:
        return Seen(int(batch["attention_mask"].sum()), int((batch["labels"] != IGNORE).sum()))

    def places(self, batch: dict[str, Tensor]) -> int:
        return batch["input_ids"].numel()

    def loss(self, batch: dict[str, Tensor]) -> float:
        return float(self.peer(**batch, use_cache=False).loss)

    def step(self, batch: dict[str, Tensor]) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.stage.precision == "bf16"):
            loss = self.peer(**batch, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.learns, self.stage.clip)
        self.optimiser.step()
        return float(loss.detach())


SIDES = {"chiasm": Chiasm, "transformers": Transformers}


class Padded:
    """The plan's samples, each step's padded at the right to the longest of them."""

    def __init__(self, side: Transformers):
        self.side = side
        self.reader = PictureReader(side.contract)
        self.taken = 0

    @cached_property
    def places(self) -> dict[str, int]:
        return {self.side.source[index][0].name: index for index in range(len(self.side.source))}

    def next(self) -> dict[str, Tensor]:
        return self.fill(self.pack())

    def pack(self) -> tuple[str, ...]:
        self.taken += 1
        return self.side.plan[self.taken - 1]

    def fill(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        samples = [self.side.source[self.places[name]][0] for name in names]
        return self._padded([document(self.side.contract, sample) for sample in samples])

    def state(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.taken = state["taken"]

    def _padded(self, documents: list[Document]) -> dict[str, Tensor]:
        shape = (len(documents), max(map(len, documents)))
        ids = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORE)
        mask = torch.zeros(shape, dtype=torch.long)
        image = self.side.peer.config.image_token_id
        for row, each in enumerate(documents):
            kinds = torch.tensor(each.kinds)
            ids[row, : len(each)] = torch.where(kinds == Kind.READ, image, torch.tensor(each.ids))
            labels[row, 1 : len(each)] = torch.tensor(each.labels[:-1])  # transformers shifts by itself
            mask[row, : len(each)] = 1
        pictures = [slot.picture for each in documents for slot in each.slots]
        crops = [self.reader.crops(each, self._views(each)) for each in pictures]
        pixels = torch.stack([crop for each in crops for crop in each])
        encoder: Any = self.side.encoder
        pixels = (pixels - encoder.mean) / encoder.deviation
        return {"input_ids": ids, "labels": labels, "attention_mask": mask, "pixel_values": pixels}

    def _views(self, picture: Picture) -> list[View]:
        return [view for view, _ in self.side.contract.read_views(picture.size, "")]


def built(settings: Settings) -> tuple[Recipe, Model, Source]:
    """The recipe, its model with initial weights that depend on the seed alone, and its samples."""
    recipe = load_recipe(settings.recipe)
    model = Model(recipe.model, seed=recipe.seed)
    model.train_only(recipe.stages[0].train)
    return recipe, model, parts.build("data", recipe.data["samples"])


def peer(model: Model) -> LlavaForConditionalGeneration:
    """transformers' LLaVA on the very tensors of `model`, so that weights exist once and are equal.

    The tower's blocks behind the chosen layer stay as they were initialised: nothing reads them.
    """
    tower: dict[str, Any] = dict(model.spec["encoder"]["config"])
    language: Any = model.language.inner  # type: ignore[union-attr]
    config = LlavaConfig(
        vision_config=transformers.AutoConfig.for_model(tower.pop("model_type"), **tower),
        text_config=language.config,
        image_token_index=language.config.vocab_size - 1,  # an id that the tokenizer does not use
        vision_feature_layer=model.spec["encoder"]["layer"],
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    other = LlavaForConditionalGeneration._from_config(config, attn_implementation="sdpa").train()
    named = {theirs(name): tensor for name, tensor in model.named_parameters()}
    surplus = set(named) - set(dict(other.named_parameters()))
    if surplus:
        raise KeyError(f"transformers' LLaVA has no parameters {sorted(surplus)[:5]}")
    other.load_state_dict(named, strict=False, assign=True)
    other.model.vision_tower.requires_grad_(False)
    return other


def theirs(name: str) -> str:
    """The name of one of Chiasm's parameters in transformers' LLaVA."""
    for ours, other in (
        ("encoder.model.", "model.vision_tower."),
        ("connector.layers.0.", "model.multi_modal_projector.linear_1."),
        ("connector.layers.2.", "model.multi_modal_projector.linear_2."),
        ("language.inner.model.", "model.language_model."),
        ("language.inner.lm_head.", "lm_head."),
    ):
        if name.startswith(ours):
            return other + name.removeprefix(ours)
    raise KeyError(name)


def serve(pipe: Connection, name: str, settings: Settings) -> None:
    """Run one side in this process: answers `losses` and `round` until the pipe is closed."""
    torch.set_num_threads(settings.threads)
    before = memory("VmRSS")
    side: Any = SIDES[name](settings)
    if isinstance(side, Chiasm):
        pipe.send(side.plan())
    losses = list(_fp32_losses(side))
    forget_peak()
    with Feed(side.batches()) as feed:
        pipe.send(losses)
        with suppress(EOFError):
            while True:
                pipe.send(_round(side, feed, pipe.recv()) | {"peak": memory("VmHWM") - before})


def _fp32_losses(side: Any) -> Iterator[tuple[float, int]]:
    """(mean loss, supervised positions) of the first steps' samples, before any training, in float32."""
    batches = side.batches()
    with torch.no_grad():
        for _ in range(2):
            batch = batches.next()
            yield side.loss(batch), side.seen(batch).supervised


def _round(side: Any, feed: Feed[Any], steps: int) -> dict[str, Any]:
    losses, seen, waited, places = [], [], 0.0, 0
    began, busy = time.perf_counter(), time.process_time()
    for _ in range(steps):
        taken = feed.take()
        losses.append(side.step(taken.batch))
        seen.append(side.seen(taken.batch))
        waited += taken.waited
        places += side.places(taken.batch)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - busy,
        "waited": waited,
        "seen": seen,
        "losses": losses,
        "places": places,
    }


def memory(field: str) -> float:
    """MiB of this process, as the kernel counts them: VmRSS is now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> None:
    """Let VmHWM begin anew from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
