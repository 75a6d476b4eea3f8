"""Which language models of transformers keep the documents of a packed row apart.

Whatever mixes positions must go through transformers' attention interface, which Chiasm's attention rule replaces.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM

from chiasm.errors import RecipeError

ATTENTION = ("full_attention", "sliding_attention", "attention", "mlp", "moe")  # kinds of layers
KINDS = ("layer_types", "layers_block_type", "block_types")  # where configs name them
_CHOOSE = (
    "choose a transformer that has transformers' attention interface, as Llama, Mistral, Qwen2, Qwen3, Gemma, Phi, "
    "OPT, GPT-2 and GPT-NeoX have, or MPT"
)


def check_attention(config: Any) -> None:
    """Raise RecipeError for a model in which the documents of a row would see each other, from its config alone."""
    try:
        model: Any = AutoModelForCausalLM._model_mapping[type(config)]
    except KeyError:
        return  # transformers itself will say that it has none
    modules = [base.__module__ for base in model.__mro__ if ".models." in base.__module__]
    if not any(hasattr(sys.modules[name], "ALL_ATTENTION_FUNCTIONS") for name in modules):
        raise RecipeError(
            f"language 'causal': {model.__name__} computes attention in a way of its own, by which documents "
            f"packed into one row would see each other; {_CHOOSE}"
        )
    layers = config.get_text_config()
    named = set(_kinds(layers))
    others = sorted(named - set(ATTENTION))
    if not named and getattr(model, "_is_stateful", False):
        others = ["a recurrent state"]
    if others:
        raise _mixes(model.__name__, ", ".join(others))


def check_positions(model: nn.Module) -> None:
    """Raise RecipeError for a model that reads a document otherwise where it stands behind another one in a row."""
    name, base = type(model).__name__, model.base_model
    if "position_ids" not in inspect.signature(base.forward).parameters:  # type: ignore[union-attr]
        raise RecipeError(
            f"language 'causal': {name} takes no position_ids, so that a document packed behind another one would "
            f"be read at other positions than alone; {_CHOOSE}"
        )
    convolutions = [key for key, each in model.named_modules() if isinstance(each, nn.Conv1d)]
    if convolutions:
        raise _mixes(name, f"a convolution over positions ({convolutions[0]})")


def _kinds(config: Any) -> Iterator[str]:
    for key in KINDS:
        value = getattr(config, key, None)
        if isinstance(value, list | tuple):
            yield from (kind for kind in value if isinstance(kind, str))


def _mixes(name: str, what: str) -> RecipeError:
    return RecipeError(
        f"language 'causal': {name} has layers that are no plain attention ({what}), by which documents packed "
        f"into one row would see each other; {_CHOOSE}"
    )
