"""Work in processes of one thread each that share their imports: a server loads the package once and forks."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

# Calls a function with arguments, its output in a file; False where it fails.
Runner = Callable[[Callable[..., None], Sequence[Any], Path], bool]

THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
PRELOADED = ["chiasm.studies.work", "torch.utils.tensorboard"]  # the second is imported when training begins


def run_apart(function: Callable[..., None], arguments: Sequence[Any], log: Path) -> bool:
    """Call a function of the package in a process of its own; False where it fails. Its output goes to the log."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _environment(THREADS):
        forkserver.ensure_running()
    environment = {**os.environ, **THREADS}
    process = context.Process(target=_call, args=(function, tuple(arguments), str(log), environment))
    process.start()
    process.join()
    return process.exitcode == 0


def _call(
    function: Callable[..., None], arguments: tuple[Any, ...], log: str, environment: dict[str, str]
) -> None:
    os.environ.clear()  # the server's is that of when it began
    os.environ.update(environment)
    with open(log, "ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
