"""Two ways of drawing the same pictures, in turns: their time, memory and output, and how they are reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch


def compared(
    sides: Mapping[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]], pictures: int, rounds: int
) -> dict[str, Any]:
    """Each side in turn, so that a busy machine troubles both; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, float] = {}
    outputs: dict[str, Any] = {}
    for number in range(rounds + 1):
        for name, side in sides.items():
            forget_peak()
            held, busy, began = status("VmRSS"), time.process_time(), time.perf_counter()
            outputs[name] = side()
            if number:
                seconds[name].append(time.process_time() - busy)
                wall[name].append(time.perf_counter() - began)
                memory[name] = max(memory.get(name, 0.0), status("VmHWM") - held)
    first, second = sides
    codes, pixels = zip(*outputs.values(), strict=True)
    same = codes[0].shape == codes[1].shape
    return {
        "images_per_second": {name: pictures / median(each) for name, each in wall.items()},
        "processor_seconds": {name: median(each) for name, each in seconds.items()},
        "memory": memory,
        "ratio": {
            "wall": median(b / a for a, b in zip(wall[first], wall[second], strict=True)),
            "processor": median(b / a for a, b in zip(seconds[first], seconds[second], strict=True)),
        },
        "same_codes": same and float((codes[0] == codes[1]).float().mean()),
        "pixel_error": float((pixels[0] - pixels[1]).abs().max()) if same else None,
    }


def status(field: str) -> float:
    """MiB of this process, as the kernel counts them: VmRSS is now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> None:
    """Let VmHWM begin anew from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def table(name: str, result: dict[str, Any]) -> str:
    sides = list(result["images_per_second"])
    lines = [f"{name}: {sides[0]} against {sides[1]}", ""]
    lines.append(f"{'':24}" + "".join(f"{side:>16}" for side in sides) + f"{'ratio':>10}")
    for label, key, ratio in (
        ("images/s", "images_per_second", result["ratio"]["wall"]),
        ("processor seconds", "processor_seconds", result["ratio"]["processor"]),
        ("memory added, MiB", "memory", None),
    ):
        row = "".join(f"{result[key][side]:16.3f}" for side in sides)
        lines.append(f"{label:24}{row}" + (f"{ratio:10.2f}" if ratio else ""))
    for key in ("parameters", "codes", "steps", "same_codes", "pixel_error"):
        if result.get(key) not in (None, False):
            lines.append(f"{key.replace('_', ' '):24}{result[key]}")
    return "\n".join(lines)
