"""Wrong in one place or a few: data, text, bytes and files of weights that are nearly what a program expects."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

Tree = Any  # of lists, mappings and plain values
DEEP = 5_000  # levels of nesting


def nested_deeply(levels: int = 200) -> Tree:
    value: Tree = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


ODD: tuple[Callable[[], Tree], ...] = tuple(
    (lambda value=value: copy.deepcopy(value))
    for value in (
        None, True, False, 0, -1, 1, 2, 3, 2.5, -0.0, 10**7, 2**31, 2**63 - 1, -(2**63), 10**19, 10**400,
        1e300, 5e-324,
        float("nan"), float("inf"), float("-inf"), "", "x", " ", "\x00", "\n", "../../../../../../up",
        "/etc/passwd",
        "a/b", ".", "..", "~", "-x", "[/bold]", "{{ x }}", "{% for i in range(10**9) %}{% endfor %}", "%s",
        "${HOME}",
        "\ud800", "\u202e", "é", "e\u0301", "İ", "ß", "\u200b", "é" * 300, "x" * 100_000, "null", "1e-3",
        "010", "1:30",
        "no", "2026-01-01", ".nan", "0x10", "١٢", [], {}, [[]], [None], [0], {"": ""}, {"type": None},
        {"type": "x"},
        [1, "a"], {"a": {"b": {}}}, [0.5] * 1000, nested_deeply(),
    )
)  # fmt: skip


def odd(dice: random.Random) -> Tree:
    return dice.choice(ODD)()


def places(tree: Tree, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested lists and mappings."""
    if at:
        yield at
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def at(tree: Tree, way: Sequence[Any]) -> Tree:
    for key in way:
        tree = tree[key]
    return tree


def tree(value: Tree, dice: random.Random, other: Tree = None) -> Tree:
    """The value with one to three things wrong in it. other: from which a part may come instead."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        ways = list(places(value))
        if not ways:
            return odd(dice)
        *way, last = dice.choice(ways)
        holder = at(value, way)
        dice.choice(_EDITS)(holder, last, dice, other if other is not None else value)
    return value


def _replace(holder: Any, key: Any, dice: random.Random, other: Tree) -> None:
    holder[key] = odd(dice)


def _retype(holder: Any, key: Any, dice: random.Random, other: Tree) -> None:
    """The same value as another type, or another number near it or far from it."""
    value = holder[key]
    choices: list[Tree] = [[value], {"value": value}, json.dumps(value, default=str), [value] * 3]
    if isinstance(value, int | float):
        choices += [
            -value,
            value + 1,
            value - 1,
            value * 1000,
            value * 10**12,
            str(value),
            0 * value,
            [value, 0.5],
        ]
    if isinstance(value, str):
        choices += [
            value.upper(),
            value + " ",
            value[:-1],
            value * 50,
            value.replace("e", "é"),
            value.encode().hex(),
        ]
    if isinstance(value, list):
        choices += [value[::-1], value * 2, value[:1], {str(i): each for i, each in enumerate(value)}]
    if isinstance(value, dict):
        choices += [list(value), list(value.values())]
    holder[key] = dice.choice(choices)


def _drop(holder: Any, key: Any, dice: random.Random, other: Tree) -> None:
    del holder[key]


def _rename(holder: Any, key: Any, dice: random.Random, other: Tree) -> None:
    if isinstance(holder, dict):
        names = [
            f"{key}x",
            str(key)[:-1],
            str(key).upper(),
            f"{key}\u200b",
            "type",
            "",
            "__class__",
            "../x",
            "base",
        ]
        holder[dice.choice(names)] = holder.pop(key)
    else:
        holder.insert(dice.randrange(len(holder) + 1), odd(dice))


def _add(holder: Any, key: Any, dice: random.Random, other: Tree) -> None:
    """Something more: the same under another name, or a name that stands elsewhere with its value."""
    if isinstance(holder, list):
        holder.append(copy.deepcopy(dice.choice([holder[key], odd(dice)])))
        return
    way = dice.choice([each for each in places(other) if isinstance(each[-1], str)] or [("x",)])
    value = at(other, way) if way != ("x",) else holder[key]
    holder[dice.choice([way[-1], f"{key}x"])] = copy.deepcopy(value)


def _swap(holder: Any, key: Any, dice: random.Random, other: Tree) -> None:
    """A value from elsewhere."""
    ways = list(places(other))
    holder[key] = copy.deepcopy(at(other, dice.choice(ways))) if ways else odd(dice)


_EDITS = (_replace, _replace, _retype, _retype, _drop, _rename, _add, _swap)


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Bytes that are cut off, flipped, doubled, blanked, or put in at one to four places, most near the start."""
    content = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        most = len(content) if dice.random() < 0.5 else min(64, len(content))
        place, kind = dice.randrange(most + 1), dice.randrange(7)
        length = dice.choice([1, 2, 4, 32])
        if kind == 0:
            del content[place:]
        elif kind == 1:
            del content[place : place + length]
        elif kind == 2 and place < len(content):
            content[place] ^= 1 << dice.randrange(8)
        elif kind == 3:
            content[place:place] = content[place : place + length]
        elif kind == 4:
            content[place : place + length] = dice.choice([b"\x00", b"\xff", b"\x7f"]) * length
        elif kind == 5:
            content[place:place] = dice.randbytes(length)
        else:
            content += content[:place]
    return bytes(content)


