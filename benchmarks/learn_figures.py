"""What docs/learn.md shows of each recipe, in a file beside its images, so that a row outlives the run it is of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learn_sheet import write_sheet

FIGURES = "figures.json"
TILES = "tiles.json"  # what `tiles.py` measured
MIXED = "mixed.json"  # what `mixed_page.py` measured, and the page that it read
MIXED_PAGE = "mixed-page.png"
COSTS = {
    "parameters": ("total", "trainable"),
    "image_tokens": ("read", "written"),
    "flops": ("question",),
    "passes": ("picture",),
    "seconds": ("picture",),
}


def gather(records: Sequence[Mapping[str, Any]], page: Path) -> list[dict[str, Any]]:
    """What the page shows: the records of these runs, and of other recipes what the file beside the page has.

    The file is written anew, and a sheet of what a run drew beside it. Of two measurements of a recipe the later
    one counts. What failed is shown, and not kept.
    """
    folder = folder_of(page)
    path = folder / FIGURES
    kept = {each["name"]: each for each in read(path)}
    failed = [dict(record) for record in records if "failed" in record]
    for record in records:
        name = record["name"]
        if "failed" not in record and record["finished"] >= kept.get(name, {}).get("finished", ""):
            kept[name] = _figures_of(record, folder)
    write(path, [kept[name] for name in sorted(kept)])
    broken = {record["name"] for record in failed}
    return [*failed, *(each for name, each in sorted(kept.items()) if name not in broken)]


def folder_of(page: Path) -> Path:
    """The folder beside a page that has its name, where its figures and pictures lie."""
    folder = page.parent / page.stem
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read(path: Path) -> list[dict[str, Any]]:
    """The figures of a file; none where there is no file."""
    if not path.is_file():
        return []
    figures: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return figures


def write(path: Path, figures: Sequence[Mapping[str, Any]]) -> None:
    """A line a recipe, so that a change shows which were measured anew."""
    lines = ",\n".join(json.dumps(each, ensure_ascii=False, sort_keys=True) for each in figures)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _figures_of(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Of a record what the page shows."""
    figures, cost = record["figures"], record["figures"].get("cost", {})
    shown: dict[str, Any] = {key: record[key] for key in ("name", "finished", "training_seconds")}
    shown["machine"] = {key: record["machine"][key] for key in ("cpu", "cores", "device")}
    shown["commits"] = [str(record["commit"])[:7]] if record["commit"] else []
    shown["data"] = _data_of(record["recipe"])
    shown["figures"] = {key: _rounded(figures[key]) for key in ("tasks", "tokenizer") if key in figures}
    shown["figures"]["cost"] = {
        part: {key: _rounded(cost[part][key]) for key in keys if key in cost[part]}
        for part, keys in COSTS.items()
        if part in cost
    }
    if "generation" in figures["tasks"]:
        shown["head"] = _head_of(record["recipe"])
        shown["prompts"] = write_sheet(Path(record["folder"]), folder / f"{record['name']}.webp")
    return shown


def _head_of(recipe: Mapping[str, Any]) -> list[str]:
    """The order of the image head and its alphabet, which some orders bring with them."""
    head = recipe["model"]["heads"]["image"]
    return [head["type"], head.get("alphabet", {}).get("type", "")]


def _data_of(recipe: Mapping[str, Any]) -> str | None:
    """The type of the held-out source."""
    name = recipe["evaluation"]["data"]
    return None if name is None else str(recipe["data"][name]["type"])


def _rounded(value: Any) -> Any:
    """Numbers to four places, which is more than the page shows."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
