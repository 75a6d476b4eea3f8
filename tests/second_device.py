"""A second device, simulated: its tensors say that they are on `meta`, hold real numbers, and mix with no others.

As on a GPU an operation on tensors of two devices is an error, but for numbers without a dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from chiasm.distribution import devices

SECOND = torch.device("meta")
MOVES = ("_to_copy", "copy_")  # what may take tensors from one device to the other


class Elsewhere(torch.Tensor):
    """A tensor of the second device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        with torch.inference_mode(False):  # views of weights, within, would not fit their weights
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=SECOND,
            )
        made.inner = inner
        return made

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def new_tensor(self, data: Any, **kwargs: Any) -> torch.Tensor:
        return Elsewhere(torch.tensor(data, **kwargs))

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """Within, the second device exists. operations: how many ran on it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # what is made of other operations arrives whole in inference mode
            result = function.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        result = run(function, args, kwargs or {})
        self.operations += any(isinstance(each, Elsewhere) for each in tree_flatten(result)[0])
        return result


def run(function: Any, args: Any, kwargs: Any) -> Any:
    name = function.overloadpacket.__name__
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    ours = [each for each in given if isinstance(each, Elsewhere)]
    device = kwargs.get("device")
    if not ours and any(each.device.type == "meta" for each in given):
        return function(*args, **kwargs)  # a module without weights, not the second device
    if ours and name not in MOVES:
        strays = [each for each in given if not isinstance(each, Elsewhere) and each.ndim]
        assert not strays, (
            f"{function} takes tensors of two devices: {[tuple(each.shape) for each in strays]}"
        )
    if name == "_fused_sdp_choice":
        return 0  # plain matrix products
    there = bool(ours) if device is None else torch.device(device) == SECOND
    if name == "copy_":
        there = isinstance(args[0], Elsewhere)
    if device is not None:
        kwargs = {**kwargs, "device": "cpu"}
    plain = tree_map(lambda each: each.inner if isinstance(each, Elsewhere) else each, (args, kwargs))
    result = function(*plain[0], **plain[1])
    same = {id(each.inner): each for each in ours}  # an operation in place returns what it was given

    def wrapped(each: Any) -> Any:
        if not isinstance(each, torch.Tensor) or not there:
            return each
        return same.get(id(each)) if id(each) in same else Elsewhere(each)

    return tree_map(wrapped, result)


@contextmanager
def second_device(monkeypatch: Any) -> Iterator[SecondDevice]:
    """The second device, the fastest of this machine."""
    monkeypatch.setattr(devices, "DEVICES", ("meta", "cpu"))
    monkeypatch.setattr(devices, "count", lambda kind: 1)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # knows no such device
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *args: False)
    tensor = torch.tensor  # which knows no modes where the device is meta

    def moved(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
        return tensor(data, **kwargs) if device is None else tensor(data, **kwargs).to(device)

    monkeypatch.setattr(torch, "tensor", moved)
    with SecondDevice() as mode:
        yield mode
