"""Conversations about pictures, made up, with lengths spread as those of visual instruction data are.

A mixture of short questions with answers of a few words, conversations of several turns, and long descriptions:
padded in random order, batches of it are more than half padding, as LLaVA-Instruct's are.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "an", "er", "ol")]


def write_samples(folder: Path, count: int, *, longest: int, seed: int = 0) -> Path:
    """Write `count` conversations, in LLaVA's JSON, with a JPEG each; returns the JSON file.

    longest: words of the longest answer.
    """
    dice = random.Random(seed)
    words = ["".join(dice.choices(SYLLABLES, k=dice.choice((1, 2, 2, 3)))) for _ in range(6000)]
    frequency = [1 / (rank + 10) for rank in range(len(words))]  # Zipf's law

    def say(low: int, high: int) -> str:
        return " ".join(dice.choices(words, frequency, k=dice.randint(low, max(low, high))))

    def turns() -> list[tuple[str, str]]:
        kind = dice.choices(("short", "conversation", "description"), (0.5, 0.3, 0.2))[0]
        if kind == "short":
            return [(say(6, 14), say(1, 4)) for _ in range(dice.randint(1, 3))]
        if kind == "conversation":
            return [(say(6, 14), say(5, longest // 6)) for _ in range(dice.randint(2, 5))]
        return [(say(8, 16), say(longest // 4, longest))]

    records = []
    for index in range(count):
        _picture(dice).save(folder / f"{index}.jpg", quality=90)
        talk = turns()
        talk[0] = ("<image>\n" + talk[0][0], talk[0][1])
        parts = [part for question, answer in talk for part in (("human", question), ("gpt", answer))]
        records.append(
            {
                "image": f"{index}.jpg",
                "conversations": [{"from": role, "value": text} for role, text in parts],
            }
        )
    path = folder / "conversations.json"
    path.write_text(json.dumps(records))
    return path


def _picture(dice: random.Random) -> Image.Image:
    def colour() -> tuple[int, int, int]:
        return dice.randrange(256), dice.randrange(256), dice.randrange(256)

    image = Image.new("RGB", (dice.choice((160, 200, 240)), dice.choice((120, 160, 200))), colour())
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, size = dice.randrange(160), dice.randrange(120), dice.randrange(10, 80)
        pen.ellipse((x, y, x + size, y + size), fill=colour())
    return image
