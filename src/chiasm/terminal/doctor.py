"""`chiasm doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement
from rich.table import Table

import chiasm
from chiasm.distribution.devices import DEVICES, choose_device, count, name_of
from chiasm.storage.cache import default_folder
from chiasm.terminal.console import console

ITSELF = ""  # the extra of what is always needed
WHAT = {
    ITSELF: "Chiasm itself",
    "world": "the built-in world and its pretrained encoder",
    "chinese": "pages in Chinese, where the system has no font for them",
    "diffusion": "image decoders that draw by diffusion",
    "gguf": "language models in GGUF files",
    "serve": "chiasm serve",
    "study": "chiasm study",
    "ray": "chiasm study --ray",
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
        extras.add_row(extra, WHAT.get(extra, ""), _state(extra, lacking))
    out.print(extras)


def _state(extra: str, lacking: Sequence[str]) -> str:
    package = f"chiasm[{extra}]" if extra else "chiasm"
    return f"missing {', '.join(lacking)}: pip install '{package}'" if lacking else "ready"


def facts() -> Iterator[tuple[str, str]]:
    """What decides where and how fast models run."""
    yield "chiasm", f"{chiasm.__version__} in {Path(chiasm.__file__).parent}"
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
    """By extra, the packages that are not installed, or not in a version that will do.

    Nothing where Chiasm itself is not installed but only lies on the path: what it needs stands nowhere then.
    """
    try:
        requirements = [Requirement(line) for line in metadata.requires("chiasm") or ()]
    except metadata.PackageNotFoundError:
        return {}
    return {
        extra: [lack for each in requirements if _is_of(each, extra) and (lack := _lack(each)) is not None]
        for extra in WHAT
    }


def _is_of(requirement: Requirement, extra: str) -> bool:
    """Whether an extra needs a package that others do not."""
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ITSELF}):
        return extra == ITSELF
    return requirement.name != "chiasm" and extra != ITSELF and marker.evaluate({"extra": extra})


def _lack(requirement: Requirement) -> str | None:
    """What is wrong with a package; None = nothing."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return requirement.name
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{requirement.name}{requirement.specifier} (not {version})"
