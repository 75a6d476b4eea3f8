"""Writes docs/grid.md, where every recipe that draws has its place, from the recipes: `python docs/grid.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from chiasm import parts
from chiasm.heads.denoising import TokenDenoising
from chiasm.recipe import load_recipe, recipes

HERE = Path(__file__).parent
HEAD = """# Orders, alphabets and decoders

How a model draws is three choices, each made by itself: in which **order** the positions of an image are
predicted, in which **alphabet** a position says what it has to say, and which **decoder** makes pixels of that.
What the parts are stands in [systems](systems.md#how-a-picture-is-drawn), their options in [parts](parts.md).
Published systems are points of this grid, and so are those that nobody has published: an order takes any alphabet
of what it writes. Here is where the recipes lie, at their published sizes. This page is written by `python
docs/grid.py`.
"""
# Systems of which there is no recipe, where they lie.
OTHERS = {
    ("masked", "own"): "MaskGIT (2202.04200)",
    ("masked", "diffusion"): "MAR (2406.11838)",
    ("raster", "shared"): "Emu3 (2409.18869)",
    ("whole", "flow"): "Bagel (2505.14683)",
}
BETWEEN = """
## Which go together

Recipes at each crossing of an order and an alphabet, and in italics systems of which there is none. *Free*:
nobody is there, but it can be built, trained and drawn with (the [contract tests](../tests/test_contracts.py) try
each with a small model). *-*: the two do not write the same. Whatever is written, its decoder is the image
tokenizer's own, or one that diffuses and is conditioned on codes, vectors or words. VITRON writes no image: its
words call a [tool](systems.md#words-as-control), which may be any model of this page.
"""


def page(drawn: Collection[str]) -> str:
    """drawn: recipes of which docs/learn.md has pictures."""
    points = {name: point for name in sorted(recipes()) if (point := point_of(name)) is not None}
    lines = [
        HEAD,
        "| recipe | order | alphabet | what is written | decoder | pictures |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, (order, alphabet, target, decoder) in points.items():
        seen = f"[as they came out](learn.md#{name})" if name in drawn else ""
        cells = (f"[{name}](../recipes/{name}.yaml)", f"`{order}`", f"`{alphabet}`", target, decoder, seen)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, BETWEEN, *crossings({name: each[:2] for name, each in points.items()})]) + "\n"


def point_of(name: str) -> tuple[str, str, str, str] | None:
    """Order, alphabet, target and decoder of a recipe; None = it draws nothing."""
    model = load_recipe(name).model
    head = model.get("heads.image")
    if head is None:
        return None
    alphabet = parts.lookup("alphabet", head["alphabet"]["type"])
    return head["type"], alphabet.name, _target(model, alphabet), _decoder(model)


def crossings(points: Mapping[str, tuple[str, str]]) -> list[str]:
    """A table of orders and alphabets with the recipes at each crossing."""
    orders, alphabets = parts.names("order"), parts.names("alphabet")
    lines = [f"| | {' | '.join(f'`{each}`' for each in orders)} |", "| --- |" + " --- |" * len(orders)]
    for alphabet in alphabets:
        cells = []
        for order in orders:
            here = [name for name, point in points.items() if point == (order, alphabet)]
            here += [f"*{OTHERS[order, alphabet]}*"] if (order, alphabet) in OTHERS else []
            free = _fits(parts.lookup("order", order), parts.lookup("alphabet", alphabet))
            cells.append(", ".join(here) or ("*free*" if free else "-"))
        lines.append(f"| `{alphabet}` | {' | '.join(cells)} |")
    return lines


def _fits(order: Any, alphabet: Any) -> bool:
    """Whether both write the same; `u_vit` denoises by itself."""
    denoises = order.name == "u_vit" and issubclass(alphabet, TokenDenoising)
    return not denoises and parts.takes(order, "alphabet", alphabet)


def _target(model: Mapping[str, Any], alphabet: Any) -> str:
    if alphabet.conditions:
        return "what the decoder is conditioned on"
    (space,) = {each.content for each in alphabet.spaces}
    return f"{space} of `{model['image_tokenizer']['type']}`"


def _decoder(model: Mapping[str, Any]) -> str:
    decoder = model.get("image_decoder")
    if decoder is None or decoder["type"] == "tokenizer":
        return "the image tokenizer's own"
    held = [decoder[key]["type"] for key in ("denoiser", "conditioner") if decoder.get(key)]
    edits = ", beside a source image" if decoder.get("edits") else ""
    return f"`{decoder['type']}`" + (
        f" ({' behind '.join(f'`{each}`' for each in held)}{edits})" if held else ""
    )


if __name__ == "__main__":
    drawn = {path.stem for path in (HERE / "learn").glob("*.webp")}
    (HERE / "grid.md").write_text(page(drawn), encoding="utf-8")
