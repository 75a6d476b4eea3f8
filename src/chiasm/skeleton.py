"""Modules that are built without weights, and weights that are streamed into them: nothing is held twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EXACT = ("inv_freq", "frequencies")  # buffers of rotary embeddings, whose angles half precision would blur


@contextmanager
def without_weights() -> Iterator[None]:
    """Parameters of modules that are built meanwhile stand on the meta device.

    They take no memory, and drawing their initial values costs nothing. Buffers, which may be computed, are real.
    """
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            learns = parameter.requires_grad
            parameter = nn.Parameter(parameter.detach().to("meta"), requires_grad=learns)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]


@torch.no_grad()
def stream_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype | None],
) -> None:
    """Give a module without weights those of a checkpoint, one by one, and move its buffers to the device.

    tensors: by the names of the module's state, all of them. dtype_of: the type of numbers of a parameter or buffer
    by name; None = the tensor's own. A parameter with several names stays one parameter.
    """
    placed: set[int] = set()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in placed:
            continue
        value = tensors[name].to(device, dtype_of(name), copy=True)
        torch.utils.swap_tensors(parameter, nn.Parameter(value, requires_grad=parameter.requires_grad))
        placed.add(id(parameter))
    for path, owner in module.named_modules():
        for name, buffer in owner._buffers.items():
            if buffer is None:
                continue
            full = f"{path}.{name}" if path else name
            floats = buffer.is_floating_point() and not name.endswith(EXACT)
            value = tensors.get(full, buffer)
            owner._buffers[name] = value.to(device, dtype_of(full) if floats else None, copy=True)
