"""A server of one folder in a process of its own, what it holds of the machine, and what is asked of it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

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

    def processor_seconds(self) -> float:
        """That it has worked, in all threads."""
        fields = (Path("/proc") / str(self.process.pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

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
    command = ["chiasm.cli", "serve", f"model={folder}", "--port", "0", *options]
    with _started(command, log, {"CHIASM_API_KEY": key} if key else {}) as process:
        while (match := ADDRESS.search(log.read_text())) is None:
            _wait(process, log)
        yield Served(process, match[1], int(match[2]), "model", log)


@contextmanager
def served_by_transformers(folder: str, log: Path, *options: str) -> Iterator[Served]:
    """`transformers serve FOLDER` likewise, the model loaded."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = ["transformers.cli.transformers", "serve", folder, "--port", str(port), *options]
    with _started(command, log, {"HF_HUB_OFFLINE": "1"}) as process:
        while not _answers(port):
            _wait(process, log)
        yield Served(process, "127.0.0.1", port, folder, log)


def get(server: Served, path: str) -> Any:
    with urllib.request.urlopen(server.url + path, timeout=60) as reply:
        return json.load(reply)


def post(server: Served, path: str, body: dict[str, Any]) -> Any:
    """The reply; a refusal ends the benchmark with what it says."""
    request = urllib.request.Request(
        server.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{path}: {error.read().decode(errors='replace')}") from None


def data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10):
            return True
    except OSError:
        return False


@contextmanager
def _started(command: Sequence[str], log: Path, more: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, **more, "PYTHONUNBUFFERED": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def _wait(process: subprocess.Popen[str], log: Path) -> None:
    if process.poll() is not None:
        raise SystemExit(f"the server did not start:\n{log.read_text()}")
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.2)
