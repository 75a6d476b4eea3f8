"""What Chiasm does on a GPU, checked and timed beside the CPU: attention, training, evaluation, talking, drawing.

    python benchmarks/cuda.py                  # some minutes; a Markdown table with the card's name
    python benchmarks/cuda.py --device cpu     # the same checks without a card

It needs no network. The exit status is 1 where something failed, and where there is no such device.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # torch looks for a package `cuda`, and would take this file for it
elif not hasattr(sys.modules.get("torch"), "nn"):  # torch, on behalf of another script of this folder
    raise ImportError("torch looks for its package `cuda` and finds benchmarks/cuda.py")

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import chiasm
from chiasm.distribution.devices import choose_device, name_of
from chiasm.errors import ChiasmError
from chiasm.sequence.attention import dense, flex
from chiasm.sequence.layout import Layout

TOLERANCES = {
    torch.float32: 2e-3,
    torch.bfloat16: 5e-2,
}  # of sums of products that are ordered otherwise (TF32)
PROMPTS = ["Draw: a dog at the top left.", "Draw: a cat."] * 8
Row = tuple[str, str, bool]  # what, what was seen, whether it is right


def main() -> None:
    options = _options()
    try:
        device = choose_device(options.device)
    except ChiasmError as error:
        sys.exit(f"benchmarks/cuda.py: {error}")
    print(f"{name_of(device)}, torch {torch.__version__}\n\n| what | seen | right |\n|---|---|---|")
    right = True
    with tempfile.TemporaryDirectory() as folder:
        for check in (attention, lambda each: commands(each, Path(folder), options.recipe)):
            for what, seen, fine in check(device):
                print(f"| {what} | {seen} | {'yes' if fine else 'NO'} |", flush=True)
                right &= fine
    sys.exit(0 if right else 1)


def attention(device: torch.device) -> list[Row]:
    """FlexAttention against the rule written out: the largest differences, forward and backward."""
    rows = []
    for name, layout in layouts(device).items():
        for dtype, tolerance in TOLERANCES.items():
            differences = flex_differences(layout, dtype, backward=device.type != "cpu")
            seen = ", ".join(f"{part} {value:.1e}" for part, value in differences.items())
            fine = all(value <= tolerance for value in differences.values())
            rows.append((f"FlexAttention, {name}, {str(dtype).removeprefix('torch.')}", seen, fine))
    return rows


def layouts(device: torch.device, length: int = 320) -> dict[str, Layout]:
    """Rules of each kind, on two rows with padding at the end of the second."""
    documents = torch.zeros(2, length, dtype=torch.long, device=device)
    documents[:, length // 3 :] = 1
    documents[1, -length // 5 :] = -1
    ones = torch.ones_like(documents, dtype=torch.bool)
    places = torch.arange(length, device=device).expand(2, -1)
    image = (places % 50 >= 10) & (places % 50 < 40)  # thirty positions that see each other
    opens = ~image | (places % 50 == 10)
    private = image & (places // 50 % 2 == 0)
    return {
        "causal": Layout(documents, ones, ones),
        "blocks": Layout(documents, opens, ones),
        "private blocks": Layout(documents, opens, ~private),
    }


def flex_differences(layout: Layout, dtype: torch.dtype, *, backward: bool = True) -> dict[str, float]:
    """Largest difference of the output and of each gradient from the dense rule in fp32, over real positions.

    backward: FlexAttention has none on a CPU.
    """
    device, (rows, length) = layout.documents.device, layout.documents.shape
    draws = torch.Generator().manual_seed(0)

    def drawn(heads: int) -> Tensor:
        return torch.randn(rows, heads, length, 64, generator=draws).to(device, dtype)

    inputs, weight = [drawn(4), drawn(2), drawn(2)], drawn(4).transpose(1, 2).float()
    weight = weight * (layout.documents >= 0)[..., None, None]

    def run(kernel: Callable[..., Tensor], numbers: torch.dtype) -> list[Tensor]:
        leaves = [each.to(numbers).detach().requires_grad_(backward) for each in inputs]
        answer = kernel(*leaves, layout).float()
        if backward:
            (answer * weight).sum().backward()
        gradients = [each.grad.float() for each in leaves if each.grad is not None]
        return [answer * (layout.documents >= 0)[..., None, None], *gradients]

    names = ("forward", "query", "key", "value")
    pairs = zip(names, run(flex, dtype), run(dense, torch.float32))
    return {name: float((one - other).detach().abs().max()) for name, one, other in pairs}


def commands(device: torch.device, folder: Path, recipe: str) -> list[Row]:
    """Training, evaluating, talking and drawing there; the speed of training and drawing, beside the CPU's."""
    rows = []
    cpu = torch.device("cpu")
    speeds = {}
    for each in dict.fromkeys((device, cpu)):
        run = folder / each.type
        with redirect_stdout(sys.stderr):  # its progress is no part of the table
            chiasm.train(recipe, run, tiny=True, device=each)
        speeds[each] = trained_speed(run), drawn_speed(run, each)
    run, (trained, drawn) = folder / device.type, speeds[device]
    compared = "" if device == cpu else f" (CPU: {speeds[cpu][0]:,.0f})"
    rows.append(("train", f"{trained:,.0f} tokens/s{compared}", trained > 0))
    scores = chiasm.evaluate(run, device=device)["tasks"]
    rows.append(
        ("eval", ", ".join(f"{name} {task['score']:.0%}" for name, task in scores.items()), bool(scores))
    )
    model = chiasm.load(run, device)
    rows.append(("weights", str(model.device), model.device.type == device.type))
    answer = str(model.chat("What is at the top left?", tokens=8))
    rows.append(("chat", repr(answer), True))
    one, both = model.generate(PROMPTS[1], seed=1)[0], model.generate(PROMPTS[:2], seed=1)[1]
    same = one.tobytes() == both.tobytes()  # on a GPU the last bits of a batch may tip a draw
    seen = "the same" if same else "another"
    rows.append(("generate: a picture of a batch, drawn alone", seen, same or device.type != "cpu"))
    compared = "" if device == cpu else f" (CPU: {speeds[cpu][1]:.1f})"
    rows.append(("generate", f"{drawn:.1f} pictures/s{compared}", drawn > 0))
    return rows


def trained_speed(run: Path) -> float:
    """Tokens a second of a run's last stage on documents: the median of the second half of its steps."""
    steps: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    steps = [step for step in steps if "real" in step]
    steps = [step for step in steps if step["stage"] == steps[-1]["stage"]]
    return median(step["real"] / step["seconds"] for step in steps[len(steps) // 2 :])


def drawn_speed(run: Path, device: torch.device) -> float:
    """Pictures a second of a batch, behind one that warms up."""
    model = chiasm.load(run, device)
    model.generate(PROMPTS[:2])
    begin = time.perf_counter()
    return len(model.generate(PROMPTS)) / (time.perf_counter() - begin)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument(
        "--recipe", default="quickstart", help="trained in its tiny form; default: quickstart"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
