"""Calls of the Python API with odd arguments."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_stock as stock
import mutated
import numpy as np
import torch
from fuzz_worker import Action
from mutated import odd
from PIL import Image

import chiasm
from chiasm.conversation import as_messages

_OF_IMAGES = {"guidance": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0}
_OF_WORDS = {
    "tokens": 3, "word_temperature": 0.0, "word_top_k": 0, "word_top_p": 1.0, "repetition_penalty": 1.0,
    "stop": None,
    "seed": 0,
}  # fmt: skip
ARGUMENTS: dict[str, dict[str, Any]] = {
    "chat": {"messages": "What?", "tools": None, **_OF_WORDS, **_OF_IMAGES},
    "zoom": {"messages": [{"role": "user", "content": [{"image": "RGB.png"}, "What?"]}], **_OF_WORDS},
    "generate": {"prompt": "a dog", "count": 1, "verbatim": False, **_OF_IMAGES},
    "edit": {"images": "RGB.png", "prompt": "a dog", "mask": None, "count": 1, **_OF_IMAGES},
    "complete": {"pictures": ["RGB.png"], "count": 1, "temperature": 1.0, "top_k": 0, "top_p": 1.0,
    "seed": 0},
    "segment": {"image": "RGB.png", "question": "Where?"},
    "load": {"folder": "run", "device": "cpu", "dtype": None},
    "load_recipe": {"source": "quickstart", "overrides": [], "tiny": True},
    "train": {"recipe": None, "folder": "run", "overrides": [], "tiny": False, "device": "cpu", "dtype": None,
              "other_data": False, "workers": 0},
    "evaluate": {"folder": "run", "overrides": ["evaluation.samples=2"], "device": "cpu", "dtype": None},
    "use": {"plugin": "nothing.py"},
    "as_messages": {"conversation": {"messages": []}},
}  # fmt: skip
MODELS = (
    "runs/small",
    "runs/small",
    "runs/small",
    "models/show-o",
    "models/psalm",
    "models/instruct-pix2pix",
    "models/llava",
)
OBJECTS: tuple[Callable[[], Any], ...] = (
    object, set, lambda: b"", lambda: b"\x89PNG", lambda: iter([]), lambda: len, lambda: Path("RGB.png"),
    lambda: Path("."),
    lambda: np.zeros((4, 4, 3), np.uint8), lambda: np.zeros((0, 4, 3), np.uint8), lambda: np.zeros((4, 4)),
    lambda: np.int64(1),
    lambda: np.float32("nan"), lambda: np.array("a"), lambda: torch.zeros(3, 4, 4), lambda: torch.tensor(1),
    lambda: torch.float16,
    lambda: torch.int8, lambda: torch.device("meta"), lambda: Image.new("RGB", (0, 4)),
    lambda: Image.new("RGB", (1, 3000)),
    lambda: Image.new("LA", (40, 24)), lambda: Image.new("F", (40, 24), 9.0), lambda: Image.new("RGBA", (40,
    24)), lambda: 1j,
    lambda: range(3), lambda: (), lambda: ("a dog", "a cat"), lambda: ["RGB.png"] * 3,
    lambda: {"image": "RGB.png"},
    lambda: "RGB.png", lambda: ["a dog", 1], lambda: bytearray(b"x"), lambda: float, lambda: type("Odd", (),
    {"__len__": None})(),
)  # fmt: skip


def call(dice: random.Random, here: Path, source: Path) -> Action:
    """One function, of chiasm or of a model, with one to three arguments that are odd."""
    name = dice.choice(sorted(ARGUMENTS))
    arguments = dict(ARGUMENTS[name])
    if name == "train":
        arguments["recipe"] = stock.small_recipe(str(source / "data" / "records.jsonl"))
    if name in ("load", "train", "evaluate"):
        shutil.copytree(source / "runs" / "small", here / "run")
    for image in ("RGB.png", "mask.png"):
        shutil.copy(source / "data" / image, here / image)
    if name in ("chat", "zoom", "as_messages") and dice.random() < 0.5:
        conversation = dice.choice([*stock.RECORDS, *stock.MORE_RECORDS, stock.RECORDS[1]["messages"]])
        arguments[next(iter(arguments))] = mutated.tree(conversation, dice)
    for _ in range(dice.choice([1, 1, 2, 3])):
        key = dice.choice(list(arguments))
        arguments[key] = _argument(key, arguments[key], dice)
    if name == "as_messages":
        return lambda: as_messages(arguments["conversation"])
    if name == "use":
        return lambda: chiasm.use(arguments["plugin"])
    if name in ("load", "load_recipe", "train", "evaluate"):
        return lambda: getattr(chiasm, name)(**arguments)
    model = _loaded(source / dice.choice(MODELS))
    return lambda: getattr(model, name)(**arguments)


def _argument(key: str, sound: Any, dice: random.Random) -> Any:
    chance = dice.random()
    if chance < 0.2 and isinstance(sound, list | dict):
        return mutated.tree(sound, dice)
    return dice.choice(OBJECTS)() if chance < 0.5 else odd(dice)


@cache
def _loaded(folder: Path) -> Any:
    return chiasm.load(folder, "cpu")
