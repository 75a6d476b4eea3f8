"""The processes of a study on Ray: on this machine, or on a cluster whose machines all see the study's folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chiasm.errors import ChiasmError
from chiasm.studies.processes import run_apart


class RayProcesses:
    """Each process of a study as a task of Ray, of one processor; see `run_apart`, which the tasks call.

    jobs: how many may run at a time.
    """

    def __init__(self, ray: Any, jobs: int):
        self._ray, self.jobs = ray, jobs
        self._task = ray.remote(num_cpus=1, max_retries=0)(run_apart)

    def run(self, function: Callable[..., None], arguments: Sequence[Any], log: Path) -> bool:
        """As `run_apart`; a machine that is lost is a failure like any other."""
        try:
            return bool(self._ray.get(self._task.remote(function, arguments, log.absolute())))
        except self._ray.exceptions.RayError as error:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{error}\n")
            return False


@contextmanager
def ray_processes(address: str, jobs: int = 0) -> Iterator[RayProcesses]:
    """Ray, begun here (`local`) or joined where it runs, and left at the end; raises ChiasmError.

    address: `local`, `auto` (the one that runs on this machine), or `ray://HOST:PORT` and what else Ray takes.
    jobs: processes at a time; 0 = as many as Ray has processors, of which one that is begun here has all.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ChiasmError("--ray needs Ray: pip install 'chiasm[ray]'") from None
    begun = {"num_cpus": jobs or None, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **begun)
    except Exception as error:  # whatever Ray raises where nothing answers
        raise ChiasmError(f"Ray cannot be reached at {address!r}: {error}") from None
    try:
        processors = max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield RayProcesses(ray, min(jobs, processors) if jobs else processors)
    finally:
        ray.shutdown()
