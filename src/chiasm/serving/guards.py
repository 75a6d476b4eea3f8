"""What stands before every request: its key, the size of its body, and a number by which it is found again."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import uuid
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("chiasm.serving")
OPEN = ("/", "/health")  # without a key


def error_body(
    message: str, kind: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Guard:
    """An ASGI layer: 401 without the key, 413 for a body that is too large, 408 for one that does not come, 415 for
    a packed one, and a request id in reply and log.

    What fails within is logged with its id, and the reply says no more than that id.
    """

    def __init__(self, app: ASGIApp, *, key: str | None, most_bytes: int, seconds: float):
        self.app, self.key, self.most_bytes, self.seconds = app, key, most_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id, began, status = f"req_{uuid.uuid4().hex}", time.perf_counter(), 0
        scope.setdefault("state", {})["request_id"] = id
        headers = dict(scope["headers"])

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", id.encode())]
            await send(message)

        try:
            refusal = self._refusal(scope["path"], headers)
            if refusal is not None:
                await _answer(reply, *refusal)
            else:
                await self.app(scope, _Limited(receive, self.most_bytes, self.seconds), reply)
        except Exception:
            log.exception("%s failed", id)
            if not status:
                await _answer(
                    reply, 500, error_body(f"something failed in the server ({id})", "server_error")
                )
        finally:
            took = time.perf_counter() - began
            log.info("%s %s %s %d %.3f s", id, scope["method"], scope["path"], status, took)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, dict[str, Any]] | None:
        if self.key is not None and path not in OPEN:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, f"Bearer {self.key}".encode()):
                message = "the header Authorization: Bearer KEY is missing, or its key is another"
                return 401, error_body(message, "invalid_request_error", code="invalid_api_key")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            message = "the header Content-Encoding says that the body is packed; send it as it is"
            return 415, error_body(message, "invalid_request_error")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return 400, error_body("the header Content-Length is no number", "invalid_request_error")
        if int(length) > self.most_bytes:
            return 413, error_body(_too_large(self.most_bytes), "invalid_request_error")
        return None


def _too_large(most: int) -> str:
    return f"the body is larger than {most:,} bytes"


class _Limited:
    """A body that may grow no further while it is read, and must be there in time."""

    def __init__(self, receive: Receive, most: int, seconds: float):
        self.receive, self.most, self.seconds = receive, most, seconds
        self.left, self.deadline, self.whole = most, time.monotonic() + seconds, False

    async def __call__(self) -> Message:
        if self.whole:
            return await self.receive()  # of the client, whether it is still there
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                message = await self.receive()
        except TimeoutError:
            raise HTTPException(408, f"the body has not come within {self.seconds:g} seconds") from None
        self.whole = not message.get("more_body", False)
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise HTTPException(413, _too_large(self.most))
        return message


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
