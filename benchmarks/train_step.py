"""One training step of a LLaVA, by Chiasm and by transformers: speed, peak memory and the loss, on equal terms.

    python benchmarks/train_step.py

Same samples in the same order and steps, same initial weights, same precision, same optimiser, same making of
data. `benchmarks/README.md` says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

NAMES = ("chiasm", "transformers")
QUICK = {
    "samples": 24, "longest": 24, "vocabulary": 2048, "width": 32, "layers": 2, "heads": 2, "vision_width": 32,
    "vision_layers": 3, "picture": 28, "rows": 1, "length": 384, "rounds": 1, "steps": 1, "threads": 1,
}  # fmt: skip


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    print(json.dumps(result) if options.json else table(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default, about in (
        ("samples", 240, "conversations, one picture each"),
        ("longest", 300, "words of the longest answer"),
        ("vocabulary", 32_000, "rows of the embedding table and of the head"),
        ("width", 384, "of the language model"),
        ("layers", 6, "of the language model"),
        ("heads", 6, "of the language model"),
        ("vision-width", 192, "of the frozen CLIP tower"),
        ("vision-layers", 5, "of the frozen CLIP tower"),
        ("picture", 84, "pixels of a picture's edge; a visual token for each 14 x 14 of them"),
        ("rows", 2, "of a packed batch"),
        ("length", 1536, "positions of a row"),
        ("rounds", 3, "each side takes its turn in each; the medians are printed"),
        ("steps", 2, "of a round"),
        ("threads", 1, "of torch; more than one needs cores that nothing else uses"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{about} (default: {default})")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run both sides in turns and put their figures together."""
    from sides import Settings

    settings = Settings(_recipe(options, folder), options.threads)
    with Worker("chiasm", settings) as ours:
        plan = ours.receive()
        with Worker("transformers", replace(settings, plan=plan)) as peer:
            workers = (ours, peer)
            for worker in workers:
                worker.fp32 = worker.receive()
            for worker in workers:  # the optimiser's state is made, kernels and allocator are warm
                worker.round(1)
            for worker in workers * options.rounds:
                worker.rounds.append(worker.round(options.steps))
    return _result(options, ours, peer)


