"""What a server does with requests that mean no good: bombs, half bodies, wrong types, header tricks, slow clients.

    python benchmarks/hostile.py runs/quickstart                    # 2,000 requests
    python benchmarks/hostile.py runs/quickstart --requests 200 --json

The server runs in a process of its own. After all requests it must be there, answer as before, hold no more of the
machine than before, and no reply may have been a 500 or have shown a traceback. Exits with 1 if that is not so.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import random
import socket
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from served_folder import Served, served_folder

KEY = "a key"
SECONDS = 600.0  # in which every request is answered, also on a busy machine
PATIENCE = 5.0  # of a slow client, in seconds
JSON = {"content-type": "application/json"}
CHAT, RESPONSES, IMAGES, EDITS = (
    "/v1/chat/completions", "/v1/responses", "/v1/images/generations", "/v1/images/edits"
)  # fmt: skip
Outcome = str  # a status, or how the connection ended
Address = tuple[str, int]


class Bad(Exception):
    """A reply that no request may get."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", help="a run or a checkpoint")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-a-time", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        with served_folder(options.folder, log, "--body", "4", key=KEY) as server:
            result = measured(server, options.requests, options.at_a_time, options.seed)
        result["tracebacks in the log"] = log.read_text().count("Traceback")
    print(json.dumps(result, indent=1) if options.json else _table(result))
    sys.exit(0 if result["ok"] else 1)


