"""Where samples come from."""

from abc import abstractmethod

from chiasm.data.sample import Message, Picture, Sample
from chiasm.parts import Part

__all__ = ["Message", "Picture", "Sample", "Source"]


class Source(Part, slot="data"):
    """Interface: groups of samples by index. Random access makes shuffling and exact resumption trivial.

    skipped: records left out because they cannot be used; reported when training begins.
    """

    skipped: int = 0

    @abstractmethod
    def __len__(self) -> int:
        """Number of groups."""

    @abstractmethod
    def __getitem__(self, index: int) -> list[Sample]:
        """Group `index`: the samples that belong together because they share a picture. Deterministic."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that determines the samples, written into the run's record."""
