"""Activations that are computed again in the backward pass, instead of being kept (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from chiasm.nn.stepwise import Stepwise


@contextmanager
def recomputing(modules: Iterable[nn.Module]) -> Iterator[list[nn.Module]]:
    """Within this context the layers of all stacks in these modules keep no more than what they were handed.

    Gradients are those of a step that keeps everything, bit for bit: random numbers are drawn again from the same
    state, and a layer finds the layout (or whatever stands in a context variable) that it found at first. A layer
    that takes notes in training, as a batch norm or a codebook does, would take them twice, and stays as it is.
    Gives the layers.
    """
    layers = [layer for module in modules for stack in _stacks(module) for layer in stack]
    replaced = {layer: layer.__dict__.get("forward") for layer in layers}
    for layer in layers:
        layer.__dict__["forward"] = _Recomputed(layer)
    try:
        yield layers
    finally:
        for layer, forward in replaced.items():
            del layer.__dict__["forward"]
            if forward is not None:
                layer.__dict__["forward"] = forward


class _Recomputed:
    """What a layer computes, without what the backward pass would need of it."""

    def __init__(self, layer: nn.Module):
        self.layer, self.compute = layer, layer.forward
        self.never = any(isinstance(module, Stepwise) for module in layer.modules())
        self.norms = [module for module in layer.modules() if isinstance(module, _BatchNorm)]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        notes = self.never or any(norm.training for norm in self.norms)
        if notes or not torch.is_grad_enabled() or not self._learns(arguments, options):
            return self.compute(*arguments, **options)
        context = copy_context()

        def run(*arguments: Any, **options: Any) -> Any:
            return context.run(self.compute, *arguments, **options)

        return checkpoint(run, *arguments, use_reentrant=False, **options)

    def _learns(self, arguments: Iterable[Any], options: dict[str, Any]) -> bool:
        """Whether a gradient will pass."""
        inputs = (each for each in (*arguments, *options.values()) if isinstance(each, Tensor))
        return any(each.requires_grad for each in (*inputs, *self.layer.parameters()))


def _stacks(module: nn.Module) -> Iterator[nn.ModuleList | nn.Sequential]:
    """The outermost lists of layers, which are modules of modules."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(child) > 1 and all(map(_is_layer, child)):
            yield child
        else:
            yield from _stacks(child)


def _is_layer(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and not isinstance(module, nn.ModuleList | nn.ModuleDict)
