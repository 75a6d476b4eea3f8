"""A conversation as the model reads it: token by token, with kinds, attention blocks and what would be learnt."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from chiasm.data.documents import document
from chiasm.data.sample import Sample
from chiasm.errors import naming
from chiasm.model import Model
from chiasm.sequence import IGNORE, Document, Kind, SignalSlot, Slot
from chiasm.serving.messages import RequestImages, check_letters, checked, messages_of
from chiasm.serving.schema import TokensRequest


def tokens_of(model: Model, body: TokensRequest, images: RequestImages) -> dict[str, Any]:
    """One entry a word's token, one an image or a signal.

    A conversation that ends with an answer is shown as it is learnt.
    """
    messages = messages_of(body.messages, images, answered=True)
    sample = Sample("the conversation", tuple(messages))
    with naming("messages"):
        check_letters(model, messages)
        sequence = checked(model, document(model.contract, sample, prompt=messages[-1].role == "user"))
    return {"object": "list", "model": body.model, "total": len(sequence), "data": _entries(model, sequence)}


def _entries(model: Model, sequence: Document) -> list[dict[str, Any]]:
    media: list[Slot | SignalSlot] = [*sequence.slots, *sequence.signals]
    owner = [-1] * len(sequence)
    for place, slot in enumerate(media):
        owner[slot.start : slot.start + slot.length] = [place] * slot.length
    keys = [(place, i if place < 0 else -1) for i, place in enumerate(owner)]
    entries, block = [], -1
    for (place, _), run in groupby(range(len(sequence)), key=lambda i: keys[i]):
        at = list(run)
        blocks = sum(sequence.opens[i] for i in at)
        kind = Kind(sequence.kinds[at[0]])
        entries.append(
            {
                "kind": "text" if place < 0 else _kind(media[place]),
                "text": model.language.tokenizer.inner.decode([sequence.ids[at[0]]]) if place < 0 else "",
                "positions": len(at),
                "block": block + bool(sequence.opens[at[0]]),
                "blocks": blocks,
                "seen": all(sequence.exposed[i] for i in at),
                "learnt": kind == Kind.WRITTEN if place >= 0 else _is_learnt(sequence, at[0]),
            }
        )
        block += blocks
    return entries


def _kind(slot: Slot | SignalSlot) -> str:
    """What stands at the positions of an image or a signal."""
    name = slot.signal.modality if isinstance(slot, SignalSlot) else "image"
    return f"{name} {'written' if slot.kind == Kind.WRITTEN else 'read'}"


def _is_learnt(sequence: Document, place: int) -> bool:
    """Whether the position before it shall predict a token."""
    return place > 0 and sequence.labels[place - 1] != IGNORE
