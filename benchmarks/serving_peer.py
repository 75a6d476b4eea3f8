"""`chiasm serve` beside `transformers serve`: the same LLaVA, the same questions about images, many clients.

    python benchmarks/serving_peer.py            # some minutes; needs transformers[serving] and accelerate
    python benchmarks/serving_peer.py --quick

A small LLaVA with random weights is written in transformers' layout and imported. Both servers run all the time,
each in a process of its own with one thread, and are asked in turns; greedy answers of both are compared.
transformers batches no requests of models that see: its `--continuous-batching` is for texts alone.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from served_folder import Served, post, served_by_transformers, served_folder
from small_llava import arguments, image_part, llava_folders, parsed, question


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    options = parsed(parser, requests=8)
    with llava_folders(options, context=2048) as (theirs, ours):
        logs = ours.parent
        with (
            served_folder(str(ours), logs / "chiasm.log", "--device", "cpu") as server,
            served_by_transformers(str(theirs), logs / "peer.log", "--device", "cpu") as peer,
        ):
            report([server, peer], options)


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
    answer = post(server, "/v1/chat/completions", body)
    return answer["choices"][0]["message"]["content"].strip(), answer["usage"]["prompt_tokens"]


if __name__ == "__main__":
    main()