@dataclass
class Worker:
    """One side in a process of its own; a context manager."""

    name: str
    settings: Any
    fp32: list[tuple[float, int]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Worker:
        from sides import serve

        context = multiprocessing.get_context("spawn")
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.name, self.settings), daemon=True)
        self.process.start()
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()
        self.process.join(30)

    def receive(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:
            raise SystemExit(f"the side {self.name!r} died; its error stands above") from None

    def round(self, steps: int) -> dict[str, Any]:
        self.pipe.send(steps)
        return self.receive()


def _recipe(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """LLaVA's recipe at the benchmark's sizes, on samples and a tokenizer made in `folder`."""
    from llava_like import write_samples

    from chiasm import parts
    from chiasm.language.text import TextTokenizer

    data = {"type": "chat", "path": str(write_samples(folder, options.samples, longest=options.longest))}
    source = parts.build("data", data, where="the benchmark")
    items = (item for i in range(len(source)) for m in source[i][0].messages for item in m.content)
    TextTokenizer.train(
        (item for item in items if isinstance(item, str)), min(8192, options.vocabulary - 1)
    ).save(folder / "tokenizer")
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": options.vision_width,
        "intermediate_size": 4 * options.vision_width,
        "num_hidden_layers": options.vision_layers,
        "num_attention_heads": options.vision_width // 32 if options.vision_width >= 64 else 1,
        "image_size": options.picture,
        "patch_size": 14,
    }
    llama = {
        "model_type": "llama",
        "vocab_size": options.vocabulary,
        "hidden_size": options.width,
        "intermediate_size": 8 * options.width // 3 // 32 * 32,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.heads,
        "num_key_value_heads": options.heads,
        "max_position_embeddings": 4096,
    }
    return {
        "name": "benchmark",
        "model": {
            "views": {"type": "whole", "size": options.picture},
            "encoder": {"type": "transformers", "config": vision, "layer": -2},
            "connector": {"type": "mlp", "depth": 2},
            "language": {"type": "causal", "config": llama, "tokenizer": str(folder / "tokenizer")},
        },
        "data": {"samples": data},
        "stages": [
            {
                "name": "instruct",
                "train": {"connector": 2e-4, "language": 2e-4},
                "data": {"samples": 1.0},
                # Two more than are measured: the thread that makes data works ahead of the model.
                "steps": 1 + options.rounds * options.steps + 4,
                "rows": options.rows,
                "length": options.length,
                "schedule": "constant",
                "warmup": 0.0,
                "precision": options.precision,
            }
        ],
    }


def _result(options: argparse.Namespace, ours: Worker, peer: Worker) -> dict[str, Any]:
    if [each["seen"] for each in ours.rounds] != [each["seen"] for each in peer.rounds]:
        raise SystemExit("the two sides did not learn from the same positions: this benchmark is broken")
    sides = {worker.name: _side(worker) for worker in (ours, peer)}
    mine, other = sides["chiasm"], sides["transformers"]
    return {
        "settings": {key: value for key, value in vars(options).items() if key != "json"},
        "samples_a_step": sum(map(len, peer.settings.plan)) / len(peer.settings.plan),
        "sides": sides,
        "ratio": {
            "speed": _ratio(ours, peer, "seconds"),
            "cpu": _ratio(ours, peer, "cpu_seconds"),
            "memory": mine["peak_mib"] / other["peak_mib"],
        },
        "loss_difference": {
            "initial_fp32": mine["initial_loss"] / other["initial_loss"] - 1,
            "training": mine["training_loss"] / other["training_loss"] - 1,
        },
    }


def _ratio(ours: Worker, peer: Worker, of: str) -> float:
    return median(b[of] / a[of] for a, b in zip(ours.rounds, peer.rounds, strict=True))


def _side(worker: Worker) -> dict[str, Any]:
    real = [sum(real for real, _ in each["seen"]) for each in worker.rounds]
    supervised = [sum(count for _, count in each["seen"]) for each in worker.rounds]
    seconds = [each["seconds"] for each in worker.rounds]
    losses = [loss for each in worker.rounds for loss in each["losses"]]
    counts = sum(count for _, count in worker.fp32)
    return {
        "tokens_a_second": median(n / s for n, s in zip(real, seconds, strict=True)),
        "supervised_a_second": median(n / s for n, s in zip(supervised, seconds, strict=True)),
        "seconds_a_step": median(
            s / len(each["losses"]) for s, each in zip(seconds, worker.rounds, strict=True)
        ),
        "cpu_seconds_a_step": sum(each["cpu_seconds"] for each in worker.rounds) / len(losses),
        "data_wait": sum(each["waited"] for each in worker.rounds) / sum(seconds),
        "padding": 1 - sum(real) / sum(each["places"] for each in worker.rounds),
        "peak_mib": max(each["peak"] for each in worker.rounds),
        "initial_loss": sum(loss * count for loss, count in worker.fp32) / counts,
        "training_loss": sum(losses) / len(losses),
    }


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    mine, other = (result["sides"][name] for name in NAMES)
    settings, ratio, difference = result["settings"], result["ratio"], result["loss_difference"]
    rows = [("", *NAMES, "ratio")]
    for label, key, form in (
        ("supervised tokens/s", "supervised_a_second", ",.0f"),
        ("real tokens/s", "tokens_a_second", ",.0f"),
        ("seconds a step", "seconds_a_step", ".2f"),
        ("processor seconds a step", "cpu_seconds_a_step", ".2f"),
        ("waiting for data", "data_wait", ".1%"),
        ("padding", "padding", ".1%"),
        ("peak memory, MiB", "peak_mib", ",.0f"),
        ("loss before training, fp32", "initial_loss", ".6f"),
        ("loss in training", "training_loss", ".4f"),
    ):
        shown = {
            "supervised_a_second": f"{ratio['speed']:.2f}",
            "cpu_seconds_a_step": f"{ratio['cpu']:.2f}",
            "peak_mib": f"{ratio['memory']:.2f}",
            "initial_loss": f"{difference['initial_fp32']:+.1e}",
            "training_loss": f"{difference['training']:+.1e}",
        }
        rows.append((label, format(mine[key], form), format(other[key], form), shown.get(key, "")))
    lines = [f"{a:30}{b:>14}{c:>14}{d:>12}" for a, b, c, d in rows]
    head = (
        f"LLaVA: {settings['layers']} layers of width {settings['width']}, vocabulary {settings['vocabulary']:,}, "
        f"{(settings['picture'] // 14) ** 2} visual tokens a picture, {settings['precision']}, "
        f"{settings['threads']} threads\n"
        f"{result['samples_a_step']:.0f} samples a step, {settings['rounds']} rounds of {settings['steps']} steps "
        "each in turns, medians"
    )
    return "\n".join([head, "", *lines])


if __name__ == "__main__":
    main()
