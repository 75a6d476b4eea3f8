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
import random
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from served_folder import Served, served_folder
from small_llava import WORDS, arguments, image_part, llava_folders, parsed, question

Timed = tuple[float, list[str]]  # seconds to the first token, the median of all requests; and their answers


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--words", type=int, default=250, help="of the system prompt")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=16, help="of an answer")
    options = parsed(parser, words=60, clients=4, turns=3)
    with llava_folders(options, context=4096) as (_, folder):
        run, logs = str(folder), folder.parent
        with (
            served_folder(run, logs / "shared.log", "--device", "cpu") as shared,
            served_folder(run, logs / "alone.log", "--device", "cpu", "--prefixes", "0") as alone,
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
