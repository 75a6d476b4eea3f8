"""Batches for the model, made in turn or ahead of time in other processes, and where they leave off."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from chiasm.errors import ChiasmError
from chiasm.training.mixture import LeftOut

MOST_WORKERS = 256
USUAL_WORKERS = 8  # at most
SHARED_BYTES = 1 << 30  # of shared memory, through which batches come from other processes
_SHARED = Path("/dev/shm")
_FORKS = sys.platform == "linux"  # else a process begins anew, with what it is handed pickled

Batch = TypeVar("Batch", covariant=True)


class Batches(Protocol[Batch]):
    """An endless row of batches with a position that can be saved and restored, exactly.

    A batch is packed, which decides what it holds and moves the position, and then filled with pixels.
    """

    def pack(self) -> Any: ...

    def fill(self, packed: Any) -> Batch: ...

    def state(self) -> dict[str, Any]: ...

    def check(self, *, decode: bool = False) -> LeftOut: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class Taken(NamedTuple, Generic[Batch]):
    """A batch, the position behind it, and the seconds that were waited for it."""

    batch: Batch
    state: dict[str, Any]
    waited: float


class Feed(Generic[Batch]):
    """The batches in order, each with the position behind it; a context manager.

    With workers, each of so many processes packs all batches and fills its share of them, up to two ahead. So they
    are the batches of one process, bit for bit, and a run may go on with another number of workers.

    Args:
        workers: processes that make batches while the model works on the last one; 0 = each is made here when it is
            taken.
    """

    def __init__(self, batches: Batches[Batch], workers: int = 0):
        self._workers = workers
        self._loader: DataLoader[Any] = DataLoader(
            _Shares(batches),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            multiprocessing_context=("fork" if _FORKS else "spawn") if workers else None,
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # else it would draw a number from the random state of training
        )
        self._iterator: Iterator[Any] | None = None

    def __enter__(self) -> Feed[Batch]:
        self._iterator = iter(self._loader)
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        """Raise ChiasmError if a worker has died, which can come to light at any moment."""
        self._iterator = None  # which ends the workers
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error):
            raise ChiasmError(
                f"a process that makes batches has ended: {' '.join(str(error).split())} "
                "With workers=0 (--workers 0) there is none"
            ) from None

    def take(self) -> Taken[Batch]:
        """The next batch; raises what making it raised."""
        assert self._iterator is not None
        began = time.perf_counter()
        each = next(self._iterator)
        if isinstance(each, ChiasmError):
            raise each
        batch, state = each
        return Taken(batch, state, time.perf_counter() - began)


def usual_workers(device: torch.device, *, skips: bool) -> int:
    """How many processes make batches for a model on this device, if nobody says otherwise.

    On a CPU none, for they would take its cores; else a core each, up to eight, of this process's share of them.
    One where records that cannot be used are skipped (`skips`): whether an image can be decoded decides what a
    batch holds, so that each process would decode them all. None without room in shared memory, and none where a
    process does not begin as a copy of this one: there a script has to be written for it.
    """
    if device.type == "cpu" or not _FORKS:
        return 0
    if _SHARED.exists() and shutil.disk_usage(_SHARED).free < SHARED_BYTES:
        return 0
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    own = cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 1 if skips else max(1, min(USUAL_WORKERS, own - 1))


class _Shares(IterableDataset[Any], Generic[Batch]):
    """Each batch with the position behind it, or what went wrong; in a worker every n-th of them."""

    def __init__(self, batches: Batches[Batch]):
        self._batches = batches

    def __iter__(self) -> Iterator[tuple[Batch, dict[str, Any]] | ChiasmError]:
        worker = get_worker_info()
        share, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in itertools.count():
            try:
                packed = self._batches.pack()
                if number % workers == share:
                    yield self._batches.fill(packed), self._batches.state()
            except ChiasmError as error:  # no worker can come to a batch of its own before the broken one
                yield error
                return


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin_worker(_: int) -> None:
    """Leave signals to the process that trains, which ends its step first; its end is the worker's."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
