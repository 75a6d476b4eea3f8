"""Weights of its own for each kind of token."""

from __future__ import annotations

from torch import nn

from chiasm.routing import Routing
from chiasm.routing.blocks import stack_of
from chiasm.routing.by_kind import attach, groups_of
from chiasm.sequence.kinds import KindName


class MixtureOfTransformers(Routing, name="mixture_of_transformers"):
    """Mixture-of-Transformers: each kind of token has all weights but the embeddings to itself (arXiv 2411.04996).

    Projections of attention, feed-forward networks and norms exist once more for image tokens, beginning as
    copies; attention itself is over all tokens. A token costs no more than without.

    Args:
        kinds: groups of kinds of image tokens ('read', 'written'), each with weights of its own.
    """

    def __init__(
        self,
        language: nn.Module,
        *,
        kinds: list[list[KindName]] = [["read", "written"]],  # noqa: B006 (never changed)
    ):
        super().__init__()
        self.layers = attach(_weighted(language, self.name), groups_of(kinds, self.name))

    def merge(self) -> None:
        """Nothing: what only some tokens meet cannot be added to the weights of all."""


def _weighted(language: nn.Module, routing: str) -> dict[str, nn.Module]:
    """By name: all modules in the blocks that hold weights themselves, and the norm behind the last block."""
    name, stack = stack_of(language, routing)
    owner, _, _ = name.rpartition(".")
    prefix = f"{owner}." if owner else ""
    beside = {
        f"{prefix}{key}": module
        for key, module in language.get_submodule(owner).named_children()
        if not isinstance(module, nn.Embedding) and not list(module.children())
    }
    inside = {f"{name}.{key}": module for key, module in stack.named_modules() if key}
    return {
        key: module
        for key, module in (inside | beside).items()
        if any(True for _ in module.parameters(recurse=False))
    }
