"""Rate against distortion of image tokenizers with 1k to 262k codes on one grid.

    python benchmarks/rate_distortion.py

All are trained on the same pictures of the built-in world in the same order, for the same steps, and measured on
the same held-out ones. `vq` differs from row to row in its vocabulary alone; `open_magvit2` and `multi_scale`
(VAR) are networks of their own, so their rows compare systems, not vocabularies. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

import chiasm
from chiasm.terminal.tokenizer import report
from chiasm.training import train

CONVOLUTIONAL = {"width": 32, "depth": 1}
ARMS: dict[
    str, tuple[float, dict[str, Any]]
] = {  # peak learning rate and tokenizer, on a grid of 8 x 8 codes
    **{
        f"vq-{codes}": (2e-3, {"type": "vq", "size": 64, "downsample": 8, "codebook_size": codes})
        for codes in (1024, 4096, 8192)
    },
    "lfq-262144": (
        1e-3,
        {
            "type": "open_magvit2",
            "size": 64,
            **CONVOLUTIONAL,
            "multipliers": [1, 1, 2, 4],
            "quantizer": {"type": "lfq", "bits": 18},
        },
    ),
    "multi_scale-4096": (
        1e-3,
        {"type": "multi_scale", "scales": [1, 2, 3, 4, 6, 8], **CONVOLUTIONAL, "multipliers": [1, 1, 2, 4]},
    ),
}
WORLD = {"type": "world", "emoji": 200, "drawn_canvas": 64, "tasks": {"draw": 1}}


def recipe(name: str, steps: int, rows: int) -> dict[str, Any]:
    """The recipe of one arm, as a mapping."""
    lr, tokenizer = ARMS[name]
    return {
        "name": name,
        "model": {"image_tokenizer": tokenizer},
        "data": {"world": WORLD, "held-out": {**WORLD, "split": "combination", "scenes": 600}},
        "stages": [
            {"name": "codes", "train": {"image_tokenizer": lr}, "data": {"world": 1.0}, "steps": steps,
             "rows": rows, "warmup": 0.04, "weight_decay": 0.01},
        ],
        "checkpoints": {"every": 1000, "keep": 1},
        "evaluation": {"data": "held-out"},
    }  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, default=Path("runs/rate-distortion"))
    words.add_argument("--steps", type=int, default=500)
    words.add_argument("--rows", type=int, default=16, help="pictures of a batch")
    words.add_argument("--pictures", type=int, default=512, help="held-out pictures")
    words.add_argument("--only", nargs="*", choices=ARMS, default=list(ARMS))
    given = words.parse_args()
    runs = []
    for name in given.only:
        resolved = chiasm.load_recipe(recipe(name, given.steps, given.rows))
        runs.append(train(resolved, given.out / name, console=Console()))
    report([str(run) for run in runs], given.out / "report", count=given.pictures, data=None)


if __name__ == "__main__":
    main()