def text(source: str, dice: random.Random) -> bytes:
    """A text of lines that are swapped, doubled, left out, cut, or joined by what a parser may trip over."""
    lines = source.splitlines(keepends=True) or [""]
    for _ in range(dice.randint(1, 3)):
        i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
        kind = dice.randrange(6)
        if kind == 0:
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 1:
            lines.insert(j, lines[i])
        elif kind == 2 and len(lines) > 1:
            del lines[i]
        elif kind == 3:
            lines[i] = lines[i][: dice.randrange(len(lines[i]) + 1)]
        elif kind == 4:
            lines[i] = dice.choice(["  ", "\t", "- ", "\ufeff", "? ", "&a ", "*a ", "!x ", "'"]) + lines[i]
        else:
            lines.insert(i, dice.choice(BROKEN_LINES))
    return "".join(lines).encode("utf-8", "surrogatepass")


BROKEN_LINES = (
    "a: &a [x]\nb: &b [*a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c]\n",
    "x: !!python/object/apply:os.system ['touch RAN']\n", "x: !!python/object/new:os.mkdir [RAN]\n",
    "x: !!python/name:os.system\n", "x: !!binary aGVsbG8=\n", "x: !!timestamp 2026-01-01\n",
    "x: !!set {a, b}\n",
    "<<: {a: 1}\n", "---\n", "...\n", "%YAML 9.9\n", "? [a, b]\n: c\n", "x: [" * DEEP + "\n",
    "{" * DEEP + "\n",
    "name: a\nname: b\n", "x: |\n", "x: >\n y\n", "x: 1" + "0" * 5000 + "\n", "\x00\n", "\x85", "\u2028",
    "x: *unknown\n",
    "base: recipe.yaml\n", "base: ../../../../../../etc/passwd\n",
)  # fmt: skip


class Runs:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


def pickles(canary: Path, dice: random.Random) -> bytes:
    """A file whose loading makes another, in a form that torch or pickle reads."""
    victim: Tree = Runs(canary) if dice.random() < 0.5 else {"state_dict": {"a": Runs(canary)}}
    if dice.random() < 0.3:
        return pickle.dumps(victim, protocol=dice.choice([0, 2, 4]))
    buffer = io.BytesIO()
    torch.save(victim, buffer, _use_new_zipfile_serialization=dice.random() < 0.6)
    return buffer.getvalue()


def safetensors(data: bytes, dice: random.Random) -> bytes:
    """A file of weights with something wrong in its header, or with other tensors than it had."""
    length = int.from_bytes(data[:8], "little")
    try:
        header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    except ValueError:  # it is damaged already
        return damaged(data, dice)
    kind = dice.randrange(5)
    if kind == 0:
        return damaged(data, dice)
    if kind == 1:
        return struct.pack("<Q", dice.choice([0, 1, length - 1, length + 1, 2**27, 2**40, 2**63])) + data[8:]
    if kind == 2:
        header = tree(header, dice)
    else:
        name = dice.choice([each for each in header if each != "__metadata__"] or [""])
        entry = header.get(name) or {}
        changes: list[Callable[[], Any]] = [
            lambda: entry.update(dtype=dice.choice(["F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3",
            "C64", "F32"])),
            lambda: entry.update(shape=entry.get("shape", [])[::-1]),
            lambda: entry.update(shape=[-1, 2**62]),
            lambda: entry.update(data_offsets=[0, len(body)]),
            lambda: header.update({name + dice.choice(["x", ".weight", "\u200b"]): header.pop(name, {})}),
            lambda: header.pop(name, None),
        ]  # fmt: skip
        dice.choice(changes)()
        if kind == 3:
            start = dice.randrange(max(1, len(body) - 8))
            body = (
                body[:start]
                + dice.choice([b"\x00\x00\xc0\x7f", b"\xff" * 4, b"\x00" * 4])
                + body[start + 4 :]
            )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body
