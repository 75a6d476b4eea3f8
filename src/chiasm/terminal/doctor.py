"""`chiasm doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata

import torch
from rich.table import Table

from chiasm.distribution.devices import DEVICES, choose_device, count, name_of
from chiasm.storage.cache import default_folder
from chiasm.terminal.console import console

WHAT = {
    "world": "the built-in world and its pretrained encoder",
    "chinese": "pages in Chinese, where the system has no font for them",
    "diffusion": "image decoders that draw by diffusion",
    "gguf": "language models in GGUF files",
    "serve": "chiasm serve",
    "study": "chiasm study",
    "dev": "the tests",
}


def doctor() -> None:
    """Print it; nothing is changed."""
    out = console()
    machine = Table(show_header=False, box=None)
    for name, value in facts():
        machine.add_row(name, value)
    out.print(machine)
    extras = Table("extra", "for", "", box=None)
    for extra, lacking in missing().items():
        state = f"missing {', '.join(lacking)}: pip install 'chiasm[{extra}]'" if lacking else "ready"
        extras.add_row(extra, WHAT.get(extra, ""), state)
    out.print(extras)


def facts() -> Iterator[tuple[str, str]]:
    """What decides where and how fast models run."""
    yield "chiasm", metadata.version("chiasm")
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", torch.__version__
    yield "transformers", metadata.version("transformers")
    for kind in filter(count, DEVICES):
        device = torch.device(kind)
        default = " (default)" if kind == choose_device().type else ""
        yield "device", f"{kind} x {count(kind)}: {name_of(device)}{default}"
    yield "threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    folder = default_folder()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    yield "cache", f"{folder}, {shutil.disk_usage(there).free / 2**30:.0f} GiB free"


def missing() -> dict[str, list[str]]:
    """By extra, the packages that are not installed."""
    lacking: dict[str, list[str]] = {extra: [] for extra in WHAT}
    for requirement in metadata.requires("chiasm") or ():
        found = re.match(r"([A-Za-z0-9_.-]+)(\[.*?\])?.*extra == ['\"](\w+)['\"]", requirement)
        if found and found[1] != "chiasm" and not _is_installed(found[1]):
            lacking.setdefault(found[3], []).append(found[1])
    return lacking


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
