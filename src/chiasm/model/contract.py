"""A model's counts as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chiasm.data.contract import Contract, SignalLayout
from chiasm.errors import ChiasmError
from chiasm.model.signals import modality_of
from chiasm.model.wiring import ALONE
from chiasm.views import Size

if TYPE_CHECKING:
    from chiasm.model import Model


def contract_of(model: Model) -> Contract:
    """What the data side needs to know of a model; raises ChiasmError if it has no language model."""
    if not model.speaks:
        slots = [slot for slot in model.slots() if slot in ALONE and model.spec[slot]["type"] != "tokenizer"]
        alone = " and ".join(slot.replace("_", " ") for slot in slots)
        raise ChiasmError(f"this model is an {alone} alone; it has no language model to read or write with")
    target = model.image_decoder if model.conditions else model.image_tokenizer
    size = target.size if target is not None else None
    return Contract(
        tokenizer=model.language.tokenizer,
        context=model.language.context,
        views=model.views,
        encoder=model.encoder,
        connector=model.connector,
        span=model.image_head.layout() if model.image_head is not None else None,
        written_size=Size(size, size) if size is not None else None,
        sheet=model.image_tokenizer.sheet if model.image_tokenizer is not None else None,
        shown=model.image_head.read_layout()
        if model.reads_targets and model.image_head is not None
        else None,
        says=model.language.says,
        whole_pictures=model.language.whole_pictures,
        encodes_prompt=model.language.encodes_prompt,
        mask_positions=0 if model.mask_head is None else model.mask_head.positions,
        most_masks=None if model.mask_head is None else model.mask_head.most_masks,
        changes_images=model.image_decoder is not None and model.image_decoder.edits,
        cross_attends=model.routing.cross_attends,
        signals={
            name: SignalLayout(modality.positions, tuple(modality.shape))
            for name in model.modalities
            for modality in (modality_of(model.modalities, name),)
        },
    )
