"""A short form of `benchmarks/hostile.py`: what means no good gets a sentence, and harms nobody."""

import socket
import sys
from pathlib import Path

import pytest

from clients import KEY, LIMITS, post

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import hostile


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_hostile_requests_get_no_traceback_and_harm_nobody(address, kind, monkeypatch):
    monkeypatch.setattr(hostile, "KEY", KEY)
    monkeypatch.setattr(hostile, "PATIENCE", 0.5)
    monkeypatch.setattr(hostile, "KINDS", {kind: hostile.KINDS[kind]})
    expected = hostile.sound(address)
    seen, bad = hostile.attack(address, 6, 3, 0)
    assert bad == []
    assert seen[kind].total() == 6
    assert hostile.sound(address) == expected


def test_a_body_that_does_not_come_is_not_waited_for(address):
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection(address, 60) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        reply = b""
        while b"seconds" not in reply and (some := connection.recv(65536)):
            reply += some
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert f"within {LIMITS.seconds} seconds".encode() in reply


def test_images_have_a_limit_of_pixels_together(address):
    image = hostile.data_url(hostile.png(900, 900, 900))
    assert 900 * 900 < LIMITS.pixels < 2 * 900 * 900
    parts = [{"type": "image_url", "image_url": {"url": image}}] * 2
    body = {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": 1}
    status, reply = post(address, "/v1/chat/completions", body)
    assert status == 400
    assert "messages[0].content[1]: more than 1,048,576 pixels" in reply["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 500_000}]}),
        ("/v1/responses", {"input": "x" * 500_000}),
        ("/v1/completions", {"prompt": "x" * 500_000}),
        ("/v1/images/generations", {"prompt": "x" * 500_000}),
        ("/v1/tokens", {"messages": [{"role": "user", "content": "x" * 500_000}]}),
    ],
)
def test_a_text_that_cannot_fit_is_refused_before_it_is_cut_into_tokens(address, path, body):
    status, reply = post(address, path, {"model": "tiny", **body})
    assert status == 400
    assert "500,000 letters, which the context of 256 tokens cannot hold" in reply["error"]["message"]
