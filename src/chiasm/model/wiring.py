"""A resolved `model` section to parts: what each slot is built with, in the order in which data passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.errors import RecipeError
from chiasm.heads import AnyAlphabet, HeadContext
from chiasm.heads.building import alphabet_of, build_head
from chiasm.heads.segmentation import MaskContext
from chiasm.recipe.slots import MODEL_SLOTS, check_slots, in_order, kind_of
from chiasm.tokenizers import ImageTokenizer
from chiasm.tokenizers.spaces import Space

ALONE = ("encoder", "image_tokenizer", "image_decoder")  # slots that mean something without a language model


def wire(spec: Mapping[str, Mapping[str, Any]], texts: Iterable[str], seed: int) -> dict[str, Any]:
    """The part of every slot, None where the section has none; see `chiasm.model.Model`.

    Raises RecipeError for slots that do not fit each other.
    """
    wiring = Wiring(spec, seed)
    wiring.add("encoder")
    wiring.add("language", texts, "heads.image" in spec)
    if wiring.built["language"] is None:
        _check_alone(spec)
        wiring.add("image_tokenizer")
        wiring.add("image_decoder", decoder_context(wiring.built["image_tokenizer"]))
    else:
        wiring.see()
        wiring.draw()
        for slot in wiring.modalities:
            wiring.add(slot, wiring.built["language"].width)
    return {slot: wiring.built.get(slot) for slot in (*MODEL_SLOTS, *wiring.modalities)}


class Wiring:
    """Slots being built. built: those that are, None where the section has none."""

    def __init__(self, spec: Mapping[str, Mapping[str, Any]], seed: int):
        check_slots(spec)
        self.spec = {slot: parts.check(kind_of(slot), spec[slot], f"model.{slot}") for slot in in_order(spec)}
        self.seed = seed
        self.built: dict[str, Any] = {}
        self.modalities = [slot for slot in self.spec if slot not in MODEL_SLOTS]

    def add(self, slot: str, *wiring: Any, builder: Callable[..., Any] | None = None) -> None:
        """Build a slot. Each draws its initial values from a seed of its own."""
        self.built[slot] = None
        if slot in self.spec:
            digest = hashlib.sha256(f"{self.seed}/{slot}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:4], "big"))
            build = builder or partial(parts.build, kind_of(slot))
            self.built[slot] = build(self.spec[slot], *wiring, where=f"model.{slot}")

    def see(self) -> None:
        """What stands between encoder and language model, and inside it."""
        encoder, language = self.built["encoder"], self.built["language"]
        routing = parts.lookup("routing", self.spec["routing"]["type"])
        crosses: bool = routing.cross_attends  # type: ignore[attr-defined]
        if crosses and encoder is None:
            raise RecipeError(f"routing {routing.name!r} needs an encoder of pictures to read")
        # What is cross-attended keeps the encoder's width.
        width = encoder.width if crosses else language.width
        if encoder is not None:
            self.add("connector", encoder.width, width)
        self.add("views", *self._marker_width(width))
        if crosses and self.built["views"] is not None and self.built["views"].words:
            name = self.built["views"].name
            raise RecipeError(f"views {name!r} have words, which routing {routing.name!r} has no place for")
        self.add("routing", language, *([width] if crosses else []))
        if "heads.mask" in self.spec:
            if encoder is None:
                raise RecipeError(
                    "heads.mask writes masks of images that are read, but the model has no encoder"
                )
            self.add("heads.mask", MaskContext(language.width, encoder.level_widths))

    def draw(self) -> None:
        """What stands behind the language model, where pictures are written."""
        self.add("image_tokenizer")
        tokenizer, language = self.built["image_tokenizer"], self.built["language"]
        if "heads.image" in self.spec and alphabet_of(self.spec["heads.image"]).conditions:
            self.add("image_decoder", DecoderContext(None, tokenizer, language))
            decoder, alphabet = self.built["image_decoder"], alphabet_of(self.spec["heads.image"])
            context = HeadContext(language.width, _conditions(decoder, alphabet), language, decoder=decoder)
            self.add("heads.image", context, builder=build_head)
            if self.built["heads.image"].layout().follows_words and not language.tokenizer.before_picture:
                raise RecipeError(
                    "the image head draws after words, but this language model has no marker that begins an image "
                    "and so ends them; give it one with language.draw_marker"
                )
        elif tokenizer is not None:
            context = HeadContext(language.width, tokenizer.space, language, tokenizer.refinement)
            self.add("heads.image", context, builder=build_head)
            self.add("image_decoder", decoder_context(tokenizer))

    def _marker_width(self, width: int) -> list[int]:
        """What views are built with: the width of their markers, if they have any."""
        if "views" not in self.spec:
            return []
        part: Any = parts.lookup("views", self.spec["views"]["type"])
        connector = self.built.get("connector")
        if not part.marked:
            return []
        if not part.connected or connector is None:
            return [width]
        side = connector.block()
        if side is None:
            raise RecipeError(
                f"views {part.name!r} have markers that pass through the connector, but connector "
                f"{connector.name!r} makes one token of no square of features"
            )
        return [side**2 * self.built["encoder"].width]


def decoder_context(image_tokenizer: ImageTokenizer | None) -> DecoderContext:
    """What an image decoder of the tokenizer's targets is built with; without one it stands alone."""
    return DecoderContext(None if image_tokenizer is None else image_tokenizer.space, image_tokenizer)


def _conditions(decoder: Any, alphabet: type[AnyAlphabet]) -> Space:
    """What a decoder is conditioned on."""
    space: Space = decoder.space
    if type(space) not in alphabet.spaces:
        wanted = alphabet.spaces[0].content
        raise RecipeError(
            f"image_decoder {decoder.name!r} is conditioned on {space.content}, but the alphabet {alphabet.name!r} "
            f"writes {wanted}; use a decoder that is conditioned on {wanted}, or another alphabet"
        )
    return space


def _check_alone(spec: Mapping[str, Any]) -> None:
    """Raise RecipeError unless the slots mean something without a language model."""
    joined = [slot for slot in spec if slot not in ALONE]
    if joined or not spec:
        raise RecipeError(
            f"model has {', '.join(joined) or 'no slots'} but no language; only an image_tokenizer, an "
            "image_decoder or an encoder can stand alone"
        )
