"""Every number among the options of a part has a range, and what lies outside is refused by name."""

import math

import pytest

from chiasm import parts
from chiasm.errors import RecipeError

SLOTS = ("image_tokenizer", "critic", "quantizer")
NUMBERS = {"int": (-1, 10**12), "float": (-0.5, math.nan, math.inf, -math.inf, 1e300)}


def numbers():
    """Each option that takes a number, or a list of them, with values out of any range."""
    for slot in SLOTS:
        for name in parts.names(slot):
            for option in parts.options(parts.lookup(slot, name)).values():
                plain = option.type.removesuffix(" | None")
                listed = plain.startswith("list[")
                for value in NUMBERS.get(plain[5:-1] if listed else plain, ()):
                    yield pytest.param(slot, name, option.name, [value] if listed else value,
                                       id=f"{name}.{option.name}={value}")  # fmt: skip


def needed(slot, name):
    """Options that a part cannot do without."""
    return [option for option in parts.options(parts.lookup(slot, name)).values() if option.required]


def complete(slot):
    """A part of a slot that needs no option."""
    return next(name for name in parts.names(slot) if not needed(slot, name))


@pytest.mark.parametrize(("slot", "name", "option", "value"), numbers())
def test_a_number_out_of_range_is_refused_by_name(slot, name, option, value):
    required = {option.name: {"type": complete(option.annotation.slot)} for option in needed(slot, name)}
    with pytest.raises(RecipeError, match=rf"^model\.part\.{option} is "):
        parts.check(slot, {"type": name, **required, option: value}, "model.part")


@pytest.mark.parametrize(
    ("slot", "name", "option", "value"),
    [
        ("alphabet", "shared", "first", True),
        ("language", "causal", "embedding_std", True),
        ("image_tokenizer", "vqgan", "multipliers", [1, True]),
        ("data", "world", "tasks", {"count": True}),
        ("data", "world", "objects", [False, 4]),
    ],
)
def test_a_boolean_is_no_number(slot, name, option, value):
    with pytest.raises(RecipeError, match=rf"^model\.part\.{option} is .*: a boolean is no number"):
        parts.check(slot, {"type": name, option: value}, "model.part")


@pytest.mark.parametrize(("option", "value"), [("multipliers", []), ("multipliers", [1] * 13), ("size", 2.5)])
def test_lists_have_a_length_and_counts_are_whole(option, value):
    with pytest.raises(RecipeError, match=rf"^model\.part\.{option} is "):
        parts.check("image_tokenizer", {"type": "vqgan", option: value}, "model.part")


def test_a_type_is_told_without_its_bounds():
    known = parts.options(parts.lookup("image_tokenizer", "lavit"))
    assert known["size"].type == "int"
    assert known["most"].type == "int | None"
    known = parts.options(parts.lookup("image_tokenizer", "vqgan"))
    assert known["multipliers"].type == "list[int]"
    assert known["critics"].type == "list[Critic]"
