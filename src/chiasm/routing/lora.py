"""Low-rank updates for all tokens."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from chiasm.errors import RecipeError
from chiasm.parts.bounds import Positive, Width
from chiasm.routing import Routing

Layer = nn.Linear | Conv1D  # GPT-2 writes its linear layers as Conv1D, with the weight transposed


class LoRA(Routing, name="lora"):
    """Low-rank updates of the language model's linear layers: W x + alpha/rank B A x (arXiv 2106.09685).

    B starts at zero, so that an untrained update changes nothing. The same update for tokens of every kind.

    Args:
        rank: width of the bottleneck between A and B.
        alpha: the update is scaled by alpha / rank.
        targets: names of the linear layers, or the ends of their names; 'all-linear' is every one but the
            language-model head.
    """

    merges = True

    def __init__(
        self,
        language: nn.Module,
        *,
        rank: Width = 16,
        alpha: Positive = 32.0,
        targets: list[str] | Literal["all-linear"] = "all-linear",
    ):
        super().__init__()
        # Tuples in a list, so that the language model does not become a submodule of its routing.
        self._attached: list[tuple[Layer, LowRank, RemovableHandle]] = []
        self.updates = nn.ModuleDict()
        for name, layer in chosen(language, targets, self.name).items():
            update = LowRank(layer, rank, alpha / rank)
            self.updates[name.replace(".", "/")] = update  # a module's name cannot contain a dot
            self._attached.append((layer, update, layer.register_forward_hook(update.add)))

    def merge(self) -> None:
        """Add the updates to the language model's weights and detach them; B is zero again afterwards."""
        with torch.no_grad():
            for layer, update, hook in self._attached:
                change = update.scale * (update.b.float() @ update.a.float())
                layer.weight.copy_(layer.weight.float() + (change.T if isinstance(layer, Conv1D) else change))
                update.b.zero_()
                hook.remove()
        self._attached = []

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"rank": 2}


class LowRank(nn.Module):
    """The update of one linear layer."""

    def __init__(self, layer: Layer, rank: int, scale: float):
        super().__init__()
        self.scale = scale
        inputs, outputs = layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1]
        self.a = nn.Parameter(layer.weight.new_empty(rank, inputs))
        self.b = nn.Parameter(layer.weight.new_zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "*s i"]) -> Float[Tensor, "*s o"]:
        return self.scale * functional.linear(functional.linear(x.to(self.a.dtype), self.a), self.b)

    def add(self, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + self(arguments[0]).to(output.dtype)


def chosen(language: nn.Module, targets: list[str] | str, routing: str) -> dict[str, Layer]:
    """The linear layers that `targets` name; raises RecipeError for a target without a layer."""
    tables = {id(m.weight) for m in language.modules() if isinstance(m, nn.Embedding)}
    linear_layers = {
        name: module
        for name, module in language.named_modules()
        # A weight tied to the embedding table is a language-model head.
        if isinstance(module, Layer) and id(module.weight) not in tables
    }
    if isinstance(targets, str):
        targeted = {name: layer for name, layer in linear_layers.items() if not name.endswith("lm_head")}
        if not targeted:
            raise RecipeError(f"routing {routing!r} found no linear layer in {type(language).__name__}")
        return targeted
    ends = tuple("." + target for target in targets)
    idle = [
        target
        for target, end in zip(targets, ends)
        if not any(f".{name}".endswith(end) for name in linear_layers)
    ]
    if idle or not targets:
        endings = sorted({name.rpartition(".")[2] for name in linear_layers})
        raise RecipeError(
            f"routing {routing!r} found no linear layer for targets {idle}; "
            f"the language model has: {', '.join(endings)}"
        )
    return {name: layer for name, layer in linear_layers.items() if f".{name}".endswith(ends)}
