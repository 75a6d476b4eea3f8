"""The tables of docs/learn.md: a row a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
QUESTIONS, DRAWING, MASKS = "questions", "generation", "masks"
RESOLUTION, ZOOM = "resolution", "zoom"
PAGES = "pages"  # the data source of written pages
CONTROLS = ("copying", "untrained", "chance", "blind")


def tasks(row: Row) -> Mapping[str, Any]:
    """The scores of a recipe, by task."""
    scores: Mapping[str, Any] = row["figures"]["tasks"]
    return scores


def answers(row: Row) -> bool:
    """Whether it answers questions about images of the world."""
    return QUESTIONS in tasks(row) and not reads(row)


def reads(row: Row) -> bool:
    """Whether it answers questions about written pages."""
    return QUESTIONS in tasks(row) and row["data"] == PAGES


def answering(rows: Sequence[Row]) -> str:
    """Questions about images, with both controls, by type."""
    types = _types(rows)
    head = ["recipe", "score", "blind", "shuffled", *types, *_COST]
    return table(head, [_answers(row, types) for row in _best_first(rows, QUESTIONS)])


def reading(rows: Sequence[Row]) -> str:
    """Questions about written pages: similarity and exact answers."""
    types = _types(rows)
    head = ["recipe", "ANLS", "blind", "shuffled", "exact", *(f"{each}, ANLS" for each in types), *_COST]
    lines = []
    for row in _best_first(rows, QUESTIONS):
        before, exact = _answers(row, types), tasks(row)[QUESTIONS]["exact"]
        lines.append([*before[:4], with_interval(exact, "score", "ci"), *before[4:]])
    return table(head, lines)


_COST = ["parameters", "learnt", "image tokens", "FLOPs", "CPU min"]


def _answers(row: Row, types: Sequence[str]) -> list[str]:
    scores, cost = tasks(row)[QUESTIONS], row["figures"]["cost"]
    by_type = [
        percent(scores["by_type"][name]["score"]) if name in scores["by_type"] else "" for name in types
    ]
    return [
        link(row), with_interval(scores, "score", "ci"), with_interval(scores, "blind", "blind_ci"),
        percent(scores["shuffled"]), *by_type,
        large(cost["parameters"]["total"]), large(cost["parameters"]["trainable"]),
        str(cost["image_tokens"].get("read", "")), large(cost["flops"].get("question")), minutes(row),
    ]  # fmt: skip


def by_resolution(rows: Sequence[Row]) -> str:
    """Questions about written pages, by the pixels of a page that they need."""
    bands = _types(rows, RESOLUTION)
    lines = []
    for row in _best_first(rows, RESOLUTION):
        found = tasks(row)[RESOLUTION]["by_type"]
        cells = [_beside(found[band], "blind") if band in found else "" for band in bands]
        lines.append([link(row), str(row["figures"]["cost"]["image_tokens"].get("read", "")), *cells])
    return table(["recipe", "image tokens", *(band.strip() for band in bands)], lines)


def zooming(rows: Sequence[Row]) -> str:
    """Questions answered with a second look at a part of the image, and without."""
    lines = []
    for row in _best_first(rows, ZOOM):
        scores = tasks(row)[ZOOM]
        lines.append([
            link(row), with_interval(scores, "score", "ci"), with_interval(scores, "off", "off_ci"),
            percent(scores["looked"]), percent(scores["chosen"]), str(scores["n"]),
        ])  # fmt: skip
    return table(["recipe", "two looks", "one look", "looked", "chosen", "questions"], lines)


def _beside(scores: Mapping[str, Any], control: str) -> str:
    return f"{percent(scores['score'])} ({percent(scores[control])}; {scores['n']})"


def tiles(rows: Sequence[Row]) -> str:
    """The same model with tiles and with a single view."""
    types = sorted({name for row in rows for name in row["scores"]["by_type"]})
    head = ["task", "views", "score", "blind", *types, "parameters", "image tokens", "CPU min", "commit"]
    lines = []
    for row in rows:
        scores = row["scores"]
        of_types = [
            percent(scores["by_type"][name]["score"]) if name in scores["by_type"] else "" for name in types
        ]
        lines.append([
            row["task"], row["arm"], with_interval(scores, "score", "ci"),
            with_interval(scores, "blind", "blind_ci"), *of_types, large(row["parameters"]),
            str(row["image_tokens"]), f"{row['seconds'] / 60:.1f}", row["commit"],
        ])  # fmt: skip
    return table(head, lines)


def marking(rows: Sequence[Row]) -> str:
    """Masks of what is asked for."""
    types = _types(rows, MASKS)
    head = ["recipe", "gIoU", "cIoU", "shuffled", "whole image", *types, "masks asked for", "questions",
            "parameters", "CPU min"]  # fmt: skip
    lines = []
    for row in _best_first(rows, MASKS):
        scores, asked = tasks(row)[MASKS], tasks(row).get(QUESTIONS)
        of_types = scores.get("by_type", {})
        lines.append([
            link(row), with_interval(scores, "score", "ci"), percent(scores["cumulative"]),
            percent(scores["shuffled"]), percent(scores["everything"]),
            *(percent(of_types[name]["score"]) if name in of_types else "" for name in types), str(scores["n"]),
            percent(asked["score"]) if asked else "",
            large(row["figures"]["cost"]["parameters"]["total"]), minutes(row),
        ])  # fmt: skip
    return table(head, lines)


def drawing(rows: Sequence[Row]) -> str:
    """Images drawn from captions."""
    head = ["recipe", "order", "alphabet", "place", "shuffled", "object", "count", "all", "ceiling", "diversity",
            "positions", "passes", "s a picture", "parameters", "questions", "CPU min"]  # fmt: skip
    lines = []
    for row in _best_first(rows, DRAWING):
        scores, cost, asked = tasks(row)[DRAWING], row["figures"]["cost"], tasks(row).get(QUESTIONS)
        seconds = cost["seconds"].get("picture")
        lines.append([
            link(row), *row["head"], with_interval(scores, "score", "ci"),
            with_interval(scores, "shuffled", "shuffled_ci") if "shuffled" in scores else "",
            *(percent(scores[measure]) for measure in ("object", "count", "all")),
            percent(scores["reconstruction"]["place"]), f"{scores['diversity']:.2f}",
            str(cost["image_tokens"].get("written", "")), str(cost.get("passes", {}).get("picture", "")),
            "" if seconds is None else f"{seconds:.2f}", large(cost["parameters"]["total"]),
            percent(asked["score"]) if asked else "", minutes(row),
        ])  # fmt: skip
    return table(head, lines)


def tokenizers(rows: Sequence[Row]) -> str:
    """Image tokenizers without a language model: how well, and in how many bits."""
    head = ["recipe", "PSNR dB", "mean picture", "bits a clip", "frames", "use", "CPU min"]
    lines = []
    for row in rows:
        scores = row["figures"]["tokenizer"]
        radius = (scores["psnr_ci"][1] - scores["psnr_ci"][0]) / 2
        quality = [f"{scores['psnr']:.2f} ± {radius:.2f}", f"{scores['mean_psnr']:.2f}"]
        rate = [f"{scores['bits']:,.0f}", str(scores["frames"]), percent(scores["use"])]
        lines.append([link(row), *quality, *rate, minutes(row)])
    return table(head, lines)


def others(rows: Sequence[Row]) -> str:
    """Every task that has no table of its own; empty where there is none."""
    lines = [
        [
            link(row),
            name.replace("_", " "),
            with_interval(scores, "score", "ci"),
            _control(scores),
            str(scores["n"]),
        ]
        for row in rows
        for name, scores in tasks(row).items()
        if name not in (QUESTIONS, DRAWING, MASKS, RESOLUTION, ZOOM)
    ]
    return table(["recipe", "measure", "score", "control", "n"], lines) if lines else ""


def _control(scores: Mapping[str, Any]) -> str:
    """What the score is to be held against, in the task's own terms."""
    return ", ".join(
        f"{name} {percent(scores[name])}" for name in CONTROLS if isinstance(scores.get(name), float)
    )


def _types(rows: Sequence[Row], task: str = QUESTIONS) -> list[str]:
    return sorted({name for row in rows for name in tasks(row)[task].get("by_type", {})})


def _best_first(rows: Sequence[Row], task: str) -> list[Row]:
    return sorted(rows, key=lambda row: -tasks(row)[task]["score"])


def link(row: Row) -> str:
    return f"[{row['name']}](../recipes/{row['name']}.yaml)"


def minutes(row: Row) -> str:
    return f"{row['training_seconds'] / 60:.1f}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def with_interval(scores: Mapping[str, Any], key: str, interval: str) -> str:
    low, high = scores[interval]
    return f"{100 * scores[key]:.0f} % ({100 * low:.0f} - {100 * high:.0f})"


def large(number: float | None) -> str:
    if number is None:
        return ""
    units: list[tuple[float, str]] = [(1e9, " G"), (1e6, " M"), (1e3, " k")]
    size, unit = next(((size, unit) for size, unit in units if number >= size), (1.0, ""))
    return f"{number / size:.3g}{unit}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
