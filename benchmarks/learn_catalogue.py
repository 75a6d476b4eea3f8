"""What other pages have of docs/learn.md: docs/systems.md its figures, docs/grid.md links to its pictures."""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path

from learn_tables import CONTROLS, DRAWING, MASKS, QUESTIONS, Row, percent, reads, tasks

from chiasm.recipe import recipes

GRID = Path(__file__).parents[1] / "docs" / "grid.py"
COLUMN = 5  # of the cells between bars: number, reference, what is here, replayed, learnt, missing
UNMEASURED = "not measured"


def write_catalogue(rows: Sequence[Row], page: Path) -> None:
    """Write the column of learning figures anew, if there is such a page. rows: of docs/learn.md."""
    if page.is_file():
        figures = {row["name"]: row for row in rows if "failed" not in row}
        lines = page.read_text(encoding="utf-8").splitlines()
        page.write_text("\n".join(_line(line, figures) for line in lines) + "\n", encoding="utf-8")


def write_grid(page: Path) -> None:
    """Write docs/grid.md anew, if there is one, with links to the pictures that lie beside docs/learn.md."""
    if page.is_file():
        drawn = {path.stem for path in (page.parent / "learn").glob("*.webp")}
        page.write_text(runpy.run_path(str(GRID))["page"](drawn), encoding="utf-8")


def learnt(here: str, figures: Mapping[str, Row]) -> str:
    """The cell beside `here`, which names recipes; empty where it names none."""
    names = [name for name in re.findall(r"`([^`]+)`", here) if name in recipes()]
    texts = {name: figure(figures[name]) if name in figures else UNMEASURED for name in names}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"`{name}` {each}" for name, each in texts.items())


def figure(row: Row) -> str:
    """What one recipe learnt, beside its controls: of questions, masks and drawing, else of what was measured."""
    if "tokenizer" in row["figures"]:
        scores = row["figures"]["tokenizer"]
        return f"{scores['psnr']:.1f} dB (mean picture {scores['mean_psnr']:.1f})"
    found = tasks(row)
    sentences = []
    if QUESTIONS in found:
        verb = "reads, ANLS" if reads(row) else "answers"
        sentences.append(_against(verb, found[QUESTIONS], "blind"))
    if MASKS in found:
        sentences.append(_against("marks, gIoU", found[MASKS], "shuffled"))
    if DRAWING in found:
        sentences.append(_against("draws", found[DRAWING], "shuffled"))
    if not sentences:
        sentences = [_against(name.replace("_", " "), scores, *CONTROLS) for name, scores in found.items()]
    return ", ".join(sentences)


def _against(verb: str, scores: Mapping[str, object], *controls: str) -> str:
    beside = [f"{name} {percent(value)}" for name in controls if isinstance(value := scores.get(name), float)]
    score = scores["score"]
    assert isinstance(score, float)
    return f"{verb} {percent(score)}" + (f" ({', '.join(beside)})" if beside else "")


def _line(line: str, figures: Mapping[str, Row]) -> str:
    cells = line.split("|")
    if not re.match(r"\| \d+ \|", line) or len(cells) != COLUMN + 3:
        return line
    text = learnt(cells[3], figures)
    cells[COLUMN] = f" {text} " if text else " "
    return "|".join(cells)
