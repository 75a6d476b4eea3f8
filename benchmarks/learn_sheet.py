"""A sheet of the pictures that a run drew, in the order in which they came, small enough for a repository."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

COLUMNS, ROWS, SIDE, GAP = 8, 2, 96, 4  # SIDE in pixels of a picture on the sheet
LARGEST = 60_000  # bytes


def write_sheet(run: Path, path: Path) -> list[str]:
    """Write the sheet of a run's first drawn pictures, if there are any; returns what each was asked to be."""
    samples = json.loads((run / "samples.json").read_text(encoding="utf-8"))
    drawn = samples.get("generation", {}).get("drawn", [])[: COLUMNS * ROWS]
    if not drawn:
        return []
    rows = -(-len(drawn) // COLUMNS)
    step = SIDE + GAP
    sheet = Image.new("RGB", (min(COLUMNS, len(drawn)) * step - GAP, rows * step - GAP), "white")
    for place, each in enumerate(drawn):
        with Image.open(run / "samples" / each["drawn"]) as picture:
            shown = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
        sheet.paste(shown, (place % COLUMNS * step, place // COLUMNS * step))
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = 90
    sheet.save(path, quality=quality, method=6)
    while path.stat().st_size > LARGEST and quality > 20:
        quality -= 10
        sheet.save(path, quality=quality, method=6)
    return [each["prompt"] for each in drawn]
