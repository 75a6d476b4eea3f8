"""Which weights a token meets inside the language model.

A routing part attaches itself to modules of any language model by hooks, so that the language model's own
code and parameter names stay as they are. What stands at the positions those modules find by
`chiasm.sequence.layout.current_layout`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.nn.losses import Loss
from chiasm.parts import Part


class Routing(Part, nn.Module, slot="routing"):
    """Interface. Built as `Routing(language, *, options)`; its own parameters are trained as `routing`.

    names: of its losses.
    merges: what it adds to the language model is the same for every token, so that `merge` folds all of it in.
    cross_attends: it reads the visual tokens outside the sequence, where an image takes one position. Built as
        `Routing(language, visual_width, *, options)` then; the connector gives tokens of the encoder's width.
    marker: the learnt vector at an image's position, where it cross-attends.
    """

    names: ClassVar[tuple[str, ...]] = ()
    merges: ClassVar[bool] = False
    cross_attends: ClassVar[bool] = False
    marker: Float[Tensor, "1 d"]

    def losses(self) -> dict[str, Loss]:
        """In training: losses by name of what the language model has just read."""
        return {}

    def report(self) -> dict[str, Any]:
        """In use: what an evaluation shall tell of the routing since the last report; {} = nothing."""
        return {}

    @abstractmethod
    def merge(self) -> None:
        """Fold what can be folded into the language model's weights, for export; else do nothing."""
