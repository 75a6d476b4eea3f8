"""How many requests a second a served model answers with many clients, against one request at a time.

    python benchmarks/serving.py runs/quickstart                 # 16 clients, 64 requests of each kind
    python benchmarks/serving.py runs/quickstart --clients 4 --requests 16

Both are the same server, in a process of its own, and the same requests, over HTTP, taken in turns: first one
client that sends one request after the other, as a server without an engine would answer them, then all clients at
once. Every answer with many clients is compared with the one that was given alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from served_folder import Served, served_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", help="a run or a checkpoint")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        log, pending = Path(place) / "log", str(2 * options.clients)
        with served_folder(options.folder, log, "--pending", pending) as server:
            report(server, options)


def report(server: Served, options: argparse.Namespace) -> None:
    kinds: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "answers": [_question(i, options.tokens) for i in range(options.requests)],
        "images": [_drawing(i) for i in range(options.requests)],
    }
    kinds["both"] = [pair[i % 2] for i, pair in enumerate(zip(*kinds.values(), strict=True))]
    for kind, requests in kinds.items():
        rounds, differing = [], 0
        for _ in range(options.rounds):
            alone, expected = _timed(server, requests, 1)
            together, answers = _timed(server, requests, options.clients)
            rounds.append((alone, together))
            differing += sum(map(lambda one, two: one != two, expected, answers))
        rate = len(requests) / median(together.seconds for _, together in rounds)
        ratio, work = (median(one[i] / many[i] for one, many in rounds) for i in range(2))
        print(
            f"{kind:8} {rate:7.1f} requests/s with {options.clients} clients, {ratio:.2f} times one at a time, "
            f"{work:.2f} times in processor seconds of the server; "
            f"{differing} of {len(requests) * options.rounds} answers differ",
            flush=True,
        )


def _question(number: int, tokens: int) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": f"Describe the picture number {number}."}]
    body = {"model": "model", "messages": messages, "max_tokens": tokens, "modalities": ["text"]}
    return "/v1/chat/completions", body


def _drawing(number: int) -> tuple[str, dict[str, Any]]:
    return "/v1/images/generations", {"model": "model", "prompt": f"Draw: {number} dogs.", "seed": number}


class Cost(NamedTuple):
    """Of some requests: seconds by the clock, and processor seconds of the server."""

    seconds: float
    processor: float


def _timed(
    server: Served, requests: list[tuple[str, dict[str, Any]]], clients: int
) -> tuple[Cost, list[Any]]:
    began, busy = time.perf_counter(), server.processor_seconds()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda each: _ask(server.url, *each), requests))
    return Cost(time.perf_counter() - began, server.processor_seconds() - busy), answers


def _ask(address: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        answer = json.load(reply)
    return answer["choices"] if "choices" in answer else answer["data"]


if __name__ == "__main__":
    main()
