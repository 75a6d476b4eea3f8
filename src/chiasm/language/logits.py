"""What transformers' classes make of the logits of their output layer: scaled by a number, or capped by a tanh."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from chiasm.errors import RecipeError

CAPS = ("final_logit_softcapping", "logits_soft_cap")  # Gemma, nanochat; RecurrentGemma
FACTORS = ("logit_scale", "lm_head_multiplier")  # Cohere; Falcon-H1
DIVISORS = ("logits_scaling",)  # Granite, MiniCPM3
MULTIPLIES = ("hyperclovax",)  # where the same key is a factor


def adjusted(logits: Float[Tensor, "*s v"], config: Any) -> Float[Tensor, "*s v"]:
    """The logits of a causal language model, from those of its output layer."""
    config = config.get_text_config()
    factor = _factor(config)
    logits = logits if factor == 1 else logits * factor
    cap = next((value for key in CAPS if (value := getattr(config, key, None)) is not None), None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _factor(config: Any) -> float:
    factor = 1.0
    for key in (*FACTORS, *DIVISORS):
        value = getattr(config, key, None)
        if isinstance(value, int | float):
            divides = key in DIVISORS and config.model_type not in MULTIPLIES
            factor = factor / value if divides else factor * value
    return factor


def check_logits(model: Any) -> None:
    """Raise RecipeError where the logits of a class of transformers are not `adjusted` ones of its output layer.

    The class's own forward is tried with a few hidden states in place of what its base model computes, and a few
    words: no weight is read.
    """
    name, head = type(model).__name__, model.get_output_embeddings()
    if model.base_model is model or not isinstance(getattr(head, "weight", None), Tensor):
        raise RecipeError(f"language 'causal': {name} is no base model with an output layer behind it")
    states, words, width = 3, 5, head.weight.shape[-1]
    hidden = torch.linspace(-9, 9, states * width, device="cpu").sin().view(1, states, width)
    table = torch.linspace(-7, 5, words * width, device="cpu").cos().view(words, width)
    try:
        expected = adjusted(functional.linear(hidden, table), model.config)
        logits = _class_logits(model, head, hidden, table)
        same = logits.shape == expected.shape and torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)
    except Exception:  # a class that asks more of its base model, or computes with weights of its own
        same = False
    if not same:
        raise RecipeError(
            f"language 'causal': {name} does more than to scale or cap the logits of its output layer "
            f"({', '.join((*FACTORS, *DIVISORS, *CAPS))}), and no more is known here; choose another model_type"
        )


@torch.no_grad()
def _class_logits(
    model: Any, head: nn.Module, hidden: Float[Tensor, "b t d"], table: Float[Tensor, "v d"]
) -> Float[Tensor, "b t v"]:
    """What the class makes of `hidden`, as if its base model had computed it, with `table` as its output layer."""
    bases = [each for each in model.modules() if isinstance(each, PreTrainedModel) and each is not model]
    for base in bases:  # OPT calls its base model's decoder
        base.forward = lambda *args, **kwargs: _Output([hidden])  # type: ignore[method-assign]
    head.forward = lambda states: functional.linear(states, table)  # type: ignore[method-assign]
    try:
        return model(inputs_embeds=hidden).logits
    finally:
        for each in (*bases, head):
            del each.forward


class _Output(tuple[Tensor]):
    """A base model's output that has hidden states and nothing else."""

    def __getattr__(self, name: str) -> Tensor | None:
        return self[0] if name == "last_hidden_state" else None
