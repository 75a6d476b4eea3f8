"""Modules that exist once for words and once more for each group of kinds of image tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.routing.blocks import original, replace
from chiasm.sequence.kinds import KINDS, KindName
from chiasm.sequence.layout import current_layout

Groups = tuple[tuple[KindName, ...], ...]


def groups_of(kinds: Sequence[Sequence[KindName]], routing: str) -> Groups:
    """The kinds that keep the module's own weights, then the groups that get others; raises RecipeError."""
    named = [kind for group in kinds for kind in group]
    if not named or len(set(named)) != len(named) or not all(kinds):
        raise RecipeError(f"routing {routing!r}: {list(kinds)} are not groups of different kinds")
    return (tuple(kind for kind in KINDS if kind not in named), *(tuple(group) for group in kinds))


def attach(modules: dict[str, nn.Module], groups: Groups) -> nn.ModuleDict:
    """Replace modules by their `ByKind`; returns those by name."""
    added = nn.ModuleDict()
    for name, module in modules.items():
        ways = ByKind(module, groups)
        added[name.replace(".", "/")] = ways  # a module's name cannot contain a dot
        replace(module, ways.forward)
    return added


class ByKind(nn.Module):
    """A module for the first group of kinds, and a copy of it (`ways`) for each of the others."""

    def __init__(self, module: nn.Module, groups: Groups):
        super().__init__()
        self._module = [module]  # in a list, so that it does not become a submodule
        self.groups = groups
        self.ways = nn.ModuleList(copy.deepcopy(module) for _ in groups[1:])

    def forward(self, x: Float[Tensor, "b t ..."]) -> Float[Tensor, "b t ..."]:
        places = current_layout().by_kind
        rows, order = places.parts(self.groups)
        flat = places.flat(x)
        if all(len(each) == 0 for each in rows[1:]):  # nothing but words: as if there were no routing
            added = original(self._module[0], x)
            return added if not torch.is_grad_enabled() else added + self._nothing(flat)
        parts = [original(self._module[0], flat[rows[0]])]
        parts += [way(flat[each]) for way, each in zip(self.ways, rows[1:], strict=True)]
        joined = torch.cat(parts)[order]
        return joined.view(*x.shape[:-1], joined.shape[-1])

    def _nothing(self, flat: Tensor) -> Tensor:
        """Zero, that depends on all weights: they get a gradient, so that ranks without an image keep step."""
        return torch.stack([way(flat[:0]).sum() for way in self.ways]).sum()
