"""Forms that recipes and checkpoints had before, as a table: what `chiasm upgrade` changes, and all else refuses.

A row leaves what is of today's form as it is, so that no version need be written down or asked for.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from chiasm.errors import OutdatedError, RecipeError, excerpt, quoted
from chiasm.recipe.overlay import merge

Section = MutableMapping[str, Any]
Rename = Callable[[str], str]


class Row(Protocol):
    """One change of form."""

    def rewrite(self, recipe: Section, under: Mapping[str, Any]) -> list[str]:
        """Change a raw recipe in place; returns what was changed. under: what it is laid over."""

    def renames(self, model: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Patterns of names of tensors and their replacements, for a `model` section of the older form."""

    def slot_of(self, slot: str) -> str:
        """What a slot is called today."""


@dataclass(frozen=True)
class MovedPart:
    """A part that has another name, or whose options stand elsewhere.

    options: today's dotted place of each option that has moved. values: by dotted place, what the older form left
    unsaid; a function works it out from the older options, and decides alone. tensors: patterns of names below the
    slot, and their replacements. moves_to: the dotted slot of today, where a `MovedSlot` behind this row moves it.
    """

    slot: str
    old: str
    new: str
    options: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    moves_to: str | None = None

    def rewrite(self, recipe: Section, under: Mapping[str, Any]) -> list[str]:
        model = recipe.get("model")
        spec = model.get(self.slot) if isinstance(model, dict) else None
        if not isinstance(model, dict) or not isinstance(spec, dict):
            return []
        if not self._is_old(spec, _part(under, self.slot) or _part(under, self.moves_to or self.slot)):
            return []
        stated = "type" in spec
        model[self.slot] = self._today(spec, stated)
        moved = [f"{key} -> {self.options[key]}" for key in spec if key in self.options]
        named = [f"{self.old} -> {self.new}"] if stated and self.old != self.new else []
        spelled = [] if named or moved else [f"{place} spelled out" for place in self.values]
        changes = [*named, *moved, *spelled]
        return [f"model.{self.slot}: {', '.join(changes)}"] if changes else []

    def renames(self, model: Mapping[str, Any]) -> list[tuple[str, str]]:
        if _part({"model": model}, self.slot).get("type") != self.old:
            return []
        slot = re.escape(self.slot)
        return [(rf"^{slot}\.{pattern}", f"{self.slot}.{name}") for pattern, name in self.tensors.items()]

    def slot_of(self, slot: str) -> str:
        return slot

    def _is_old(self, spec: Mapping[str, Any], under: Mapping[str, Any]) -> bool:
        """under: the part that an overlay without a type changes, of either form."""
        moves = any(key in self.options for key in spec)
        kinds = {place: value for place, value in self.values.items() if place.endswith(".type")}
        if "type" in spec:
            lacks = any(_get(spec, place) is None for place in kinds)
            return spec["type"] == self.old and (moves or lacks or self.old != self.new)
        today = under.get("type") == self.new and all(_get(under, p) == value for p, value in kinds.items())
        return moves and (under.get("type") == self.old or today)

    def _today(self, spec: Mapping[str, Any], stated: bool) -> dict[str, Any]:
        today = {key: value for key, value in spec.items() if key not in self.options}
        today |= {"type": self.new} if stated else {}
        for place in filter(lambda place: stated and place.endswith(".type"), self.values):
            _put(today, place, self.values[place])
        for key in filter(self.options.__contains__, spec):
            _put(today, self.options[key], spec[key])
        for place, value in self.values.items() if stated else ():
            if callable(value):
                _put(today, place, value(spec))
            elif _get(today, place) is None:
                _put(today, place, value)
        return today


@dataclass(frozen=True)
class MovedSlot:
    """A slot that has another name, in stages and in front of its tensors too. new: may be dotted."""

    old: str
    new: str

    def rewrite(self, recipe: Section, under: Mapping[str, Any]) -> list[str]:
        changed = []
        model = recipe.get("model")
        if isinstance(model, dict) and self.old in model:
            _put(model, self.new, model.pop(self.old))
            changed.append(f"model.{self.old} -> model.{self.new}")
        for stage in _stages(recipe):
            train = stage.get("train")
            if isinstance(train, dict) and self.old in train:
                stage["train"] = {self.slot_of(key): rate for key, rate in train.items()}
                changed.append(f"train.{self.old} -> train.{self.new}")
        start = recipe.get("start")
        if isinstance(start, dict) and self.old in (start.get("slots") or ()):
            start["slots"] = [self.slot_of(slot) for slot in start["slots"]]
            changed.append(f"start.slots: {self.old} -> {self.new}")
        return list(dict.fromkeys(changed))

    def renames(self, model: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [(rf"^{re.escape(self.old)}\.", f"{self.new}.")] if self.old in model else []

    def slot_of(self, slot: str) -> str:
        return self.new if slot == self.old else slot


def _head(old: str, order: str, alphabet: str, options: Sequence[str] = (), **values: Any) -> MovedPart:
    """An image head of one piece, today an order and an alphabet. options: those that are the alphabet's."""
    return MovedPart(
        "image_head",
        old,
        order,
        options={name: f"alphabet.{name}" for name in options},
        values={"alphabet.type": alphabet} | {key.replace("__", "."): value for key, value in values.items()},
        tensors={r"(codes|adapter|output|tables|layers|norm|outputs)\.": r"alphabet.\1."},
        moves_to="heads.image",
    )


_SUB_TOKENS = ("bits", "depth", "heads", "hidden", "rope_base", "epsilon", "dropout")
_STRENGTHS = ("guidance_offsets", "temperature_factors", "top_ks")
_NO_WORDS: dict[str, Any] = {"before": [], "before_read": [], "behind": []}


def _nested(old: str, new: str, kind: str, moved: str, **values: Any) -> MovedPart:
    """An image tokenizer whose quantizer is now a part that it holds. moved: options that are the quantizer's."""
    today = {"code_width": "width"}
    options = {option: f"quantizer.{today.get(option, option)}" for option in moved.split()}
    places = {place.replace("__", "."): value for place, value in values.items()}
    return MovedPart("image_tokenizer", old, new, options, {"quantizer.type": kind, **places})


def _lowest(spec: Mapping[str, Any]) -> list[int]:
    """The height of the lowest level of LlamaGen's and Janus' tokenizers, which attends."""
    size = spec.get("size", 384 if spec["type"] == "vqgan_unit" else 256)
    return [size // 2 ** (len(spec.get("multipliers", [1, 1, 2, 2, 4])) - 1)]


def _muse_attention(spec: Mapping[str, Any]) -> list[int]:
    return spec.get("attention_sizes", []) if spec.get("depth", 2) > 1 else []


def _muse_decoder_attention(spec: Mapping[str, Any]) -> list[int]:
    """Levels of a single block did not attend."""
    size, depths = spec.get("size", 256), spec.get("decoder_depths", [])
    alone = [size // 2**level for level, blocks in enumerate(depths) if blocks == 1]
    return [each for each in spec.get("attention_sizes", []) if each not in alone]


_NEAREST = "codebook_size code_width codebook_weight commitment"
_LFQ = "bits commitment entropy"
# In the order in which the changes were made.
_DENOISING = {
    r"diffusion\.unet\.": "denoising.denoiser.inner.",
    r"diffusion\.vae\.": "denoising.autoencoder.inner.",
}

TABLE: tuple[Row, ...] = (
    # Quantizers became parts, and the networks round them one.
    _nested("vqgan", "vqgan", "nearest", f"{_NEAREST} entropy revive_after"),
    _nested("vqgan_fsq", "vqgan", "fsq", "levels code_width symmetric"),
    _nested("vqgan_lfq", "vqgan", "lfq_projected", f"{_LFQ} code_width diversity soft_clamp spherical"),
    _nested(
        "vqgan_cosine", "vqgan", "cosine", "codebook_size code_width commitment entropy",
        attention_sizes=_lowest, absolute=0.0, squared=1.0,
    ),
    _nested(
        "vqgan_unit", "vqgan", "unit", _NEAREST, size=384, attention_sizes=_lowest,
        quantizer__codebook_size=16384, quantizer__width=8,
    ),
    _nested(
        "vqgan_gumbel", "vqgan", "gumbel", "codebook_size temperature kl", multipliers=[1, 1, 2, 4],
        attention_sizes=[32], quantizer__width=lambda spec: spec.get("latent_width", 256),
    ),
    MovedPart(
        "image_tokenizer", "vqgan_bits", "vqgan",
        {option: f"quantizer.{option}" for option in (*_LFQ.split(), "repeated")} | {"depths": "depth"},
        {
            "quantizer.type": "lfq_bitwise", "latent_width": lambda spec: spec.get("bits", 13),
            "multipliers": [1, 2, 2, 4, 4], "decoder_multipliers": [1, 1, 2, 2, 4], "depth": [4, 3, 4, 3, 4],
            "decoder_depths": [4, 4, 3, 4, 3], "attention_sizes": [],
        },
    ),
    _nested(
        "vqgan_muse", "vqgan", "nearest", _NEAREST, signed=False, multipliers=[1, 2, 2, 4, 6],
        attention_sizes=_muse_attention, decoder_attention_sizes=_muse_decoder_attention, middle_attention=False,
        latent_width=64, quantizer__codebook_size=8192, quantizer__width=64,
    ),
    _nested(
        "vqgan_video", "vqgan_video", "nearest", f"{_NEAREST} revive_after", quantizer__codebook_size=32768,
        quantizer__width=4, quantizer__codebook_weight=1.0, quantizer__commitment=0.25,
    ),
    _nested("lfq", "open_magvit2", "lfq", f"{_LFQ} sure even"),
    _nested("lfq_video", "open_magvit2_video", "lfq", f"{_LFQ} sure even"),
    # Image heads became orders and alphabets, and stand by what they write.
    _head("next_token", "raster", "own"),
    _head("next_token_mlp", "raster", "mlp", ("code_width", "depth", "hidden"), cells=False),
    _head("llamagen", "raster", "own", cells=False, alphabet__deviation=0.0),
    _head("factorised", "raster", "factorised", (*_SUB_TOKENS, *_STRENGTHS), cells=False),
    _head("shared_next_token", "raster", "shared", ("first", "table", "against", "counted_as"), cells=False),
    _head("masked", "masked", "own"),
    _head("shared_masked", "masked", "shared", ("first", "against"), cells=False, steps=18, **_NO_WORDS),
    _head("variable_next_token", "variable", "shared", ("first", "end", "stray")),
    _head("next_scale", "scales", "own", alphabet__bias=True, alphabet__deviation=3.6e-4),
    MovedSlot("image_head", "heads.image"),
    # Decoders that draw by diffusion share one loop.
    MovedPart("image_decoder", "lavit_diffusion", "lavit_diffusion", tensors=_DENOISING),
    MovedPart("image_decoder", "lavit_diffusion_sd15", "lavit_diffusion_sd15", tensors=_DENOISING),
)  # fmt: skip


def renewed(
    raw: Mapping[str, Any], under: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """A raw recipe in today's form, and what was changed. under: the raw recipe that it is laid over."""
    recipe, changes = copy.deepcopy(dict(raw)), []
    for row in TABLE:
        beneath = under or {}
        tiny = recipe.get("tiny")
        if isinstance(tiny, dict):
            changes += [f"tiny.{each}" for each in row.rewrite(tiny, _laid_over(beneath, recipe))]
        changes += row.rewrite(recipe, beneath)
    return recipe, changes


def renamed(model: Mapping[str, Any]) -> Rename:
    """Today's name of each tensor of a checkpoint, whose `model` section may be of an older form."""
    steps, section = [], {"model": copy.deepcopy(dict(model))}
    for row in TABLE:
        steps += row.renames(section["model"])
        row.rewrite(section, {})
    patterns = [(re.compile(pattern), name) for pattern, name in steps]

    def rename(name: str) -> str:
        for pattern, today in patterns:
            name = pattern.sub(today, name)
        return name

    return rename


def slot_today(slot: str) -> str:
    """What a slot that may be of an older form is called today."""
    for row in TABLE:
        slot = row.slot_of(slot)
    return slot


def refuse_old(raw: Mapping[str, Any], path: Path | None, under: Mapping[str, Any] | None = None) -> None:
    """Raise OutdatedError for a recipe of an older form, with the command that converts it. path: its file."""
    changes = renewed(raw, under)[1]
    if not changes:
        return
    where, what = (path, _holder(path)) if path is not None else ("the recipe", "FILE")
    raise OutdatedError(
        f"{where} is of an older form ({excerpt(changes[0], 200)}); bring it up to date: chiasm upgrade {what}"
    )


def _holder(path: Path) -> Path:
    """What `chiasm upgrade` is called with for a file: the run or the checkpoint in which it stands, if any."""
    folder = path.parent
    for run in (folder, folder.parent, folder.parent.parent):
        if (run / "run.json").is_file() and (run / "recipe.yaml").is_file():
            return run
    return folder if (folder / "parts.json").is_file() else path


def _part(recipe: Mapping[str, Any], slot: str) -> Mapping[str, Any]:
    spec = _get(recipe, f"model.{slot}")
    return spec if isinstance(spec, Mapping) else {}


def _laid_over(under: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The parts alone: nothing else of what an overlay lies over decides on its form."""
    models = [each.get("model") for each in (under, recipe)]
    lower, upper = (each if isinstance(each, Mapping) else {} for each in models)
    return {"model": merge(lower, upper, "model")}


def _stages(recipe: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The stages of a recipe, or of an overlay that names them."""
    stages = recipe.get("stages")
    items = (
        stages.values() if isinstance(stages, Mapping) else stages if isinstance(stages, list | tuple) else ()
    )
    return (stage for stage in items if isinstance(stage, dict))


def _get(section: Mapping[str, Any], place: str) -> Any:
    for key in place.split("."):
        section = section.get(key) if isinstance(section, Mapping) else None  # type: ignore[assignment]
    return section


def _put(section: Section, place: str, value: Any) -> None:
    *folders, last = place.split(".")
    for key in folders:
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, MutableMapping):
            raise RecipeError(f"{key} is {quoted(section)}; it must be a mapping of options")
    section[last] = value
