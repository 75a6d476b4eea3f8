"""What stands at positions: text, images that are read, images that are written."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from chiasm.errors import ChiasmError

KindName = Literal["text", "read", "written"]
KINDS: tuple[KindName, ...] = ("text", "read", "written")  # in the order of `chiasm.sequence.Kind`


class Places:
    """Which kind stands at each place, and where all places of a kind are."""

    def __init__(self, kinds: Int[Tensor, "b t"]):
        self.kinds = kinds
        self._rows: dict[tuple[KindName, ...], Int[Tensor, " m"]] = {}
        self._parts: dict[tuple[tuple[KindName, ...], ...], tuple[list[Tensor], Tensor]] = {}

    def rows(self, *kinds: KindName) -> Int[Tensor, " m"]:
        """Flat places of these kinds, in order."""
        if kinds not in self._rows:
            wanted = torch.tensor([KINDS.index(kind) for kind in kinds], device=self.kinds.device)
            self._rows[kinds] = torch.isin(self.kinds.flatten(), wanted).nonzero()[:, 0]
        return self._rows[kinds]

    def parts(
        self, groups: tuple[tuple[KindName, ...], ...]
    ) -> tuple[list[Int[Tensor, " m"]], Int[Tensor, " n"]]:
        """The flat places of each group, and where each place went when the groups are joined."""
        if groups not in self._parts:
            rows = [self.rows(*group) for group in groups]
            self._parts[groups] = rows, torch.argsort(torch.cat(rows))
        return self._parts[groups]

    def flat(self, x: Tensor) -> Tensor:
        """`b t ...` or what a module made of it, with one axis for all places."""
        if x.shape[:2] == self.kinds.shape:
            return x.flatten(0, 1)
        if x.shape[0] == self.kinds.numel():
            return x
        raise ChiasmError(
            f"a routed module was given {tuple(x.shape)}, which does not fit {tuple(self.kinds.shape)} positions"
        )
