"""Forward and backward of each part against transformers' implementation of the same, as ratios in one run.

    python benchmarks/parts.py

Same weights, same input, outputs compared; the two take turns. `benchmarks/README.md` says how to read it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from pairs import PAIRS, Pair, pairs
from peers import Sizes
from torch import Tensor

QUICK = {"width": 32, "heads": 2, "layers": 1, "picture": 28, "batch": 1, "length": 16, "rounds": 1}


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    names = ("width", "heads", "layers", "picture", "batch", "length")
    sizes = Sizes(**{name: getattr(options, name) for name in names})
    rows = []
    if not options.json:
        print(head(options))
    for each in pairs(sizes, options.only):
        rows.append(measure(each, options.rounds))
        if not options.json:
            print(line(rows[-1]), flush=True)
    if options.json:
        print(json.dumps({"settings": vars(options), "parts": rows}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default, about in (
        ("width", 384, "channels"),
        ("heads", 6, "of attention"),
        ("layers", 4, "of towers, resamplers and language models"),
        ("picture", 224, "pixels of a side"),
        ("batch", 2, "pictures, or rows of text"),
        ("length", 512, "positions of a row of text"),
        ("rounds", 9, "each side takes its turn in each; medians are printed"),
        ("threads", 1, "of torch; more than one needs cores that nothing else uses"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{about} (default: {default})")
    parser.add_argument("--only", action="append", default=[], choices=PAIRS, help="this part; repeatable")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


def measure(pair: Pair, rounds: int) -> dict[str, Any]:
    """Ratios are ours over theirs: medians of those of the rounds."""
    with torch.no_grad():
        ours, theirs = pair.ours(), pair.theirs()
    scale = float(theirs.abs().max())
    result: dict[str, Any] = {"part": pair.name, "peer": pair.peer}
    result["difference"] = float((ours - theirs).abs().max()) / scale
    steps: dict[str, Callable[[Callable[[], Tensor]], None]] = {"forward": _forward, "backward": _both_ways}
    for name, step in steps.items():
        times: list[tuple[float, ...]] = []
        for turn in range(rounds + 1):
            sides = (pair.ours, pair.theirs) if turn % 2 else (pair.theirs, pair.ours)
            seen = {side: _timed(step, side) for side in sides}
            for module in pair.modules:
                module.zero_grad(set_to_none=True)
            if turn:  # the first one warms up
                times.append((*seen[pair.ours], *seen[pair.theirs]))
        result[f"{name}_seconds"] = median(each[0] for each in times)
        result[f"{name}_processor"] = median(each[1] / each[3] for each in times)
        result[f"{name}_wall"] = median(each[0] / each[2] for each in times)
    return result


def _timed(step: Callable[[Callable[[], Tensor]], None], side: Callable[[], Tensor]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    step(side)
    return time.perf_counter() - wall, time.process_time() - processor


def _forward(side: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        side()


def _both_ways(side: Callable[[], Tensor]) -> None:
    side().square().mean().backward()


def head(options: argparse.Namespace) -> str:
    return (
        f"width {options.width}, {options.layers} layers, pictures of {options.picture}, "
        f"batches of {options.batch}, rows of {options.length}, fp32, {options.threads} threads; "
        f"medians of {options.rounds} rounds\n"
        "time of Chiasm over that of transformers        forward           and backward\n"
        f"{'part':24}{'peer':30}{'processor':>10}{'wall':>6}{'processor':>11}{'wall':>6}{'ms':>7}{'difference':>12}"
    )


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['part']:24}{row['peer']:30}{row['forward_processor']:10.2f}{row['forward_wall']:6.2f}"
        f"{row['backward_processor']:11.2f}{row['backward_wall']:6.2f}{1000 * row['backward_seconds']:7.0f}"
        f"{row['difference']:12.0e}"
    )


if __name__ == "__main__":
    main()
