"""What a stage's `recompute: true` saves: peak memory and seconds of a step with it and without, equal gradients.

    python benchmarks/recompute.py        # DreamLLM's tiny overlay, larger: through a frozen decoder
    python benchmarks/recompute.py emu2 --stage pretrain stages.pretrain.rows=8

Each way runs in a process of its own: a step to warm up, then the one that is measured. On CPU the peak is of all
memory beyond what was held before the step; on a GPU it is torch's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import time
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LARGER = [
    *("model.language.config.hidden_size=256", "model.language.config.num_hidden_layers=8"),
    *("stages.pretrain.rows=8", "data.interleaved.scenes=200"),
]
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", nargs="?", default="dreamllm")
    parser.add_argument("overrides", nargs="*", help="dotted.key=value")
    parser.add_argument("--stage", default="pretrain", help="the stage whose step is measured")
    parser.add_argument("--whole", action="store_true", help="the recipe itself, not its tiny overlay")
    parser.add_argument("--device", default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.recipe == "dreamllm" and not options.overrides and not options.whole:
        options.overrides = LARGER
    rows = {name: apart(options, name == "recompute") for name in ("keep", "recompute")}
    rows["equal"] = len({rows[name].pop("gradients") for name in ("keep", "recompute")}) == 1
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{options.recipe}, stage {options.stage}, {rows['keep']['layers']} layers\n")
    print(f"{'':10}{'peak MiB':>10}{'seconds':>10}")
    for name in ("keep", "recompute"):
        print(f"{name:10}{rows[name]['peak'] / 2**20:10.0f}{rows[name]['seconds']:10.2f}")
    print(f"\ngradients {'are equal, bit for bit' if rows['equal'] else 'DIFFER'}")


def apart(options: argparse.Namespace, recompute: bool) -> dict[str, Any]:
    """What one way costs, measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    own, other = context.Pipe()
    process = context.Process(target=measured, args=(other, options, recompute))
    process.start()
    other.close()
    try:
        return own.recv()  # type: ignore[no-any-return]
    finally:
        process.join()


def measured(connection: Connection, options: argparse.Namespace, recompute: bool) -> None:
    import torch
    from torch import nn

    from chiasm import parts
    from chiasm.distribution.devices import choose_device
    from chiasm.nn.losses import objective
    from chiasm.nn.recompute import recomputing
    from chiasm.recipe import load_recipe
    from chiasm.training.batches import DocumentBatches
    from chiasm.training.train import build_model

    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe, options.overrides, tiny=not options.whole)
    stage = next(each for each in recipe.stages if each.name == options.stage)
    device = choose_device(options.device)
    model = build_model(recipe).to(device)
    sources = {name: parts.build("data", recipe.data[name]) for name in stage.data}
    batch = DocumentBatches(model.contract, sources, stage, seed=0).next().to(device)
    model.train_only(stage.train)
    slots = [part for part in model.slots().values() if isinstance(part, nn.Module)]

    def step() -> None:
        model.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        objective(model.losses(batch)).backward()

    with recomputing(slots) as layers:
        count = len(layers)
    with recomputing(slots) if recompute else nullcontext():
        step()
        model.zero_grad(set_to_none=True)
        before, begin = reset(device), time.perf_counter()
        step()
        seconds, peak = time.perf_counter() - begin, most(device) - before
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            digest.update(name.encode() + parameter.grad.float().cpu().numpy().tobytes())
    report = {"peak": peak, "seconds": seconds, "gradients": digest.hexdigest(), "layers": count}
    connection.send(report)


def reset(device: Any) -> int:
    """Forget the peak so far; returns what is held now, in bytes."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    RESET.write_text("5")
    return _status("VmRSS")


def most(device: Any) -> int:
    """The peak since then, in bytes."""
    import torch

    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
