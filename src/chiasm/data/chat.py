"""Conversations in a JSON or JSON Lines file, as LLaVA and the OpenAI-style chat formats write them."""

from __future__ import annotations

import hashlib
import json
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from chiasm.data import Source, counts
from chiasm.data.files import PictureFile
from chiasm.data.mask_answers import MaskForm, MaskSide, answer_with_masks
from chiasm.data.mask_records import RecordMasks
from chiasm.data.records import MOST_TURNS, RecordReader
from chiasm.data.references import References
from chiasm.data.sample import Message, Picture, Sample
from chiasm.data.signal_files import SignalFile
from chiasm.errors import DataError, excerpt
from chiasm.storage import safe_json

RECORD_BYTES = 16 << 20  # most of one record
_NAMES = {"user": "question", "assistant": "answer", "document": "document"}


class Chat(Source, name="chat"):
    """Conversations from a file, one a line (.jsonl) or one list (.json).

    A record is LLaVA's or ShareGPT's (`conversations` of `from` and `value`) or a message list (`messages` of
    `role` and `content`), with its images in `image` or `images`, or within a content. Each `<image>` in a text
    stands for the next of its images; an image in an assistant's turn is written by the model. What an
    evaluation takes for right beside the last answer stands in `answers`; the masks that are asked for, of the last
    image, in `masks`. docs/data.md lists all forms.

    Args:
        path: the file.
        images: folder that relative image paths start from, and that holds all images; default: the file's own.
        outside: images may lie outside that folder.
        ignore: keys of records that carry no meaning, beside the usual ones (`id`, `source`, ...).
        broken: what becomes of a record that cannot be used: an error, or skipped and counted.
        record_bytes: the largest record that is read.
        special_tokens: the names of special tokens in a text (`</s>`, `<|im_end|>`) are such tokens, not letters.
        placeholders: what other formats write for an image (`<|image_pad|>`, `<video>`) is words, not an error;
            with `special_tokens` it is what the tokenizer takes it for.
        most_turns: of a record.
        mask_form: what masks become: `head`, positions of a mask head; `polygons` or `runs`, an answer in words;
            `image`, one that is white where the mask is.
        mask_side: cells to a side of the image, on which masks in words count.
    """

    foreign = True

    def __init__(
        self,
        *,
        path: str,
        images: str | None = None,
        outside: bool = False,
        ignore: tuple[str, ...] = (),
        broken: Literal["error", "skip"] = "error",
        record_bytes: Annotated[int, Field(ge=1)] = RECORD_BYTES,
        special_tokens: bool = False,
        placeholders: bool = False,
        most_turns: Annotated[int, Field(ge=1, le=1_000_000)] = MOST_TURNS,
        mask_form: MaskForm = "head",
        mask_side: MaskSide = 24,
    ):
        self.path = Path(path)
        self.special_tokens = special_tokens
        self.broken = broken
        self.record_bytes = record_bytes
        self.mask_form, self.mask_side = mask_form, mask_side
        folder = Path(images) if images else self.path.parent
        self._reader = RecordReader(
            References(folder, inside=not outside),
            frozenset(ignore),
            placeholders=placeholders or special_tokens,
            most_turns=most_turns,
            taken=("masks",),
            remedy="list it under the source's 'ignore'",
        )
        self.skipped: Counter[str] = Counter()
        self._digest = hashlib.sha256()
        self._records = list(self._read())
        if not self._records:
            raise DataError(
                f"{self.path} holds no conversation{f' ({counts(self.skipped)})' if self.skipped else ''}"
            )

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()[:32]

    def image_files(self) -> Iterator[Path]:
        for index in range(len(self)):
            for sample in self[index]:
                contents = (item for message in sample.messages for item in message.content)
                yield from (item.path for item in contents if isinstance(item, PictureFile | SignalFile))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> list[Sample]:
        number, text = self._records[index]
        return [self._sample(number, json.loads(text))]

    def record(self, index: int) -> Any:
        """What stands in the file for group `index`."""
        return json.loads(self._records[index][1])

    def _read(self) -> Iterator[tuple[int, bytes]]:
        """(number, JSON) of each record that can be used, checked but not kept parsed: files can be large."""
        for number, text in record_texts(self.path, self.record_bytes):
            where = self._where(number)
            try:
                if isinstance(text, DataError):
                    raise text
                self._digest.update(text)
                self._sample(number, parse_json(text, where))
            except DataError as error:
                if self.broken == "error":
                    raise
                self.skipped[error.kind] += 1
            else:
                yield number, text

    def _where(self, number: int) -> str:
        return f"sample {number} of {self.path.name}"

    def _sample(self, number: int, record: Any) -> Sample:
        where = self._where(number)
        messages = self._reader.messages(record, where)
        masks = _masks(record, messages, self._reader.references, where)
        _check_turns(messages, where, masks is not None)
        messages = tuple(replace(each, special_tokens=self.special_tokens) for each in messages)
        sample = Sample(where, messages, {"task": "chat"} | _answers(record, where), masks)
        return answer_with_masks(sample, self.mask_form, self.mask_side)