def measured(server: Served, requests: int, at_a_time: int, seed: int) -> dict[str, Any]:
    """Half of the requests first, which fill caches and pools; what the other half adds is what leaks."""
    expected = sound(server.address)
    first, bad = attack(server.address, requests // 2, at_a_time, seed)
    before = server.held()
    second, more = attack(server.address, requests - requests // 2, at_a_time, seed + 1)
    after, bad = server.held(), bad + more
    same = sound(server.address) == expected
    running = server.process.poll() is None
    return {
        "ok": running and same and not bad,
        "requests": requests,
        "seen": {kind: dict(first[kind] + second[kind]) for kind in KINDS},
        "bad replies": bad[:10],
        "answers as before": same,
        "held after half": before._asdict(),
        "held at the end": after._asdict(),
    }


def attack(
    address: Address, requests: int, at_a_time: int, seed: int
) -> tuple[dict[str, Counter[Outcome]], list[str]]:
    """How requests of every kind in turn ended, and the replies that no request may get."""
    seen: dict[str, Counter[Outcome]] = {kind: Counter() for kind in KINDS}
    bad: list[str] = []

    def one(number: int) -> None:
        kind = list(KINDS)[number % len(KINDS)]
        try:
            seen[kind][KINDS[kind](address, random.Random(seed * 1_000_003 + number))] += 1
        except (Bad, OSError, http.client.HTTPException) as error:
            bad.append(f"{kind}: {type(error).__name__}: {error}")

    with ThreadPoolExecutor(at_a_time) as pool:
        list(pool.map(one, range(requests)))
    return seen, bad


def sound(address: Address) -> Any:
    """What a plain question is answered with."""
    body = {"model": _model(address), "messages": _said("What is this?"), "max_tokens": 4}
    connection = http.client.HTTPConnection(*address, timeout=SECONDS)
    connection.request("POST", CHAT, json.dumps(body), _headers())
    reply = connection.getresponse()
    answer = json.loads(reply.read())
    connection.close()
    assert reply.status == 200, answer
    return answer["choices"][0]["message"]["content"]


def bomb(address: Address, dice: random.Random) -> Outcome:
    """Small files that are large images, or say so."""
    width = dice.choice([1 << 14, 30_000, 60_000, (1 << 31) - 1])
    images = [
        png(width, width, 1),
        png(9_000, 9_000, 9_000),
        png(5_000, 5_000, 5_000),
        png(0, 0, 0),
        _gif_bomb(),
    ]
    image = dice.choice(images)
    return _ask(address, *_with_image(_model(address), data_url(image), dice))


def broken_image(address: Address, dice: random.Random) -> Outcome:
    """Images with bytes that are wrong, or missing."""
    file = io.BytesIO()
    form = dice.choice(["png", "jpeg", "webp", "gif", "tiff", "bmp", "ppm"])
    Image.effect_noise((32, 32), 60).convert("RGB").save(file, form)
    data = bytearray(file.getvalue())
    for _ in range(dice.randrange(1, 20)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    del data[dice.randrange(8, len(data)) :]
    return _ask(address, *_with_image(_model(address), data_url(bytes(data)), dice))


def wrong_types(address: Address, dice: random.Random) -> Outcome:
    """A request with one field, anywhere in it, of some other kind."""
    path, body = _request(_model(address), dice)
    place: Any = body
    while True:
        key = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not (isinstance(place[key], dict | list) and place[key] and dice.random() < 0.6):
            break
        place = place[key]
    place[key] = dice.choice(WRONG)(dice)
    return _ask(address, path, json.dumps(body), dict(JSON))


def no_json(address: Address, dice: random.Random) -> Outcome:
    """Bodies that are no JSON, or hardly."""
    path, body = _request(_model(address), dice)
    text = json.dumps(body).encode()
    bodies = [
        b"", b"{", b"[" * 200_000, b"1" * 100_000, b"\xff\xfe" + text, text[: len(text) // 2], text + b"}", b"NaN",
        zlib.compress(text), text.replace(b'"', b"'"), b"\0" * 1000, text.replace(b"tiny", b"\ud800"),
        b'{"model":"\\ud800","messages":[{"role":"user","content":"\\udfff"}]}',
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    ]  # fmt: skip
    return _ask(address, path, dice.choice(bodies), dict(JSON))


def form(address: Address, dice: random.Random) -> Outcome:
    """Forms that are none, or of too many parts."""
    part = b'--edge\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\nx\r\n'
    bodies = [
        part % (b"prompt", b"") * 5000,
        part % (b"image", b'; filename="../../x"') * 500,
        b"--edge\r\n" * 1000,
        b"--edge\r\ncontent-disposition: form-data; name=" + b"a" * 100_000,
        (part % (b"image", b'; filename="x"') + part % (b"prompt", b"") + b"--edge--")[
            : dice.randrange(10, 150)
        ],
        b"",
    ]
    kind = "multipart/form-data" + dice.choice(["; boundary=edge", "", "; boundary=x"])
    return _ask(address, EDITS, dice.choice(bodies), {"content-type": kind})


def headers(address: Address, dice: random.Random) -> Outcome:
    """Lines of a request that contradict each other, or none."""
    body = json.dumps({"model": "model", "messages": _said("x"), "max_tokens": 1}).encode()
    length = f"Content-Length: {len(body)}\r\n"
    tricks = [
        length + "Content-Length: 1\r\n", "Content-Length: -1\r\n", "Content-Length: 1e3\r\n",
        "Content-Length: 99999999999999999999\r\n", length + "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n", length + "Content-Encoding: gzip\r\n",
        length + "X: " + "a" * 100_000 + "\r\n", length + "Authorization: Bearer other\r\n",
        length + "Authorization: \xff\r\n", length + "Host: a\r\nHost: b\r\n", length + "X\0: y\r\n",
        length + " folded: y\r\n", length + "Expect: 100-continue\r\n", length + "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
        "".join(f"X-{i}: y\r\n" for i in range(2000)) + length, length + "Range: bytes=0-0\r\n",
        length + "X-HTTP-Method-Override: DELETE\r\n",
    ]  # fmt: skip
    lines = dice.choice([
        f"POST {CHAT} HTTP/1.1", f"POST {CHAT} HTTP/0.9", f"post {CHAT} HTTP/1.1",
        f"POST http://other{CHAT} HTTP/1.1",
        "GET /v1/models/../../../etc/passwd HTTP/1.1", "GET /v1/models/%2e%2e%2f%00 HTTP/1.1", "TRACE / HTTP/1.1",
        f"POST {CHAT}?{'a' * 70_000} HTTP/1.1", "GET  HTTP/1.1", "\x16\x03\x01\x02", f"DELETE {CHAT} HTTP/1.1",
    ])  # fmt: skip
    known = "" if "Authorization" in (trick := dice.choice(tricks)) else f"Authorization: Bearer {KEY}\r\n"
    host = "" if "Host" in trick or dice.random() < 0.1 else "Host: x\r\n"
    text = f"{lines}\r\n{host}{known}{trick}Connection: close\r\n\r\n"
    return _raw(address, text.encode("latin-1") + body)


def half(address: Address, dice: random.Random) -> Outcome:
    """Requests that stop, in their headers or in their body, and clients that are gone."""
    body = json.dumps({"model": "model", "messages": _said("x"), "max_tokens": 50, "stream": True}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    whole = head.encode() + body
    some = whole[: dice.randrange(len(whole))]
    return _raw(address, dice.choice([some, some, whole]), leave=True)


def slow(address: Address, dice: random.Random) -> Outcome:
    """Clients that send byte by byte, or read their stream so, and leave in the midst of it."""
    body = json.dumps({"model": "model", "messages": _said("x"), "max_tokens": 20, "stream": True}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    data = head.encode() + body
    with socket.create_connection(address, SECONDS) as connection:
        for byte in data[: dice.choice([10, len(head) + 5])]:
            connection.sendall(bytes([byte]))
        if dice.random() < 0.5:
            return "left"
        connection.sendall(data[len(head) + 5 :] if dice.random() < 0.5 else b"\r\n" * 20)
        connection.settimeout(PATIENCE)
        with suppress(TimeoutError):  # of headers that are never whole, nobody says a word
            for _ in range(40):
                if not connection.recv(1):
                    return "closed"
    return "left"


def address_tricks(address: Address, dice: random.Random) -> Outcome:
    """Images at addresses, of the server's own network above all."""
    host, port = address
    url = dice.choice([
        f"http://{host}:{port}/v1/models", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd",
        "http://[::1]/", "gopher://x/", "//127.0.0.1/x", "http://0x7f000001/", "data:text/html;base64,PGI+",
        "data:image/png;base64," + "A" * 10_000, "data:,", "/etc/passwd", "javascript:x", "http://localhost:22/",
    ])  # fmt: skip
    return _ask(address, *_with_image(_model(address), url, dice))


KINDS: dict[str, Callable[[Address, random.Random], Outcome]] = {
    "bombs": bomb,
    "broken images": broken_image,
    "wrong types": wrong_types,
    "no JSON": no_json,
    "forms": form,
    "headers": headers,
    "half requests": half,
    "slow clients": slow,
    "addresses": address_tricks,
}


def _deep(dice: random.Random) -> Any:
    value: Any = 1
    for _ in range(dice.choice([5, 900])):
        value = [value] if dice.random() < 0.5 else {"a": value}
    return value


WRONG: Sequence[Callable[[random.Random], Any]] = (
    lambda dice: None,
    lambda dice: dice.choice([-1, 0, 10**9, 10**30, -0.0, 1e308, float("nan"), float("inf")]),
    lambda dice: dice.choice(["", " ", "\0", "\ud800", "x" * 200_000, "1e9", "true", "../..", "\u202e"]),
    lambda dice: dice.choice([[], {}, [[]], [None], {"": ""}, {"type": "text"}, True, False]),
    lambda dice: [dice.random()] * 5000,
    _deep,
)


def _request(model: str, dice: random.Random) -> tuple[str, Any]:
    """A request that is sound, and small."""
    image = data_url(png(8, 8, 8))
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "x"}]
    seen = [{"type": "input_image", "image_url": image}, {"type": "input_text", "text": "x"}]
    requests: list[tuple[str, Any]] = [
        (
            CHAT,
            {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 2, "seed": 1},
        ),
        (
            CHAT,
            {"model": model, "messages": _said("x"), "max_tokens": 2, "stop": ["x"], "modalities": ["text"]},
        ),
        (RESPONSES, {"model": model, "input": [{"role": "user", "content": seen}], "max_output_tokens": 2}),
        (IMAGES, {"model": model, "prompt": "x", "n": 1, "seed": 1, "size": "auto"}),
        (EDITS, {"model": model, "prompt": "x", "images": [{"image_url": image}], "seed": 1}),
        ("/v1/completions", {"model": model, "prompt": "x", "max_tokens": 2}),
    ]
    path, body = dice.choice(requests)
    return path, json.loads(json.dumps(body))


def _with_image(model: str, url: str, dice: random.Random) -> tuple[str, str, dict[str, str]]:
    user = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    bodies: list[tuple[str, Any]] = [
        (CHAT, {"model": model, "messages": [user], "max_tokens": 1}),
        (RESPONSES, {"model": model, "max_output_tokens": 1,
                     "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}),
        (EDITS, {"model": model, "prompt": "x", "images": [{"image_url": url}], "mask": {"image_url": url}}),
    ]  # fmt: skip
    path, body = dice.choice(bodies)
    return path, json.dumps(body), dict(JSON)


def _ask(address: Address, path: str, body: str | bytes, headers: dict[str, str]) -> Outcome:
    connection = http.client.HTTPConnection(*address, timeout=SECONDS)
    try:
        connection.request("POST", path, body, {**_headers(), **headers})
        reply = connection.getresponse()
        return _checked(reply.status, reply.read())
    except (BrokenPipeError, ConnectionResetError):
        return "closed"
    finally:
        connection.close()


def _raw(address: Address, data: bytes, *, leave: bool = False) -> Outcome:
    with socket.create_connection(address, SECONDS) as connection:
        try:
            connection.sendall(data)
            if leave:
                return "left"
            connection.shutdown(socket.SHUT_WR)
            reply = b""
            while some := connection.recv(65536):
                reply += some
        except (BrokenPipeError, ConnectionResetError):
            return "closed"
    if not reply:
        return "closed"
    head, _, body = reply.partition(b"\r\n\r\n")
    return _checked(int(head.split()[1]), body)


def _checked(status: int, body: bytes) -> Outcome:
    if status >= 500 or b"Traceback" in body or b'File "' in body:
        raise Bad(f"{status}: {body[:300]!r}")
    return str(status)


def _headers() -> dict[str, str]:
    return {"authorization": f"Bearer {KEY}", **JSON}


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


_NAMES: dict[Address, str] = {}


def _model(address: Address) -> str:
    """The name of the model that is served."""
    if address not in _NAMES:
        connection = http.client.HTTPConnection(*address, timeout=SECONDS)
        connection.request("GET", "/v1/models", headers=_headers())
        _NAMES[address] = json.loads(connection.getresponse().read())["data"][0]["id"]
        connection.close()
    return _NAMES[address]


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@cache
def png(width: int, height: int, rows: int) -> bytes:
    """A grey PNG of this size, of whose rows so many are there."""
    packer = zlib.compressobj(1)
    row = b"\0" * (min(width, 1 << 20) + 1)
    pixels = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _gif_bomb() -> bytes:
    file = io.BytesIO()
    Image.new("L", (65_535, 1)).save(file, "gif")
    data = bytearray(file.getvalue())
    data[8:10] = b"\xff\xff"  # so many rows
    return bytes(data)


def _table(result: dict[str, Any]) -> str:
    lines = [f"{result['requests']} requests, {'all well' if result['ok'] else 'NOT WELL'}"]
    for kind, seen in result["seen"].items():
        lines.append(
            f"  {kind:14} " + ", ".join(f"{outcome}: {count}" for outcome, count in sorted(seen.items()))
        )
    for name in (
        "bad replies",
        "answers as before",
        "held after half",
        "held at the end",
        "tracebacks in the log",
    ):
        lines.append(f"{name}: {result[name]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
