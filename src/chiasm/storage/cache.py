"""Tensors on disk by content key: frozen encoders' features and frozen tokenizers' codes.

A folder for each fingerprint (hash of weights and transform) holds append-only safetensors shards. Any number
of processes may read and write at once: a shard appears whole, by one rename, and is never changed; the same
key in two shards holds the same tensor, so either will do. Recipes and runs share what has been computed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from chiasm.errors import ChiasmError

_SHARD_TENSORS = 512
_SHARD_BYTES = 64 * 2**20
_OPEN_SHARDS = 256  # below the usual limit of 1,024 open files
_ABANDONED_SECONDS = 3600.0  # a temporary file this old belongs to a writer that was killed


def default_folder() -> Path:
    """Where caches live: `$CHIASM_CACHE`, else `~/.cache/chiasm`."""
    return Path(os.environ.get("CHIASM_CACHE") or "~/.cache/chiasm").expanduser()


def fingerprint(module: nn.Module, *transform: str) -> str:
    """Hash of a module's class, printed settings, parameters and buffers, and of what describes its input."""
    digest = hashlib.sha256(repr((type(module).__qualname__, repr(module), transform)).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()[:32]


class TensorCache:
    """Tensors by key in `folder/fingerprint`; a context manager that writes what is buffered at the end.

    Args:
        folder: where all caches live; see `default_folder`.
        fingerprint: what the tensors depend on besides their key; caches of different ones never mix.
        shard_tensors: tensors buffered before a shard is written.
    """

    def __init__(self, folder: Path | str, fingerprint: str, *, shard_tensors: int = _SHARD_TENSORS):
        if not fingerprint or Path(fingerprint).name != fingerprint or fingerprint.startswith("."):
            raise ChiasmError(
                f"{fingerprint!r} cannot be the fingerprint of a cache: it must be a plain folder name"
            )
        self.folder = Path(folder).expanduser() / fingerprint
        self.shard_tensors = shard_tensors
        self._unwritten: dict[str, Tensor] = {}
        self._unwritten_bytes = 0
        self._shard_of: dict[str, str] = {}
        self._read_shards: set[str] = set()
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._listed = -1
        self._remove_abandoned()

    def __enter__(self) -> TensorCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the files for itself; what is unwritten stays here.
        return _reopen, (self.folder.parent, self.folder.name, self.shard_tensors)

    def __contains__(self, key: str) -> bool:
        return not self.missing([key])

    def __len__(self) -> int:
        self._refresh()
        return len(self._shard_of.keys() | self._unwritten.keys())

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that are in the cache neither on disk nor in the buffer, in order, once each."""
        keys = list(dict.fromkeys(keys))
        absent = [key for key in keys if key not in self._unwritten and key not in self._shard_of]
        if absent:
            self._refresh()
            absent = [key for key in absent if key not in self._shard_of]
        return absent

    def get(self, keys: Iterable[str]) -> list[Tensor | None]:
        """The tensor of each key on the CPU, None where there is none."""
        keys = list(keys)
        self.missing(keys)
        return [self._read(key) for key in keys]

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under their keys; they reach the disk a shard at a time and at `flush`.

        Raises:
            ChiasmError: when the disk is full or cannot be written; nothing half-written stays.
        """
        for key in self.missing(tensors):
            # A copy: rows of one batch share memory and would keep all of it.
            tensor = tensors[key].detach().to("cpu", copy=True).clone(memory_format=torch.contiguous_format)
            self._unwritten[key] = tensor
            self._unwritten_bytes += tensor.nbytes
            if len(self._unwritten) >= self.shard_tensors or self._unwritten_bytes >= _SHARD_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what is buffered as one shard."""
        if not self._unwritten:
            return
        name = f"{uuid.uuid4().hex}.safetensors"
        temporary = self.folder / f".{name}.tmp"
        content = safetensors.torch.save(self._unwritten)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise ChiasmError(self._write_failure(error, len(content))) from error
        self._shard_of |= dict.fromkeys(self._unwritten, name)
        self._read_shards.add(name)
        self._unwritten, self._unwritten_bytes = {}, 0

    def _read(self, key: str) -> Tensor | None:
        if key in self._unwritten:
            return self._unwritten[key].clone()
        while name := self._shard_of.get(key):
            try:
                return self._shard(name).get_tensor(key).clone()  # not a view of the mapped file
            except (SafetensorError, OSError) as error:
                self._forget(name, error)
                self._refresh(force=True)
        return None

    def _refresh(self, force: bool = False) -> None:
        """Index shards that this or other processes have written since the last look."""
        try:
            changed = self.folder.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed == self._listed and not force:
            return
        names = {path.name for path in self.folder.glob("*.safetensors")}
        for name in sorted(names - self._read_shards):
            try:
                keys = self._shard(name).keys()
            except (SafetensorError, OSError) as error:
                self._forget(name, error)
                continue
            self._shard_of |= dict.fromkeys(keys, name)
            self._read_shards.add(name)
        # A folder changed within the clock's resolution of now may change again without a new time.
        self._listed = changed if time.time_ns() - changed > 10**9 else -1

    def _shard(self, name: str) -> Any:
        if name not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                self._open.popitem(last=False)
            self._open[name] = safe_open(self.folder / name, framework="pt")
        self._open.move_to_end(name)
        return self._open[name]

    def _forget(self, name: str, error: Exception) -> None:
        """Drop a shard that cannot be read; its tensors are missing again and will be written anew."""
        self._open.pop(name, None)
        self._read_shards.discard(name)
        self._shard_of = {key: shard for key, shard in self._shard_of.items() if shard != name}
        if isinstance(error, FileNotFoundError):
            return
        warnings.warn(
            f"{self.folder / name} is damaged ({error}); its tensors are computed again", stacklevel=4
        )
        if isinstance(error, SafetensorError):
            (self.folder / name).unlink(missing_ok=True)

    def _remove_abandoned(self) -> None:
        for path in self.folder.glob(".*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue

    def _write_failure(self, error: OSError, size: int) -> str:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return f"the cache {self.folder} cannot be written: {error.strerror or error}"
        place = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        free = shutil.disk_usage(place).free / 2**20
        return (
            f"the disk of the cache {self.folder} is full: {size / 2**20:.1f} MiB to write, "
            f"{free:.1f} MiB free; make room, or set CHIASM_CACHE to a folder on another disk"
        )


def _reopen(folder: Path, fingerprint: str, shard_tensors: int) -> TensorCache:
    return TensorCache(folder, fingerprint, shard_tensors=shard_tensors)
