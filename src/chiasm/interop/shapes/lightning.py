"""Tensors of training checkpoints whose pickles name a trainer's classes, read without importing any of them."""

from __future__ import annotations

import pickle
import tarfile
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError

ZIP = b"PK\x03\x04"  # with which a zip begins, by which torch knows it
# All that a pickle of tensors needs; every other name becomes an object that does nothing.
ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}


class InertObject:
    """Stands for an object of a class that is not read; of its attributes it knows the names and values."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.state: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> InertObject:
        return self

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state

    def append(self, *items: Any) -> None:
        pass

    extend = __setitem__ = append


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        storage = (
            module == "torch"
            and "." not in name
            and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype))
        )
        if storage or (module, name) in ALLOWED:
            return super().find_class(module, name)
        return InertObject


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in the `state_dict` of a Lightning checkpoint; raises CheckpointError naming a broken file."""
    return read_wrapped(path, "state_dict")


def read_wrapped(path: Path, *wrappers: str) -> dict[str, Tensor]:
    """The tensors of a training checkpoint under the first of these names that it has, else its own.

    Raises CheckpointError naming a broken file.
    """
    content = _read(path)
    name = next((each for each in wrappers if each in content), None)
    state = content if name is None else content[name]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no tensors by name")
    return {key: tensor.detach() for key, tensor in state.items() if isinstance(tensor, Tensor)}


def read_arguments(path: Path, *names: str) -> dict[str, Any]:
    """Numbers, words and lists among the arguments that a trainer stored under the first of these names it has.

    Raises CheckpointError naming a broken file.
    """
    content = _read(path)
    stored: Any = next((content[name] for name in names if name in content), {})
    state = getattr(stored, "state", stored)
    if not isinstance(state, dict):
        return {}
    simple = (bool, int, float, str, list, type(None))
    return {str(key): value for key, value in state.items() if isinstance(value, simple)}


def wrapped_as(path: Path, *wrappers: str) -> str | None:
    """Under which of these names a training checkpoint has its tensors; None = under none."""
    content = _read(path)
    return next((each for each in wrappers if each in content), None)


def _read(path: Path) -> dict[str, Any]:
    reader = types.SimpleNamespace(
        __name__=__name__, Unpickler=_Unpickler, load=lambda f, **kwargs: _Unpickler(f, **kwargs).load()
    )
    try:
        _check_pickle(path)
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
    except CheckpointError:
        raise
    except Exception as error:  # torch and pickle have many for a broken file
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {error or type(error).__name__}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no tensors by name")
    return content


def _check_pickle(path: Path) -> None:
    """Raise CheckpointError for what torch would do more with than read a pickle: a program, a tar archive."""
    if not path.is_file():  # of a pipe nothing would come
        raise CheckpointError(f"there is no checkpoint file {path}")
    with path.open("rb") as file:
        zipped = file.read(len(ZIP)) == ZIP
    # The records as torch lists them: another reader of zip files might not see what torch would run.
    if zipped and "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records():
        raise CheckpointError(
            f"{path} is a program (TorchScript), which would run; save its tensors alone "
            "(torch.save(model.state_dict(), ...) or safetensors)"
        )
    if not zipped and _is_tar(path):
        raise CheckpointError(
            f"{path} is a tar archive, as torch wrote them before 2017, which is unpacked to be read; save its "
            "tensors alone with a torch of today"
        )


def _is_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return False
    return True
