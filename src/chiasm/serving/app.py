"""The HTTP interface: routes, and how a request finds its model and its answer the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from chiasm.errors import ChiasmError, nearest
from chiasm.inference.conversation import Conversation
from chiasm.model import Model
from chiasm.serving.forms import BODY, edits_body
from chiasm.serving.guards import Guard, error_body
from chiasm.serving.measures import Measures
from chiasm.serving.replies import (
    ChatReply,
    CompletionReply,
    ImagesReply,
    Piece,
    WordsReply,
    event,
    finish_reason,
    usage,
)
from chiasm.serving.requests import Images, chat_request, completion_request, edits_request, images_request
from chiasm.serving.schema import ChatRequest, CompletionRequest, ImagesRequest, WordFields
from chiasm.serving.worker import Full, Stopped, Ticket, Worker

Result = TypeVar("Result")
INVALID = "invalid_request_error"
DISCONNECT = 0.25  # seconds between two looks at whether the client is still there


@dataclass(frozen=True)
class Limits:
    """pending: requests of a model under way or waiting. body: bytes. images: of one request."""

    pending: int = 64
    body: int = 32 * 2**20
    images: int = 16


class UnknownModel(ChiasmError):
    """A request names a model that is not served."""


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


def create_app(
    models: Mapping[str, Model], *, key: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """An ASGI application that serves these models by name; raises ChiasmError for one that cannot answer.

    key: that clients must send, as `Authorization: Bearer KEY`.
    """
    limits = limits or Limits()
    for name, model in models.items():
        if not model.speaks:
            raise ChiasmError(f"{name!r} has no language model: it answers nothing")
    server = Server(models, limits)
    app = FastAPI(title="Chiasm", lifespan=server.lifespan, redirect_slashes=False)
    app.get("/", include_in_schema=False)(server.playground)
    app.get("/health")(server.health)
    app.get("/metrics")(server.metrics)
    app.get("/v1/models")(server.list_models)
    app.get("/v1/models/{name:path}")(server.get_model)
    app.post("/v1/chat/completions")(server.chat)
    app.post("/v1/completions")(server.complete)
    app.post("/v1/images/generations")(server.draw)
    app.post("/v1/images/edits", openapi_extra=BODY)(server.edit)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(ChiasmError)(_refused)
    app.exception_handler(ClientLeft)(_left_alone)
    app.add_middleware(Guard, key=key, most_bytes=limits.body)
    return app


class Server:
    """The models, each with its worker, and what is done for a request."""

    def __init__(self, models: Mapping[str, Model], limits: Limits):
        self.models, self.limits = models, limits
        self.workers: dict[str, Worker] = {}
        self.measures = Measures(self.workers)
        self.started = int(time.time())

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        for name, model in self.models.items():
            self.workers[name] = Worker(model, most=self.limits.pending)
        yield
        for worker in self.workers.values():
            await run_in_threadpool(worker.stop)

    async def playground(self) -> FileResponse:
        """A page to talk with the models."""
        return FileResponse(
            Path(__file__).with_name("playground.html"), headers={"cache-control": "no-cache"}
        )

    async def health(self) -> dict[str, str]:
        """Whether the server takes requests."""
        return {"status": "ok"}

    async def metrics(self) -> Response:
        """Counters in Prometheus' form."""
        return Response(self.measures.text(), media_type="text/plain; version=0.0.4")

    async def list_models(self) -> dict[str, Any]:
        """The models that are served, and what each can read and make."""
        return {"object": "list", "data": [self._described(name) for name in self.models]}

    async def get_model(self, name: str) -> dict[str, Any]:
        """One of them."""
        self._worker(name)
        return self._described(name)

    async def chat(self, request: Request, body: ChatRequest) -> Any:
        """An answer to a conversation, in text and images."""
        worker = self._worker(body.model)
        asked = await run_in_threadpool(chat_request, worker.model, body, most_images=self.limits.images)
        reply = ChatReply(body.model, asked.seed, ordered=body.ordered_content)
        return await self._answer("chat", request, body, asked, reply)

    async def complete(self, request: Request, body: CompletionRequest) -> Any:
        """What follows a text, in text."""
        worker = self._worker(body.model)
        asked = await run_in_threadpool(completion_request, worker.model, body)
        reply = CompletionReply(body.model, asked.seed)
        return await self._answer("completions", request, body, asked, reply)

    async def _answer(
        self, route: str, request: Request, body: WordFields, asked: Conversation, reply: WordsReply
    ) -> Any:
        """Whole, or event by event."""
        prompt = len(asked.document)  # which grows by the answer
        ticket = self._worker(body.model).submit(asked)

        async def events() -> AsyncIterator[str]:
            for each in reply.first():
                yield event(each)
            async for piece in ticket:
                yield event(await run_in_threadpool(reply.chunk, piece))
            self._count(body.model, prompt, asked)
            yield event(reply.last(finish_reason(asked)))
            if body.stream_options is not None and body.stream_options.include_usage:
                yield event(reply.count(usage(prompt, asked.tokens)))
            yield event("[DONE]")

        if body.stream:
            return self._stream(route, body.model, ticket, events())
        pieces = await self._whole(route, body.model, request, ticket, _pieces(ticket))
        self._count(body.model, prompt, asked)
        counts = usage(prompt, asked.tokens)
        return await run_in_threadpool(reply.whole, pieces, finish_reason(asked), counts)

    async def draw(self, request: Request, body: ImagesRequest) -> Any:
        """Images of a prompt."""
        name = body.model or self._one_that_draws()
        model = self._worker(name).model
        asked, seeds = await run_in_threadpool(images_request, model, body)
        return await self._draw("images", request, name, asked, ImagesReply(body, seeds, asked))

    async def edit(self, request: Request) -> Any:
        """An image, drawn anew under a mask, or after an instruction."""
        body = await edits_body(request)
        name = body.model or self._one_that_draws()
        model = self._worker(name).model
        asked, seeds = await run_in_threadpool(edits_request, model, body, most_images=self.limits.images)
        return await self._draw("edits", request, name, asked, ImagesReply(body, seeds, asked))

    async def _draw(self, route: str, request: Request, name: str, asked: Images, reply: ImagesReply) -> Any:
        ticket = self._worker(name).submit(asked)
        if reply.stream:
            return self._stream(route, name, ticket, self._growing(reply, ticket, name))
        images = await self._whole(route, name, request, ticket, ticket.result())
        self.measures.images.labels(name).inc(len(images))
        return await run_in_threadpool(reply.whole, images)

    async def _growing(self, reply: ImagesReply, ticket: Ticket, name: str) -> AsyncIterator[str]:
        """Events of an image: as far as it is drawn, and whole."""
        async for piece in ticket:
            yield event(await run_in_threadpool(reply.partial, piece))
        images = await ticket.result()
        self.measures.images.labels(name).inc(len(images))
        yield event(await run_in_threadpool(reply.completed, images))

    def _worker(self, name: str) -> Worker:
        if name not in self.workers:
            known = ", ".join(map(repr, self.models))
            raise UnknownModel(f"there is no model {name!r}; served: {known}{nearest(name, self.models)}")
        return self.workers[name]

    def _one_that_draws(self) -> str:
        drawing = [name for name, model in self.models.items() if model.draws]
        if len(drawing) != 1:
            raise ChiasmError(f"model: name one; {len(drawing)} of the models that are served draw")
        return drawing[0]

    def _described(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        contract = model.contract
        size = contract.written_size
        return {
            "id": name,
            "object": "model",
            "created": self.started,
            "owned_by": "chiasm",
            "modalities": {
                "input": ["text", "image"] if model.sees else ["text"],
                "output": ["text", "image"] if model.draws else ["text"],
            },
            "context_length": contract.context,
            "image_size": f"{size.width}x{size.height}" if size is not None and model.draws else None,
            "image_tokens": contract.span.length if contract.span is not None else None,
        }

    async def _whole(
        self, route: str, name: str, request: Request, ticket: Ticket, work: Awaitable[Result]
    ) -> Result:
        """What a request makes, unless its client leaves before."""
        task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_leaves(request))
        with self._measured(route, name) as outcome:
            try:
                await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    outcome("cancelled")
                    raise ClientLeft
                return task.result()
            finally:
                watch.cancel()
                task.cancel()
                if not ticket.done:
                    self.workers[name].cancel(ticket)

    def _stream(self, route: str, name: str, ticket: Ticket, events: AsyncIterator[str]) -> StreamingResponse:
        """The events of an answer; an error that comes in their midst is the last of them."""

        async def guarded() -> AsyncIterator[str]:
            with self._measured(route, name) as outcome:
                try:
                    async for each in events:
                        yield each
                except ChiasmError as error:
                    outcome("failed")
                    yield event(error_body(str(error), _kind(error)[1]))
                finally:
                    if not ticket.done:
                        outcome("cancelled")
                        self.workers[name].cancel(ticket)

        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(guarded(), media_type="text/event-stream", headers=headers)

    def _measured(self, route: str, name: str) -> _Measured:
        return _Measured(self.measures, route, name)

    def _count(self, name: str, prompt: int, asked: Conversation) -> None:
        self.measures.tokens.labels(name, "prompt").inc(prompt)
        self.measures.tokens.labels(name, "answer").inc(asked.tokens)


