"""Tensors of training checkpoints whose pickles name a trainer's classes, read without importing any of them."""

from __future__ import annotations

import pickle
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError

# All that a pickle of tensors needs; every other name becomes an object that does nothing.
ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}


class Inert:
    """Stands for an object of a class that is not read."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, *items: Any) -> None:
        pass

    extend = __setitem__ = append


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        storage = module == "torch" and (
            name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)
        )
        if storage or (module, name) in ALLOWED:
            return super().find_class(module, name)
        return Inert


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in the `state_dict` of a Lightning checkpoint; raises CheckpointError naming a broken file."""
    return read_wrapped(path, "state_dict")


def read_wrapped(path: Path, *wrappers: str) -> dict[str, Tensor]:
    """The tensors of a training checkpoint under the first of these names that it has, else its own.

    Raises CheckpointError naming a broken file.
    """
    reader = types.SimpleNamespace(
        __name__=__name__, Unpickler=_Unpickler, load=lambda f, **kwargs: _Unpickler(f, **kwargs).load()
    )
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
        name = next((each for each in wrappers if each in content), None)
        state = content if name is None else content[name]
        return {name: tensor.detach() for name, tensor in state.items() if isinstance(tensor, Tensor)}
    except Exception as error:  # torch and pickle have many for a broken file
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {error or type(error).__name__}"
        ) from error
