"""What stands round every quantizer of vector-quantize-pytorch: projections, groups of channels, axes of codes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from chiasm.interop.config import Config
from chiasm.interop.mapping import Unused

PLAIN = (Unused("q.zz_dummy"), Unused("q.mask"))


class Groups(nn.Module):
    """Channels projected to groups of equal width, each quantized by itself, and back.

    channel_first: where the input has its channels; None = first in images and videos, last in sequences.
    clamp: bound of the projected channels.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        groups: int,
        *,
        channel_first: bool | None = None,
        projects: bool | None = None,
        normalises: bool = False,
        clamp: float | None = None,
    ):
        super().__init__()
        self.projects = width != inner * groups if projects is None else projects
        self.groups, self.channel_first, self.clamp = groups, channel_first, clamp
        self.project_in: nn.Module = nn.Identity()
        self.project_out: nn.Module = nn.Identity()
        if self.projects:
            linear = nn.Linear(width, inner * groups)
            normed = nn.Sequential(linear, nn.LayerNorm(inner * groups)) if normalises else linear
            self.project_in, self.project_out = normed, nn.Linear(inner * groups, width)

    def split(self, x: Tensor) -> Tensor:
        inner = self.project_in(x.movedim(1, -1) if self._first(x) else x)
        if self.clamp is not None:
            inner = (inner / self.clamp).tanh() * self.clamp
        return inner.unflatten(-1, (self.groups, -1))

    def join(self, groups: Tensor) -> Tensor:
        x = self.project_out(groups.flatten(-2))
        return x.movedim(-1, 1) if self._first(x) else x

    def codes(self, codes: Tensor, config: Config) -> Tensor:
        """Codes of one group have no axis of groups, unless it is asked for."""
        keeps: Any = config.get("keep_num_codebooks_dim")
        return codes if self.groups > 1 or keeps else codes[..., 0]

    def _first(self, x: Tensor) -> bool:
        return x.ndim > 3 if self.channel_first is None else self.channel_first


def gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad
