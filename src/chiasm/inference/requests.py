"""What is asked of the engine: a generator that yields what it wants read, and is sent hidden states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from chiasm.sequence import Document, Kind


@dataclass(frozen=True)
class Read:
    """Begin a row with each of these documents, behind the rows that the request has.

    Sent back: the hidden state of each document's last position, `n d`.
    """

    documents: Sequence[Document]


@dataclass(frozen=True, eq=False)
class Extend:
    """Append s positions to every row of the request.

    kinds, opens, exposed, coordinates: of each position (see `chiasm.sequence.layout.Layout`); coordinates ()
        = zeros.
    keep: without it the positions are forgotten once they are read.
    following: how many more positions are known to come, so that memory for them is laid out at once.
    Sent back: the hidden states, `r s d`.
    """

    embeddings: Float[Tensor, "r s d"]
    kinds: Sequence[Kind]
    opens: Sequence[bool]
    exposed: Sequence[bool]
    coordinates: Sequence[tuple[int, int, int]] = ()
    _: KW_ONLY
    keep: bool = True
    following: int = 0

    @staticmethod
    def words(embeddings: Float[Tensor, "r s d"]) -> Extend:
        """Words are causal."""
        count = embeddings.shape[1]
        return Extend(embeddings, (Kind.TEXT,) * count, (True,) * count, (True,) * count)

    def behind(self, count: int) -> Extend:
        """The same without its first `count` positions."""
        return replace(
            self,
            embeddings=self.embeddings[:, count:],
            kinds=self.kinds[count:],
            opens=self.opens[count:],
            exposed=self.exposed[count:],
            coordinates=self.coordinates[count:],
        )


@dataclass(frozen=True)
class Forget:
    """Take the last `count` positions from every row of the request. Nothing is sent back, and no tick passes."""

    count: int


@dataclass(frozen=True)
class Keep:
    """Go on with these of the request's rows, in this order. Nothing is sent back, and no tick passes."""

    rows: Sequence[int]


@dataclass(frozen=True)
class Offer:
    """Let other requests begin with what the request's first row has read, which is how this document begins.

    Nothing is sent back, and no tick passes.
    """

    document: Document


Wish: TypeAlias = Read | Extend | Forget | Keep | Offer
Steps: TypeAlias = Generator[Wish, Any, Any]  # returns the request's result


class Request(ABC):
    """One thing that is asked for: a few rows that go on in step.

    pieces: what is ready of the result before it is whole, for those who wait for it piece by piece.
    reused: how many positions of the documents that it reads first had been read for others.
    """

    def __init__(self) -> None:
        self.pieces: deque[Any] = deque()
        self.reused = 0

    @property
    @abstractmethod
    def rows(self) -> int:
        """Most rows that it has at a time."""

    @property
    @abstractmethod
    def positions(self) -> int:
        """About how many positions its longest row will have."""

    @abstractmethod
    def steps(self) -> Steps:
        """Make the result. Begun anew, after whatever stopped it, it goes on from what it has noted of it."""
