"""Many clients at once for a while: whether an answer is lost or mixed up with another's, and what memory does.

    python benchmarks/crowd.py runs/quickstart --dtype fp64          # 200 clients for ten minutes
    python benchmarks/crowd.py runs/quickstart --clients 50 --seconds 30 --json

Every client sends, one after another, requests that it picks from a few dozen (questions, drawings, edits,
streams), each with its seed; what each is answered alone was noted before. Exits with 1 if a reply is lost, or is
another's, or, in fp64, differs at all; in fewer digits a few differ by rounding (docs/systems.md, Seeds).
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from hostile import data_url, png
from served_folder import Served, served_folder

Request = tuple[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", help="a run or a checkpoint")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--different", type=int, default=32, help="requests to pick from")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--dtype", help="as of `chiasm serve`")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        more = ["--pending", str(2 * options.clients)]
        more += ["--dtype", options.dtype] if options.dtype else []
        with served_folder(options.folder, Path(place) / "log", *more) as server:
            requests = [_request(i, options.tokens) for i in range(options.different)]
            result = crowded(server, requests, options.clients, options.seconds)
    print(json.dumps(result, indent=1) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    wrong = result["lost"] + result["another's"] + (result["differing"] if options.dtype == "fp64" else 0)
    sys.exit(1 if wrong or not result["answers"] else 0)


def crowded(server: Served, requests: list[Request], clients: int, seconds: float) -> dict[str, Any]:
    alone = [_answer(server, request) for request in requests]
    counts = {"answers": 0, "lost": 0, "differing": 0, "another's": 0}
    reasons: set[str] = set()
    lock, end = threading.Lock(), time.monotonic() + seconds

    def client(number: int) -> None:
        dice = random.Random(number)
        while time.monotonic() < end:
            place = dice.randrange(len(requests))
            try:
                answer = _answer(server, requests[place])
            except Exception as error:
                with lock:
                    counts["lost"] += 1
                    reasons.add(f"{type(error).__name__}: {error}"[:200])
                continue
            with lock:
                counts["answers"] += 1
                if answer != alone[place]:
                    counts["another's" if answer in alone else "differing"] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    held = []
    while any(thread.is_alive() for thread in threads):
        held.append(round(server.held().mib))
        for thread in threads:
            thread.join(max(seconds / 10, 0.5) / len(threads))
    third = max(len(held) // 3, 1)
    return {
        **counts,
        "a second": round(counts["answers"] / seconds, 2),
        "MiB held": {"most in the first third": max(held[:third]), "most in the last": max(held[-third:])},
        "open files at the end": server.held().files,
        "reasons": sorted(reasons)[:5],
    }


def _request(number: int, tokens: int) -> Request:
    kind = number % 4
    if kind == 0:
        return "/v1/images/generations", {"model": "model", "prompt": f"Draw: {number} dogs.", "seed": number}
    if kind == 1:
        image = [{"image_url": data_url(png(8 + number, 8 + number, 8 + number))}]
        return "/v1/images/edits", {
            "model": "model",
            "prompt": f"{number} cats",
            "images": image,
            "seed": number,
        }
    messages = [{"role": "user", "content": f"Describe the picture number {number}."}]
    body = {"model": "model", "messages": messages, "max_tokens": tokens, "seed": number, "stream": kind == 2}
    return "/v1/chat/completions", body


def _answer(server: Served, request: Request) -> str:
    """Without what is each reply's own: its number and time."""
    path, body = request
    connection = http.client.HTTPConnection(*server.address, timeout=600)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        data = reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise RuntimeError(f"status {reply.status}: {data[:200]!r}")
    if body.get("stream"):
        if not data.endswith(b"data: [DONE]\n\n"):
            raise RuntimeError("a stream without its end")
        events = [json.loads(line[6:]) for line in data.split(b"\n\n")[:-2]]
        return json.dumps([event["choices"] for event in events])
    answer = json.loads(data)
    return json.dumps(answer["choices"] if "choices" in answer else answer["data"])


if __name__ == "__main__":
    main()
