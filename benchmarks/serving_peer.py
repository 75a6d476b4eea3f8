"""`chiasm serve` beside `transformers serve`: the same LLaVA, the same questions about images, many clients.

    python benchmarks/serving_peer.py            # some minutes; needs transformers[serving] and accelerate
    python benchmarks/serving_peer.py --quick

A small LLaVA with random weights is written in transformers' layout and imported. Both servers run all the time,
each in a process of its own with one thread, and are asked in turns; greedy answers of both are compared.
transformers batches no requests of models that see: its `--continuous-batching` is for texts alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from served_folder import Served, served_by_transformers, served_folder
from small_llava import image_part, question, write_llava

from chiasm.interop import import_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=384, help="of tower and language model")
    parser.add_argument("--depth", type=int, default=6, help="layers of each")
    parser.add_argument("--side", type=int, default=224, help="of an image, in pixels")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small and few: only to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.width, options.depth, options.side, options.requests, options.rounds = 64, 1, 56, 8, 1
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as scratch:
        place = Path(scratch)
        folder = write_llava(
            place / "llava", width=options.width, depth=options.depth, side=options.side, context=2048
        )
        import_checkpoint(folder, place / "chiasm")
        with (
            served_folder(str(place / "chiasm"), place / "chiasm.log", "--device", "cpu") as ours,
            served_by_transformers(str(folder), place / "peer.log", "--device", "cpu") as theirs,
        ):
            report([ours, theirs], options)


def report(servers: list[Served], options: argparse.Namespace) -> None:
    seconds: list[list[float]] = [[], []]
    worked: list[list[float]] = [[], []]
    for number in range(options.rounds + 1):  # the first does not count
        first = 1000 * number  # no image comes twice
        answers = []
        for side, server in enumerate(servers):
            began, busy = time.perf_counter(), server.processor_seconds()
            answers.append(ask_all(server, first, options))
            if number:
                seconds[side].append(time.perf_counter() - began)
                worked[side].append(server.processor_seconds() - busy)
        differing = sum(one != other for one, other in zip(*answers, strict=True))
        print(f"round {number}: {differing} of {options.requests} answers differ", flush=True)
    for name, side in (("chiasm serve", 0), ("transformers serve", 1)):
        rate, busy = options.requests / median(seconds[side]), median(worked[side]) / options.requests
        print(f"{name:20}{rate:7.2f} requests/s, {busy:6.3f} processor seconds a request")
    for what, each in (("requests/s", seconds), ("processor seconds", worked)):
        ratio = median(peer / own for own, peer in zip(*each, strict=True))
        print(f"{what}: {ratio:.2f} times transformers serve, with {options.clients} clients")


def ask_all(server: Served, first: int, options: argparse.Namespace) -> list[Any]:
    with ThreadPoolExecutor(options.clients) as pool:
        return list(
            pool.map(lambda i: ask(server, i, options.tokens), range(first, first + options.requests))
        )


def ask(server: Served, number: int, tokens: int) -> tuple[str, int]:
    """The answer, and positions of the prompt."""
    messages = [{"role": "user", "content": [image_part(number), question(number)]}]
    body = {"model": server.name, "messages": messages, "max_tokens": tokens}
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        answer = json.load(reply)
    return answer["choices"][0]["message"]["content"].strip(), answer["usage"]["prompt_tokens"]


if __name__ == "__main__":
    main()
