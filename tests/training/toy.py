"""A small data source and recipes for the tests of training."""

from __future__ import annotations

import random

from PIL import Image

from chiasm.data import Message, Sample, Source
from chiasm.data.files import PictureInMemory
from chiasm.recipe import Recipe, load_recipe

COLOURS = {"red": (220, 30, 30), "green": (20, 200, 40), "blue": (30, 40, 230), "white": (250, 250, 250)}
GRID = {"size": 16, "downsample": 8, "codebook_size": 16, "code_width": 8, "width": 32, "depth": 1}


class Squares(Source, name="test_squares"):
    """Groups of a question, a drawing and words about a square of one colour on another.

    Args:
        groups: number of groups.
        kinds: which documents a group has: see, draw, words.
        unreadable: index of a group that cannot be read; -1 = none.
    """

    def __init__(
        self, *, groups: int = 40, kinds: tuple[str, ...] = ("see", "draw", "words"), unreadable: int = -1
    ):
        self.groups, self.kinds, self.unreadable = groups, kinds, unreadable

    def __len__(self) -> int:
        return self.groups

    def __getitem__(self, index: int) -> list[Sample]:
        dice = random.Random(index)
        inner, outer = dice.sample(sorted(COLOURS), 2)
        picture = square(inner, outer, dice.randrange(8))
        said = f"a {inner} square on {outer}"
        made = {
            "see": ((picture, "What is it?"), (said,)),
            "draw": ((f"Draw {said}.",), (picture,)),
            "words": (
                ("Say something " + "very " * dice.randrange(6) + "true.",),
                (f"{inner} is not {outer}",),
            ),
        }
        if index == self.unreadable:
            from chiasm.errors import DataError

            raise DataError(f"group {index} of test_squares is broken")
        return [
            Sample(f"{kind} {index}", (Message("user", made[kind][0]), Message("assistant", made[kind][1])))
            for kind in self.kinds
        ]

    @property
    def fingerprint(self) -> str:
        return f"squares {self.groups} {self.kinds}"


def square(inner: str, outer: str, place: int) -> PictureInMemory:
    image = Image.new("RGB", (16, 16), COLOURS[outer])
    image.paste(COLOURS[inner], (place, place, place + 8, place + 8))
    return PictureInMemory(image)


def raw(**changes) -> dict:
    """A recipe of a tokenizer's stage and a stage of everything else, in a few seconds."""
    recipe = {
        "name": "toy",
        "model": {
            "views": {"type": "whole", "size": 16},
            "encoder": {"type": "vit", "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "size": 16},
            "connector": {"type": "mlp"},
            "language": {
                "type": "causal",
                "config": {
                    "model_type": "llama",
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 2,
                    "max_position_embeddings": 256,
                    "tie_word_embeddings": True,
                },
                "vocabulary": 400,
            },
            "image_tokenizer": {"type": "vq", "settle": 2, **GRID},
            "heads": {"image": {"type": "raster", "alphabet": {"type": "own"}, "unconditional": 0.2}},
        },
        "data": {"squares": {"type": "test_squares"}},
        "stages": [
            {
                "name": "codes",
                "train": {"image_tokenizer": 1e-3},
                "data": {"squares": 1.0},
                "steps": 12,
                "rows": 8,
            },
            {
                "name": "learn",
                "train": {"connector": 2e-3, "language": 2e-3, "heads.image": 2e-3},
                "data": {"squares": 1.0},
                "steps": 12,
                "rows": 2,
                "length": 128,
                "weight_decay": 0.1,
                "blind": 0.2,
            },
        ],
        "checkpoints": {"every": 3, "keep": 2},
    }
    return recipe | changes


def toy(*overrides: str, **changes) -> Recipe:
    return load_recipe(raw(**changes), overrides)
