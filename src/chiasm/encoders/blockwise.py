"""Encoders whose blocks can be run one by one, so that something can stand between and beside them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.encoders import Encoder


class BlockUpdates(Protocol):
    """What is added within a block: to its queries, keys and values (side by side), to what attention puts out, and
    to what the MLP puts out, from the state before its norm."""

    def qkv(self, x: Float[Tensor, "n k s c"]) -> Float[Tensor, "n k s d"]: ...
    def out(self, x: Float[Tensor, "n k s c"]) -> Float[Tensor, "n k s c"]: ...
    def mlp(self, x: Float[Tensor, "n k s c"]) -> Float[Tensor, "n k s c"]: ...


class BlockwiseEncoder(Encoder):
    """Interface. `finish(blocks(begin(pixels)))` is what `forward` gives.

    A block takes sequences of patches, of any leading axes, and may be given `BlockUpdates`.

    channels: of a patch inside the blocks. patch_size: side of a patch in pixels.
    """

    channels: int
    patch_size: int
    blocks: nn.ModuleList

    @abstractmethod
    def trunk(self) -> Iterator[nn.Parameter]:
        """The weights up to the last block."""

    @abstractmethod
    def begin(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        """Patches as the first block reads them."""

    @abstractmethod
    def finish(self, patches: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh2 gw2 d"]:
        """The features of what the last block puts out."""