class _Measured:
    """How long a request took, and how it ended."""

    def __init__(self, measures: Measures, route: str, name: str):
        self.measures, self.labels, self.outcome = measures, (route, name), "done"

    def __enter__(self) -> Callable[[str], None]:
        self.began = time.perf_counter()
        return lambda outcome: setattr(self, "outcome", outcome)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        outcome = self.outcome if kind is None or self.outcome != "done" else "failed"
        self.measures.requests.labels(*self.labels, outcome).inc()
        self.measures.seconds.labels(*self.labels).observe(time.perf_counter() - self.began)


async def _pieces(ticket: Ticket) -> list[Piece]:
    return [piece async for piece in ticket]


async def _leaves(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(DISCONNECT)


def _kind(error: ChiasmError) -> tuple[int, str, str | None]:
    """Status, type and code of an error."""
    if isinstance(error, UnknownModel):
        return 404, INVALID, "model_not_found"
    if isinstance(error, Full):
        return 429, "rate_limit_error", "too_many_requests"
    if isinstance(error, Stopped):
        return 503, "server_error", "stopping"
    return 400, INVALID, None


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ChiasmError)
    status, kind, code = _kind(error)
    name, colon, _rest = str(error).partition(":")
    param = name if colon and name.replace("_", "").isalpha() and name.islower() else None
    headers = {"retry-after": "1"} if status == 429 else None
    return JSONResponse(error_body(str(error), kind, param=param, code=code), status, headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    place = [str(each) for each in problem["loc"] if each not in ("body", "text", "image_url")]
    param = ".".join(place) or None
    message = problem["msg"]
    if problem["type"] == "extra_forbidden":
        message = "this server cannot honour it; leave it out"
    elif problem["type"] == "json_invalid":
        param, message = None, f"the body is no JSON: {message}"
    return JSONResponse(error_body(f"{param}: {message}" if param else message, INVALID, param=param), 400)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(error_body(message, INVALID), error.status_code, error.headers)


async def _left_alone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
