"""Where samples come from."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from chiasm.data.sample import Media, Message, Picture, Sample, Signal
from chiasm.parts import Part

__all__ = ["Media", "Message", "Picture", "Sample", "Signal", "Source", "counts"]


class Source(Part, slot="data"):
    """Interface: groups of samples by index. Random access makes shuffling and exact resumption trivial.

    foreign: its records come from outside: each is checked against the model before training.
    broken: what becomes of a sample that cannot be used: an error, or it is skipped and counted.
    skipped: records that were left out because they cannot be used, by kind; reported when training begins.
    """

    foreign: bool = False
    broken: Literal["error", "skip"] = "error"
    skipped: Mapping[str, int] = Counter()

    @abstractmethod
    def __len__(self) -> int:
        """Number of groups."""

    @abstractmethod
    def __getitem__(self, index: int) -> list[Sample]:
        """Group `index`: the samples that belong together because they share a picture. Deterministic."""

    def image_files(self) -> Iterable[Path]:
        """The files of the images and signals in its samples, of which the fingerprint tells nothing."""
        return ()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that determines the samples, written into the run's record."""


def counts(skipped: Mapping[str, int]) -> str:
    """`3 records skipped (2 unreadable image, 1 markers)`."""
    kinds = ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(skipped.items(), key=lambda each: -each[1])
    )
    return f"{sum(skipped.values()):,} records skipped{f' ({kinds})' if kinds else ''}"
