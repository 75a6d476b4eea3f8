"""The samples of a version stay as they are: studies, caches and records name them by options and version alone.

Where samples are meant to change, raise `VERSION` and write the record anew:

    python tests/data/world/test_world_record.py
"""

import json
import sys
from dataclasses import is_dataclass
from hashlib import blake2b
from pathlib import Path

import pytest

from chiasm import parts
from chiasm.data.mask_answers import MaskPicture
from chiasm.data.world import binding, maze, moving, shop, source
from chiasm.data.world.glyphs import GlyphPicture, NoisePicture
from chiasm.data.world.maze_picture import MazePicture
from chiasm.data.world.regions import StrokePicture
from chiasm.data.world.render import SceneMasks, ScenePicture, TextPicture
from chiasm.data.world.scene import Scene

RECORD = Path(__file__).parent / "record.json"
VERSIONS = {
    "world": source.VERSION,
    "moving_world": moving.VERSION,
    "binding": binding.VERSION,
    "maze": maze.VERSION,
    "shop": shop.VERSION,
}
QUESTIONS = {"what": 2, "where": 2, "count": 1, "exist": 2, "choice": 2, "relation": 2}
DRAWN = {"caption": 1, "name": 2, "draw": 1, "edit": 2, "analogy": 2, "sentence": 1, "read": 2, "words": 3}

