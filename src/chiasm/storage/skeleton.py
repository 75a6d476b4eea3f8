"""Modules that are built without weights, the shapes they make, and weights that are streamed into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

EXACT = ("inv_freq", "frequencies")  # buffers of rotary embeddings, whose angles half precision would blur

_PATCHING = RLock()  # one thread at a time changes how torch registers parameters
_weightless: ContextVar[bool] = ContextVar("weightless", default=False)


def weightless() -> bool:
    """Whether parts are being built without weights: a checkpoint's config is then read, and not its weights."""
    return _weightless.get()


@contextmanager
def without_weights() -> Iterator[None]:
    """Parameters of modules that are built meanwhile stand on the meta device, and no checkpoint's are read.

    They take no memory, and drawing their initial values costs nothing. Buffers, which may be computed, are real.
    """
    with _PATCHING:
        yield from _without_weights()


def _without_weights() -> Iterator[None]:
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if weightless() and parameter is not None and parameter.device.type != "meta":
            learns = parameter.requires_grad
            parameter = nn.Parameter(parameter.detach().to("meta"), requires_grad=learns)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    token = _weightless.set(True)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        _weightless.reset(token)
        nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]


class ShapesAlone(TorchDispatchMode):
    """Within this context a module without weights runs on real inputs on the CPU, for shapes and FLOPs.

    What a weight takes part in is not computed: zeros of the right shape come out. Views of weights stay weights.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor.is_meta for tensor in tensors):
            return function(*args, **kwargs)
        if all(tensor.is_meta for tensor in tensors) and any(r.alias_info for r in function._schema.returns):
            return function(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        outputs = function(*args, **{**kwargs, **({"device": "meta"} if "device" in kwargs else {})})
        return tree_map_only(Tensor, lambda tensor: torch.zeros_like(tensor, device="cpu"), outputs)


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
