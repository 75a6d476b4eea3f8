"""`chiasm data make` and `chiasm data precision`: data that a model makes, and how much of it is right."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from chiasm import parts
from chiasm.curation.journal import journaled
from chiasm.curation.making import FILTERS, WHOLE, DraftAnswer, Making, Material, Wordings
from chiasm.curation.measuring import measure
from chiasm.curation.speakers import ModelSpeaker, ServerSpeaker, Speaker
from chiasm.data.chat import RECORD_BYTES, parse_json, record_texts
from chiasm.data.filtering.stream import whole_file
from chiasm.data.references import References
from chiasm.errors import ChiasmError, DataError, excerpt
from chiasm.evaluation.statistics import Estimate
from chiasm.model.checkpoint import load_model
from chiasm.recipe.overlay import load_value
from chiasm.storage import safe_yaml
from chiasm.storage.folders import check_replaceable
from chiasm.terminal.console import console, say

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".jp2"}
KEYS = ("image", "text", "questions")


@dataclass(frozen=True)
class SpeakerChoice:
    """A model's folder, or a server's address with the name it knows the model by."""

    place: str
    model: str | None = None
    key_variable: str | None = None
    tokens: int = 128
    seed: int = 0
    device: str | None = None
    dtype: str | None = None

    @property
    def answers(self) -> dict[str, Any]:
        """What decides the answers."""
        return {"place": self.place, "model": self.model, "tokens": self.tokens, "seed": self.seed}

    def speaker(self) -> Speaker:
        if not self.place.startswith(("http://", "https://")):
            if self.model is not None or self.key_variable is not None:
                raise ChiasmError(f"{self.place} is a folder; --model and --key-variable are for servers")
            return ModelSpeaker(load_model(self.place, self.device, self.dtype), self.tokens, self.seed)
        if self.model is None:
            raise ChiasmError(f"{self.place} is a server; say with --model by which name it knows the model")
        key = None
        if self.key_variable is not None and (key := os.environ.get(self.key_variable)) is None:
            raise ChiasmError(
                f"there is no environment variable {self.key_variable}, which shall hold the key"
            )
        return ServerSpeaker(self.place, self.model, key, self.tokens)


def making_of(
    count: int, temperature: float, filters: Sequence[str] | None, reasons: bool, wordings: Path | None
) -> Making:
    """wordings: a YAML file of them."""
    entries = {} if wordings is None else safe_yaml.read(wordings)
    if not isinstance(entries, dict):
        raise ChiasmError(f"{wordings} must map names of wordings to texts")
    chosen = FILTERS if filters is None else tuple(filters)
    return Making(Wordings.of(entries), count, temperature, chosen, reasons)


def make(choice: SpeakerChoice, images: Path, out: Path, making: Making, *, folder: Path | None) -> None:
    check_replaceable(out)
    dropped, journal = (out.with_name(f"{out.stem}.{name}") for name in ("dropped.jsonl", "journal"))
    materials = list(read_materials(images, folder))
    if not materials:
        raise ChiasmError(f"{images} holds no images")
    out.parent.mkdir(parents=True, exist_ok=True)
    stopped: Counter[str] = Counter()
    retained = without_reason = 0
    questioned = set()
    with whole_file(out) as good, whole_file(dropped) as bad:
        for draft in journaled(journal, choice.speaker(), materials, making, choice.answers):
            questioned.add(draft.material.name)
            if draft.retained:
                retained += 1
                without_reason += making.reasons and not draft.reason
                good.write(json.dumps(draft.record(), ensure_ascii=False) + "\n")
            else:
                stopped[_stopped_by(draft)] += 1
                bad.write(json.dumps(draft.record(), ensure_ascii=False) + "\n")
    journal.unlink()
    if silent := len(materials) - len(questioned):
        say(f"about {silent:,} images the model asked nothing that ends with a question mark")
    for name, count in stopped.most_common():
        say(f"{count:,} stopped by {name}")
    if without_reason:
        say(
            f"{without_reason:,} stay without a reason: it was empty, or longer than {choice.tokens:,} tokens"
        )
    total = retained + stopped.total()
    say(
        f"{retained:,} of {total:,} questions about {len(materials):,} images stay: {out}; the others: {dropped}"
    )


def precision(
    choice: SpeakerChoice, source: str, options: Sequence[str], making: Making, *, images: int, own: bool
) -> None:
    spec: dict[str, Any] = {"type": source}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise ChiasmError(f"{option!r} is not of the form option=value")
        spec[key] = load_value(value, option)
    data = parts.build("data", spec, where=source)
    measured = measure(choice.speaker(), data, making, images=images, own_questions=own)
    table = Table(box=None, header_style="bold")
    for name in ("behind the filter", "answers", "no truth known", "right", "of all right ones"):
        table.add_column(name, justify="left" if name == "behind the filter" else "right")
    for row in measured.rows:
        table.add_row(
            row.filter, f"{row.answers:,}", f"{row.unknown:,}", _share(row.right), _share(row.recall)
        )
    console().print(table)


def read_materials(images: Path, folder: Path | None) -> Iterator[Material]:
    """The images of a folder, or of a JSON or JSON Lines file. folder: where relative paths of a file start."""
    if images.is_dir():
        files = sorted(path for path in images.rglob("*") if path.is_file())
        others = [path for path in files if path.suffix.lower() not in SUFFIXES]
        if others:
            say(f"{len(others):,} files of {images} are no images by their names, such as {others[0].name}")
        for path in files:
            if path.suffix.lower() in SUFFIXES:
                name = str(path.relative_to(images))
                yield Material(name, References(images, inside=True).picture(name, str(images)), name)
        return
    references = References(folder or images.parent, inside=True)
    for number, text in record_texts(images, RECORD_BYTES):
        where = f"record {number} of {images.name}"
        if isinstance(text, DataError):
            raise text
        yield _material(parse_json(text, where), references, where)


def _material(record: Any, references: References, where: str) -> Material:
    if not isinstance(record, dict) or not isinstance(record.get("image"), str):
        raise DataError(f"{where} must have the path of an image under 'image'")
    unknown = [key for key in record if key not in KEYS]
    if unknown:
        raise DataError(f"{where} has the key {excerpt(unknown[0])}; records have {', '.join(KEYS)}")
    text, questions = record.get("text"), record.get("questions")
    questions = [] if questions is None else questions
    if text is not None and not isinstance(text, str):
        raise DataError(f"{where} has the text {excerpt(text)}; it must be words")
    if not isinstance(questions, list) or not all(
        isinstance(each, str) and each.strip() for each in questions
    ):
        raise DataError(f"{where} has the questions {excerpt(questions)}; they must be a list of words")
    picture = references.picture(record["image"], where)
    return Material(where, picture, record["image"], text, tuple(questions))


def _stopped_by(draft: DraftAnswer) -> str:
    if not draft.answer:
        return "an empty answer"
    if WHOLE in draft.checks:
        return "the limit of tokens, which cut the answer off"
    return f"the filter {next(name for name, passed in draft.checks.items() if not passed)!r}"


def _share(estimate: Estimate) -> str:
    if not estimate.n:
        return "-"
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"
