"""Norms, keys and values of their own for images."""

from __future__ import annotations

from torch import nn

from chiasm.errors import RecipeError
from chiasm.routing import Routing
from chiasm.routing.blocks import stack_of
from chiasm.routing.by_kind import attach, groups_of
from chiasm.sequence.kinds import KindName

MODULES = ["input_layernorm", "post_attention_layernorm", "self_attn.k_proj", "self_attn.v_proj"]


class ModalityAdaptive(Routing, name="modality_adaptive"):
    """mPLUG-Owl2's modality-adaptive module (arXiv 2311.04257), as DocOwl-1.5 has it (arXiv 2403.12895).

    Words and image tokens share queries and feed-forward networks, and have norms, keys and values of their own in
    every block; those of image tokens begin as copies.

    Args:
        modules: what of every block image tokens have for themselves, as it is called in the language model. The
            default is that of Llama and its like.
        kinds: groups of kinds of image tokens ('read', 'written'), each with weights of its own.
    """

    def __init__(
        self,
        language: nn.Module,
        *,
        modules: list[str] = MODULES,
        kinds: list[list[KindName]] = [["read", "written"]],  # noqa: B006 (never changed)
    ):
        super().__init__()
        self.layers = attach(_chosen(language, modules, self.name), groups_of(kinds, self.name))

    def merge(self) -> None:
        """Nothing: what only some tokens meet cannot be added to the weights of all."""


def _chosen(language: nn.Module, modules: list[str], routing: str) -> dict[str, nn.Module]:
    """Modules of every block by name; raises RecipeError for one that a block lacks."""
    name, stack = stack_of(language, routing)
    chosen: dict[str, nn.Module] = {}
    for i, block in enumerate(stack):
        weighted = (
            (key, module, list(module.parameters(recurse=False))) for key, module in block.named_modules()
        )
        inside = {key: module for key, module, weights in weighted if weights}
        missing = [module for module in modules if module not in inside]
        if missing or not modules:
            raise RecipeError(
                f"routing {routing!r}: a {type(block).__name__} has no {', '.join(missing) or 'modules chosen'}; "
                f"choose among {', '.join(inside)}"
            )
        chosen |= {f"{name}.{i}.{module}": inside[module] for module in modules}
    return chosen
