"""`chiasm data filter`: documents from one file to another, one by one, and counts of what was dropped."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from chiasm.data.chat import RECORD_BYTES, parse_json, record_texts
from chiasm.data.filtering.duplicates import RetainedTexts, SeenImages
from chiasm.data.filtering.interleaved import DocumentReader, Interleaved, filter_images, filter_text
from chiasm.errors import ChiasmError, DataError
from chiasm.storage.folders import check_replaceable


@dataclass(frozen=True)
class Filters:
    """Which filters documents pass.

    text: OmniCorpus's rules for English. duplicates: of texts. images: rules of images, and duplicates; without, an
    image is a name, which nobody opens. textual: documents that have no image, or none any more, stay.
    """

    text: bool = True
    duplicates: bool = True
    images: bool = True
    textual: bool = False


@dataclass
class FilterReport:
    """What became of the documents, their lines and their images; `skipped`: records that could not be used."""

    documents: int = 0
    retained: int = 0
    images: int = 0
    dropped_documents: Counter[str] = field(default_factory=Counter)
    dropped_lines: Counter[str] = field(default_factory=Counter)
    dropped_images: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    def as_data(self) -> dict[str, Any]:
        return {
            key: dict(value) if isinstance(value, Counter) else value for key, value in vars(self).items()
        }


class DocumentFilter:
    """Filters documents one after another, and counts in its `report` what each rule dropped."""

    def __init__(self, filters: Filters):
        self.filters, self.report = filters, FilterReport()
        self._texts, self._images = RetainedTexts(), SeenImages()

    def retained(self, document: Interleaved) -> Interleaved | None:
        """What stays of a document; None: it is dropped."""
        self.report.documents += 1
        document, rule = self._filtered(document)
        if rule is not None:
            self.report.dropped_documents[rule] += 1
            return None
        self.report.retained += 1
        self.report.images += document.images
        return document

    def _filtered(self, document: Interleaved) -> tuple[Interleaved, str | None]:
        """The document after each filter in turn, and the rule that drops it."""
        if self.filters.text:
            document, rule = filter_text(document, self.report.dropped_lines)
            if rule is not None:
                return document, rule
        if self.filters.duplicates and document.text.strip():
            like = self._texts.duplicate(document.text)
            if like is not None:
                return document, f"{like} duplicate"
        if self.filters.images:
            document = filter_images(document, self._images, self.report.dropped_images)
        return document, None if self.filters.textual or document.images else "no image"


def filter_documents(
    source: Path,
    destination: Path,
    filters: Filters | None = None,
    *,
    images: Path | None = None,
    outside: bool = False,
    others: tuple[str, ...] = (),
    broken: Literal["error", "skip"] = "error",
) -> FilterReport:
    """Filter a JSON or JSON Lines file of interleaved documents into a JSON Lines file, which appears whole or not.

    images: where relative paths start; default: the source's folder. outside: images may lie outside it. others:
    fields of records that are retained unread, beside the usual ones. broken: what becomes of a record that cannot
    be used. Raises DataError for it, and ChiasmError where the destination cannot be written.
    """
    filters = filters or Filters()
    if source.resolve() == destination.resolve():
        raise DataError(f"{destination} is the file that is filtered; name another one for what stays")
    reader = DocumentReader(images or source.parent, others, look=filters.images, outside=outside)
    filtering = DocumentFilter(filters)
    with whole_file(destination) as file:
        for number, text in record_texts(source, RECORD_BYTES):
            try:
                document = _read(reader, text, f"record {number} of {source.name}")
            except DataError as error:
                if broken == "error":
                    raise
                filtering.report.skipped[error.kind] += 1
                continue
            if (retained := filtering.retained(document)) is not None:
                file.write(json.dumps(retained.record(), ensure_ascii=False) + "\n")
    return filtering.report


def _read(reader: DocumentReader, text: bytes | DataError, where: str) -> Interleaved:
    if isinstance(text, DataError):
        raise text
    return reader.read(parse_json(text, where), where)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A file that takes its name when the block ends, and vanishes when it fails."""
    check_replaceable(path)
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise ChiasmError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
