"""Where things stand in any causal language model of transformers, and how a module is replaced in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from chiasm.errors import RecipeError

FEED_FORWARD = ("mlp", "feed_forward", "ffn")


def feed_forwards(language: nn.Module, routing: str) -> dict[str, nn.Module]:
    """The feed-forward network of every block by its name, first block first; raises RecipeError for none."""
    name, stack = stack_of(language, routing)
    networks = {}
    for i, block in enumerate(stack):
        own = next((each for each in FEED_FORWARD if isinstance(getattr(block, each, None), nn.Module)), None)
        if own is None:
            raise RecipeError(
                f"routing {routing!r}: {type(block).__name__} has no feed-forward network of its own "
                f"({', '.join(FEED_FORWARD)}); its parts are {', '.join(n for n, _ in block.named_children())}"
            )
        networks[f"{name}.{i}.{own}"] = getattr(block, own)
    return networks


def stack_of(language: nn.Module, routing: str) -> tuple[str, nn.ModuleList]:
    """The blocks of a language model, and the name of their list."""
    depth = _setting(language, "num_hidden_layers")
    for name, module in language.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name, module
    raise RecipeError(f"routing {routing!r} found no stack of {depth} blocks in {type(language).__name__}")


def width_of(language: nn.Module) -> int:
    """Of a hidden state."""
    return int(_setting(language, "hidden_size"))


def replace(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Let `forward` compute in place of the module, whose parameters and names stay as they are.

    Unlike with a forward hook, the module itself does not compute in vain; `original` calls it.
    """
    module.__dict__["forward"] = forward


def original(module: nn.Module, *arguments: Any) -> Any:
    """What a replaced module computes itself."""
    return type(module).forward(module, *arguments)


def _setting(language: nn.Module, name: str) -> Any:
    for module in language.modules():
        value = getattr(getattr(module, "config", None), name, None)
        if value is not None:
            return value
    raise RecipeError(f"{type(language).__name__} does not say its {name}")
