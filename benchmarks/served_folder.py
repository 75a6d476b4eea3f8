"""A server of one folder in a process of its own, and what it holds of the machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ADDRESS = re.compile(r"http://([^:/\s]+):(\d+)/v1")


class Held(NamedTuple):
    """MiB in memory, open files, threads."""

    mib: float
    files: int
    threads: int


class Served:
    """A server that runs. name: of its model."""

    def __init__(self, process: subprocess.Popen[str], host: str, port: int, name: str, log: Path):
        self.process, self.address, self.name, self.log = process, (host, port), name, log

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    def held(self) -> Held:
        place = Path("/proc") / str(self.process.pid)
        status = dict(
            line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line
        )
        return Held(
            int(status["VmRSS"].split()[0]) / 1024, len(os.listdir(place / "fd")), int(status["Threads"])
        )


@contextmanager
def served_folder(folder: str, log: Path, *options: str, key: str | None = None) -> Iterator[Served]:
    """`chiasm serve FOLDER` at a free port, its output in a file; it has stopped when the block ends."""
    command = [sys.executable, "-m", "chiasm.cli", "serve", f"model={folder}", "--port", "0", *options]
    environment = {**os.environ, **({"CHIASM_API_KEY": key} if key else {}), "PYTHONUNBUFFERED": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, text=True, env=environment
        )
        try:
            while (match := ADDRESS.search(log.read_text())) is None:
                if process.poll() is not None:
                    raise SystemExit(f"the server did not start:\n{log.read_text()}")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
            yield Served(process, match[1], int(match[2]), "model", log)
        finally:
            process.terminate()
            process.wait(60)
