"""What a study takes beside its cells run one by one, in processor seconds of all their processes.

    python benchmarks/study_cost.py connectors --preset smoke

The study: `chiasm study` with one job and an empty cache folder, to which all of its cells add. One by one: `chiasm
train` and `chiasm eval` of each cell's recipe, with a cache folder of its own. Both train and measure the same;
`--cells` runs only so many of them one by one, and counts the others at their mean. Linux only: what a process
leaves behind is counted too.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from chiasm.storage.folders import read_json

SUBREAPER = 36  # of prctl: what this process's descendants leave behind becomes its own child


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--cells", type=int, default=0, help="cells that are run one by one; 0 = all")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as place:
        result = compare(arguments.study, arguments.preset, Path(place), arguments.cells)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"study {arguments.study}, preset {arguments.preset}: {result['cells']} cells")
    print(f"as a study      {result['study']:8.1f} processor seconds")
    print(f"one by one      {result['alone']:8.1f} ({result['measured']} cells measured)")
    print(f"ratio           {result['ratio']:8.1f}")


def compare(study: str, preset: str, place: Path, most: int) -> dict[str, float]:
    """Processor seconds of both ways. most: cells that are run one by one; 0 = all."""
    together = ["study", study, str(place / "study"), "--preset", preset, "--jobs", "1"]
    whole = processor_seconds(together, place / "cache")
    names = list(read_json(place / "study" / "cells.json"))
    # Spread over the list, which goes through arms first, then sizes, then seeds.
    some = names[:: max(1, len(names) // most)][:most] if most else names
    seconds = []
    for name in some:
        recipe, cache = place / "study" / "cells" / name / "recipe.yaml", place / f"cache-{name}"
        train = processor_seconds(["train", str(recipe), "--out", str(place / name)], cache)
        seconds.append(train + processor_seconds(["eval", str(place / name)], cache))
    alone = sum(seconds) * len(names) / len(some)
    return {
        "cells": len(names),
        "measured": len(some),
        "study": whole,
        "alone": alone,
        "ratio": alone / whole,
    }


def processor_seconds(command: Sequence[str], cache: Path) -> float:
    """Of a command of Chiasm and all that it starts, with one thread each."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    environment = {**os.environ, **threads, "CHIASM_CACHE": str(cache)}
    before = _of_children()
    starter = "from chiasm.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", starter, *command], env=environment, stdout=subprocess.DEVNULL
    )
    while True:  # servers of forked processes end a moment after those whom they served
        try:
            os.wait()
        except ChildProcessError:
            break
    if done.returncode:
        sys.exit(f"chiasm {' '.join(command)}: failed")
    return _of_children() - before


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
