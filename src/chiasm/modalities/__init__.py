"""Modalities beside text and images: what their signals are in the sequence, and what the model makes of them."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.nn.generators import Generators
from chiasm.parts import Part


class Modality(Part, nn.Module, slot="modality"):
    """Signals that a model reads and writes (NExT-GPT, arXiv 2309.05519). Built as `Modality(width, *, options)`.

    A signal that is read stands in the sequence as what `embed` makes of it. For one that is written, `queries`
    stand there, whatever it shall be, and what the language model makes of them decides it; later turns see those
    queries alone. In a recipe it is `modalities: {sound: {type: ...}}`: `sound` is its name in data and losses.

    positions: how many places a signal takes in the sequence, read or written.
    shape: of the numbers that a signal is (`chiasm.data.Signal.open`).
    """

    positions: int
    shape: tuple[int, ...]

    @abstractmethod
    def embed(self, values: Float[Tensor, "n ..."]) -> Float[Tensor, "n k d"]:
        """What stands at the positions of signals that are read."""

    @abstractmethod
    def queries(self) -> Float[Tensor, "k d"]:
        """What stands at the positions of a signal that is written."""

    @abstractmethod
    def loss(self, hidden: Float[Tensor, "n k d"], values: Float[Tensor, "n ..."]) -> Float[Tensor, ""]:
        """The sum of one loss a signal, from the hidden states at the queries of each."""

    @abstractmethod
    def draw(self, hidden: Float[Tensor, "n k d"], generators: Generators) -> Float[Tensor, "n ..."]:
        """The signals. generators: one each, from which alone random numbers come."""