def record_texts(path: Path, most: int) -> Iterator[tuple[int, bytes | DataError]]:
    """(1-based number, JSON text) of every record of the file, or an error for one that is larger than `most`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"the data file {excerpt(path)} is not a file")
        if path.suffix == ".json":
            whole = parse_json(path.read_bytes(), str(path))
            if not isinstance(whole, list):
                raise DataError(f"{path} must hold a list of conversations")
            for number, record in enumerate(whole, 1):
                text = json.dumps(record).encode()
                yield number, text if len(text) <= most else _too_large(path, number, len(text), most)
            return
        with path.open("rb") as file:
            number = 0
            while line := file.readline(most + 1):
                number += 1
                size = len(line)
                while not line.endswith(b"\n") and (rest := file.readline(1 << 20)):
                    size, line = size + len(rest), rest
                if size > most + 1:
                    yield number, _too_large(path, number, size, most)
                elif line.strip():
                    yield number, line
    except (OSError, ValueError) as error:  # ValueError: a path with NUL
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise DataError(f"the data file {excerpt(path)} cannot be read: {reason}") from None


def _answers(record: Any, where: str) -> dict[str, Any]:
    """What an evaluation takes for right beside the last answer of the record."""
    answers = record.get("answers") if isinstance(record, dict) else None
    if answers is None:
        return {}
    if not isinstance(answers, list) or not all(isinstance(each, str) and each.strip() for each in answers):
        raise DataError(
            f"{where} has the answers {excerpt(answers)}; they must be a list of words", "answers"
        )
    return {"answers": tuple(answers)}


def _masks(
    record: Any, messages: Sequence[Message], references: References, where: str
) -> RecordMasks | None:
    """The masks that a record asks for, of the last image before its end."""
    entries = record.get("masks") if isinstance(record, dict) else None
    if entries is None:
        return None
    read = [
        item for m in messages if m.role != "assistant" for item in m.content if isinstance(item, Picture)
    ]
    if not isinstance(entries, list) or not read:
        has = "no image" if isinstance(entries, list) else f"the masks {excerpt(entries)}"
        raise DataError(f"{where} has {has}; masks are a list, of the last image that is read", "masks")
    return RecordMasks(entries, read[-1], references, where)


def _too_large(path: Path, number: int, size: int, most: int) -> DataError:
    return DataError(
        f"sample {number} of {path.name} has {size:,} bytes, more than the source's record_bytes: {most}",
        "too large",
    )


def parse_json(text: bytes, where: str) -> Any:
    """The value of JSON text, in whose objects no key stands twice; raises DataError naming `where`."""
    try:
        return safe_json.parse(text, _without_duplicates)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}", "not JSON") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = safe_json.repeated(pairs)
    if twice is not None:
        raise ValueError(f"the key {excerpt(twice)!r} stands twice in one object")
    return dict(pairs)


def _check_turns(messages: Sequence[Message], where: str, masks: bool) -> None:
    """masks: they may stand in place of the last answer."""
    for number, message in enumerate(messages, 1):
        says = message.role in ("user", "document") or (message.role == "assistant" and message.learnt)
        if says and message.is_blank:
            reason = "there is nothing to answer" if message.role == "user" else "nothing to learn"
            raise DataError(
                f"{where} has an empty {_NAMES[message.role]} (message {number}): {reason}", "empty"
            )
    if [message.role for message in messages] == ["document"]:
        return
    if not masks and not any(message.role == "assistant" and message.learnt for message in messages):
        raise DataError(
            f"{where} has no turn of an assistant that is learnt: there is nothing to learn", "turns"
        )
    talk = [message.role for message in messages if message.role != "system"]
    if any(role != ("user", "assistant")[i % 2] for i, role in enumerate(talk)):
        listed = ", ".join(talk[:10]) + (", ..." if len(talk) > 10 else "")
        raise DataError(f"{where} must alternate between user and assistant; its turns are {listed}", "turns")
    if messages[-1].role != "assistant" and not masks:
        raise DataError(
            f"{where} ends with a turn of the {messages[-1].role}, to which there is no answer", "turns"
        )