# Only emoji of the curated list, whose names do not depend on the installed package.
WORLDS = {
    "everything": {"type": "world", "tasks": QUESTIONS | DRAWN},
    "default": {"type": "world"},
    "calls": {"type": "world", "tasks": {"call": 1}},
    "words before images": {"type": "world", "tasks": {"captioned": 1, "instructed": 2}},
    "references": {"type": "world", "tasks": {"referred": 1}},
    "segments": {"type": "world", "unanswerable": 0.3, "tasks": {"segment": 2}},
    "segments as images": {"type": "world", "mask_form": "image", "unanswerable": 0.3, "tasks": {"segment": 2}},
    "regions": {"type": "world", "tasks": {"region": 2, "segment_region": 1}},
    "Chinese, two by two": {
        "type": "world", "language": "zh", "phrasings": "plain", "grid": 2, "objects": [1, 4], "jitter": 0.5,
        "drawn_jitter": 0.25, "seed": 7, "tasks": QUESTIONS | DRAWN,
    },
    "combinations": {
        "type": "world", "split": "combination", "objects": [3, 4], "held_out": 0.2, "phrasings": "both",
        "unanswerable": 0.5, "strangers": 100, "tasks": QUESTIONS | DRAWN,
    },
    "conversations of unseen emoji": {
        "type": "world", "split": "emoji", "turns": 3, "tints": 3, "phrasings": "held_out",
        "tasks": QUESTIONS | DRAWN,
    },
    "full grids of other styles": {
        "type": "world", "split": "style", "grid": 4, "objects": [12, 16], "strangers": 40, "canvas": 64,
        "drawn_canvas": 32, "language": "zh", "tasks": QUESTIONS | DRAWN,
    },
    "hardly any emoji": {
        "type": "world", "emoji": 9, "held_out": 0.5, "unanswerable": 0.0, "tints": 1, "jitter": 0.0,
        "tasks": QUESTIONS | DRAWN,
    },
    "moving": {"type": "moving_world"},
    "moving pairs": {
        "type": "moving_world", "split": "combination", "objects": [2, 4], "canvas": 40, "frames": 11, "tints": 2,
        "speed": [0.0, 0.3], "sides": [0.1, 0.9], "held_out": 0.3, "seed": 3,
    },
    "moving unseen": {"type": "moving_world", "split": "emoji", "objects": [1, 3], "tints": 5},
    "bound in words": {"type": "binding"},
    "bound behind fillers": {"type": "binding", "form": "offset", "length": [3, 3], "fillers": 5, "seed": 1},
    "bound in cells": {"type": "binding", "form": "grid", "questions": 2, "grid": 3},
    "bound by both": {
        "type": "binding", "form": "image", "conjunction": True, "colours": 3, "shapes": 4, "items": 40,
        "length": [4, 8], "cell": 24,
    },
    "bound in another image": {"type": "binding", "form": "shuffled"},
    "bound in noise": {"type": "binding", "form": "noise"},
    "mazes": {"type": "maze"},
    "mazes in pictures": {
        "type": "maze", "thought": "pictures", "side": 5, "cell": 16, "ways": 4, "steps": [1, 5], "dead_ends": 0.5,
        "split": "held_out", "seed": 2,
    },
    "mazes in words": {"type": "maze", "thought": "words"},
    "a shop": {"type": "shop"},
    "a shop in Chinese": {
        "type": "shop", "language": "zh", "phrasings": "held_out", "strangers": 0, "emoji": 16, "objects": [1, 3],
        "named": 1, "shown": 3, "canvas": 96, "seed": 5,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WORLDS)
def test_the_samples_of_a_version_stay_as_they_are(name):
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["versions"] == VERSIONS, "a new version: write the record anew"
    assert samples_of(name) == record["samples"][name], "other samples: raise VERSION"


def test_the_record_has_every_task_of_the_world():
    others = {
        each
        for name in ("calls", "segments", "regions", "words before images", "references")
        for each in WORLDS[name]["tasks"]
    }
    assert {*QUESTIONS, *DRAWN, *others} == {*source.QUESTIONS, *source.TASKS}


def samples_of(name: str) -> dict[str, str]:
    """For each task the first words of its first sample, and a digest of all that twenty scenes give."""
    world = parts.build("data", WORLDS[name])
    told: dict[str, list] = {}
    for sample in (sample for index in range(20) for sample in world[index]):
        told.setdefault(sample.truth["task"], []).append(plain(sample))
    words = {task: next(filter(None, map(first_words, samples)), "") for task, samples in told.items()}
    digests = {
        task: blake2b(repr(samples).encode(), digest_size=8).hexdigest() for task, samples in told.items()
    }
    return {task: f"{digests[task]} {words[task]}".strip() for task in told}


def plain(value):
    """What of a sample, its pictures and its truth does not depend on the versions of installed packages."""
    if isinstance(value, Scene):
        return value.description()
    if isinstance(value, StrokePicture):
        return value.canvas, value.scene.description(), value.thing, value.at
    if isinstance(value, ScenePicture):
        return value.canvas, value.scene.description()
    if isinstance(value, TextPicture):
        return value.canvas, value.lines, value.tint
    if isinstance(value, GlyphPicture):
        glyphs = [(cell, one.colour, one.shape, one.emoji.code) for cell, one in value.glyphs]
        return value.grid, value.cell, glyphs
    if isinstance(value, NoisePicture | MazePicture):
        return (value.key,)
    if isinstance(value, MaskPicture):
        return value.size, plain(value.masks)
    if isinstance(value, SceneMasks):
        return value.canvas, value.scene.description(), value.things
    if isinstance(value, moving.SceneClip):
        return (
            value.canvas,
            value.length,
            value.tint,
            value.boxes(),
            [mover.emoji.code for mover in value.movers],
        )
    if is_dataclass(value):
        fields = {field: plain(getattr(value, field)) for field in value.__dataclass_fields__}
        younger = {
            "masks": None,
            "tools": [],
            "calls": [],
            "call": None,
        }  # than the record of samples without them
        return {name: each for name, each in fields.items() if name not in younger or each != younger[name]}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def first_words(sample) -> str:
    """Of what the user says; none where that is a picture alone."""
    said = [item for message in sample["messages"] for item in message["content"] if isinstance(item, str)]
    return said[0] if said else ""


def write() -> None:
    """Write the record, unless samples of the recorded version have changed."""
    samples = {name: samples_of(name) for name in WORLDS}
    if RECORD.exists():
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        for name, digests in record["samples"].items():
            kind = WORLDS.get(name, {}).get("type")
            if kind and record["versions"][kind] == VERSIONS[kind] and digests != samples[name]:
                sys.exit(f"{name!r} gives other samples than before: raise VERSION of {kind}")
    text = json.dumps({"versions": VERSIONS, "samples": samples}, ensure_ascii=False, indent=1)
    RECORD.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
