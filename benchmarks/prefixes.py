"""Time to the first token of requests that begin alike: with what was read shared, and with each read by itself.

    python benchmarks/prefixes.py            # about two minutes on one core
    python benchmarks/prefixes.py --quick

Two servers of one small LLaVA with random weights are asked in turns, as `chiasm serve` is and with `--prefixes 0`:

crowd         clients at once, a long system prompt with an image before a question of each one's own
conversation  one client, turn by turn; the time of the last turn

Every round has a system prompt of its own. Greedy answers of both are compared.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from served_folder import Served, served_folder
from small_llava import WORDS, image_part, question, write_llava

from chiasm.interop import import_checkpoint

Timed = tuple[float, list[str]]  # seconds to the first token, the median of all requests; and their answers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=384, help="of tower and language model")
    parser.add_argument("--depth", type=int, default=6, help="layers of each")
    parser.add_argument("--side", type=int, default=224, help="of an image, in pixels")
    parser.add_argument("--words", type=int, default=250, help="of the system prompt")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=16, help="of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small and few: only to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.width, options.depth, options.side, options.rounds = 64, 1, 56, 1
        options.words, options.clients, options.turns = 60, 4, 3
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as scratch:
        place = Path(scratch)
        folder = write_llava(
            place / "llava", width=options.width, depth=options.depth, side=options.side, context=4096
        )
        import_checkpoint(folder, place / "chiasm")
        run, log = str(place / "chiasm"), place / "shared.log"
        with (
            served_folder(run, log, "--device", "cpu") as shared,
            served_folder(run, place / "alone.log", "--device", "cpu", "--prefixes", "0") as alone,
        ):
            for name, scenario in (("crowd", crowd), ("conversation", conversation)):
                report(name, scenario, [shared, alone], options)


def report(name: str, scenario: Any, servers: list[Served], options: argparse.Namespace) -> None:
    seconds: list[list[float]] = [[], []]
    differing = count = 0
    for number in range(options.rounds + 1):  # the first does not count
        answers = []
        for side, server in enumerate(servers):
            first, answer = scenario(server, number, options)
            answers.append(answer)
            if number:
                seconds[side].append(first)
        count += len(answers[0])
        differing += sum(one != other for one, other in zip(*answers, strict=True))
    ratio = median(alone / shared for shared, alone in zip(*seconds, strict=True))
    shared, alone = map(median, seconds)
    print(
        f"{name:13} first token after {shared:.3f} s shared, {alone:.3f} s alone: {ratio:.2f} times sooner; "
        f"{differing} of {count} answers differ",
        flush=True,
    )


def crowd(server: Served, number: int, options: argparse.Namespace) -> Timed:
    start = rules(number, options.words)
    asked = [[start, {"role": "user", "content": [question(i)]}] for i in range(options.clients)]
    with ThreadPoolExecutor(options.clients) as pool:
        timed = list(pool.map(lambda messages: ask(server, messages, options.tokens), asked))
    return median(first for first, _ in timed), [answer for _, answer in timed]


def conversation(server: Served, number: int, options: argparse.Namespace) -> Timed:
    messages: list[dict[str, Any]] = [rules(1000 + number, options.words)]
    answers = []
    first = 0.0
    for turn in range(options.turns):
        messages.append({"role": "user", "content": [question(turn)]})
        first, answer = ask(server, messages, options.tokens)
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer or "?"}]})
        answers.append(answer)
    return first, answers


def rules(number: int, words: int) -> dict[str, Any]:
    """A system prompt with an image, each number's its own."""
    dice = random.Random(number)
    text = " ".join(dice.choices(" ".join(WORDS).split(), k=words))
    return {"role": "system", "content": [image_part(number), {"type": "text", "text": text}]}


def ask(server: Served, messages: list[dict[str, Any]], tokens: int) -> tuple[float, str]:
    """Seconds to the first piece of the answer, and the answer."""
    connection = http.client.HTTPConnection(*server.address, timeout=600)
    body = {"model": server.name, "messages": messages, "max_tokens": tokens, "stream": True}
    began, first, text = time.perf_counter(), None, ""
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if "error" in event:
                raise SystemExit(event["error"]["message"])
            piece = event["choices"][0]["delta"].get("content") if event["choices"] else None
            if piece and first is None:
                first = time.perf_counter() - began
            text += piece or ""
    return first or time.perf_counter() - began, text


if __name__ == "__main__":
    main()
