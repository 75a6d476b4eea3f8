"""The data source `denoising`: what another source holds, damaged, to be restored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import Field

from chiasm.data import Media, Message, Picture, Sample, Signal, Source
from chiasm.data.world.dice import Dice
from chiasm.errors import DataError, RecipeError
from chiasm.parts.bounds import Cells, Chance, Seed

VERSION = 1  # raised when the same options would give other samples
LEAST = 4  # words of a text that can be damaged
GREY = (127, 127, 127)  # of a patch that is hidden
# Shares of the words that are lost, and their mean number in a row (UL2, arXiv 2205.05131).
SPANS = {"R": ((0.15, 3), (0.15, 8)), "X": ((0.5, 3), (0.5, 8), (0.15, 64), (0.5, 64))}

Amount = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
TextKinds = dict[Literal["R", "S", "X"], Amount]
ImageKinds = dict[Literal["R", "S"], Amount]


class DenoisingSource(Source, name="denoising"):
    """The mixture of denoisers of Unified-IO 2 (arXiv 2312.17172), after UL2 (2205.05131).

    The words of each sample of another source, all of its messages behind one another, become a sample of one kind,
    and each of its images another. `[Text] [R]` has lost short spans of words, `[Text] [X]` long ones or half of
    all: a sentinel (`<extra_id_0>` ...) stands for each, and the answer is what stood there behind these. `[Text]
    [S]` ends somewhere, and the answer goes on. `[Image] [R]` shows an image of which patches are grey, and the
    answer is the image; `[Image] [S]` has the words of its sample, and the answer is the image.

    Args:
        of: the source whose texts and images are damaged.
        text: shares of the kinds R, S and X of texts; {} = none are taken. Texts of less than 4 words are left out.
        image: shares of the kinds R and S of images; {} = none are taken.
        patches: rows and columns of an image's patches.
        hidden: share of the patches that are grey.
        special_tokens: sentinels are special tokens of the language model's tokenizer, as Unified-IO 2 has them;
            then texts in which a `<` stands are left out, for what they hold could be taken for one.
        seed: damage of another kind and in other places for another seed.
    """

    def __init__(
        self,
        *,
        of: Source,
        text: TextKinds = {"R": 1.0, "S": 1.0, "X": 1.0},  # noqa: B006
        image: ImageKinds = {"R": 1.0, "S": 1.0},  # noqa: B006
        patches: Cells = 4,
        hidden: Chance = 0.5,
        special_tokens: bool = False,
        seed: Seed = 0,
    ):
        self.check_together({"text": text, "image": image, "patches": patches, "hidden": hidden})
        self.of, self.text, self.image = of, _positive(text), _positive(image)
        self.patches, self.hidden = patches, hidden
        self.special_tokens, self.seed = special_tokens, seed
        self.foreign, self.broken = of.foreign, of.broken

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        patches, hidden = options["patches"], options["hidden"]
        if not any(options["text"].values()) and not any(options["image"].values()):
            raise RecipeError(
                "data source 'denoising' has no kinds of texts and none of images; name some of either"
            )
        if not 1 <= round(hidden * patches**2) < patches**2:
            raise RecipeError(
                f"data source 'denoising' hides a share of {hidden} of {patches} x {patches} patches; some must be "
                "hidden, and some seen"
            )

    @property
    def skipped(self) -> Mapping[str, int]:  # type: ignore[override]
        return self.of.skipped

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> list[Sample]:
        return [damaged for sample in self.of[index] for damaged in self._damaged(sample)]

    def image_files(self) -> Iterable[Path]:
        return self.of.image_files()

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        options = (self.text, self.image, self.patches, self.hidden, self.special_tokens, self.seed)
        return blake2b(repr((VERSION, options, self.of.fingerprint)).encode(), digest_size=16).hexdigest()

    def _damaged(self, sample: Sample) -> Iterator[Sample]:
        content = [item for message in sample.messages for item in message.content]
        if any(isinstance(item, Signal) for item in content):
            raise DataError(f"{sample.name} has a signal, of which 'denoising' knows no damage", "signal")
        words = " ".join(item.strip() for item in content if isinstance(item, str)).strip()
        if self.special_tokens and "<" in words:
            words = ""
        yield from self._texts(sample, words)
        images = {item.key: item for item in content if isinstance(item, Picture)}
        for number, image in enumerate(images.values(), 1):
            yield from self._images(sample, words, number, image)

    def _texts(self, sample: Sample, words: str) -> Iterator[Sample]:
        units = _units(words)
        if self.text and len(units) >= LEAST:
            dice = Dice("denoising", self.seed, sample.name, "text")
            kind = _drawn(self.text, dice)
            shown, lost = _split(units, kind, dice)
            yield self._sample(sample, (f"[Text] [{kind}] {shown}",), lost, f"text, {kind}")

    def _images(self, sample: Sample, words: str, number: int, image: Picture) -> Iterator[Sample]:
        dice = Dice("denoising", self.seed, sample.name, number)
        kinds = {kind: share for kind, share in self.image.items() if words or kind != "S"}
        if kinds:
            kind = _drawn(kinds, dice)
            shown = (f"[Image] [S] {words}",) if kind == "S" else (self._hidden(image, dice), "[Image] [R]")
            yield self._sample(sample, shown, image, f"image {number}, {kind}")

    def _hidden(self, image: Picture, dice: Dice) -> Picture:
        every = range(self.patches**2)
        hidden = dice.sample(every, round(self.hidden * len(every)))
        return HiddenPatches(image, self.patches, tuple(sorted(hidden)))

    def _sample(self, sample: Sample, shown: tuple[str | Media, ...], lost: str | Media, what: str) -> Sample:
        messages = (
            Message("user", shown, special_tokens=self.special_tokens),
            Message("assistant", (lost,), special_tokens=self.special_tokens),
        )
        return Sample(f"{sample.name}, damaged ({what})", messages, {"task": "denoising", "kind": what})


class HiddenPatches(Picture):
    """A picture some of whose patches are grey. patches: rows and columns. hidden: their numbers, row by row."""

    def __init__(self, picture: Picture, patches: int, hidden: tuple[int, ...]):
        self.picture, self.patches, self.hidden, self.size = picture, patches, hidden, picture.size

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        record = f"hidden patches {self.picture.key} {self.patches} {self.hidden}"
        return blake2b(record.encode(), digest_size=16).hexdigest()

    def open(self) -> Image.Image:
        image = self.picture.open().copy()
        rows, columns = (
            [round(i * side / self.patches) for i in range(self.patches + 1)] for side in self.size
        )
        for number in self.hidden:
            row, column = divmod(number, self.patches)
            image.paste(GREY, (columns[column], rows[row], columns[column + 1], rows[row + 1]))
        return image


def _positive(kinds: Mapping[Any, float]) -> dict[str, float]:
    return {kind: share for kind, share in sorted(kinds.items()) if share}


def _drawn(kinds: Mapping[str, float], dice: Dice) -> str:
    """One of the kinds, each with its share as its chance."""
    place = dice.uniform(0, sum(kinds.values()))
    for kind, share in kinds.items():
        place -= share
        if place < 0:
            return kind
    return kind


def _units(text: str) -> list[str]:
    """Words with the space before them; of a text without spaces, its letters."""
    words = re.findall(r"\s*\S+", text)
    return words if len(words) >= LEAST else list(text)


def _split(units: Sequence[str], kind: str, dice: Dice) -> tuple[str, str]:
    """What a text of a kind shows, and what is asked for."""
    return _continued(units, dice) if kind == "S" else _with_spans(units, *dice.pick(SPANS[kind]), dice)


def _continued(units: Sequence[str], dice: Dice) -> tuple[str, str]:
    """A beginning, and what follows it."""
    place = 1 + dice.below(len(units) - 1)
    return "".join(units[:place]), "".join(units[place:]).strip()


def _with_spans(units: Sequence[str], share: float, mean: int, dice: Dice) -> tuple[str, str]:
    """The text with sentinels in the places of spans, and the spans behind these; the first words stay (T5)."""
    lost = min(max(round(share * len(units)), 1), len(units) - 1)
    spans = min(max(round(lost / mean), 1), lost, len(units) - lost)
    bounds = [0]
    for remaining, lost_here in zip(
        _parted(len(units) - lost, spans, dice), _parted(lost, spans, dice), strict=True
    ):
        bounds += [bounds[-1] + remaining, bounds[-1] + remaining + lost_here]
    pieces = ["".join(units[start:stop]) for start, stop in pairwise(bounds)]
    sentinels = [f"<extra_id_{number}>" for number in range(spans)]
    shown = "".join(f"{each} {name}" for each, name in zip(pieces[::2], sentinels, strict=True))
    spelled = (f"{name} {each.strip()}" for each, name in zip(pieces[1::2], sentinels, strict=True))
    return shown, " ".join(spelled)


def _parted(total: int, parts: int, dice: Dice) -> list[int]:
    """A number as so many numbers from 1 on, any way as likely as another."""
    cuts = sorted(dice.sample(range(1, total), parts - 1))
    return [stop - start for start, stop in pairwise([0, *cuts, total])]
