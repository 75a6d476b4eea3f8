"""What is done for a request: it finds its model, and its answer the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response, StreamingResponse
from PIL import Image
from starlette.concurrency import run_in_threadpool

from chiasm.errors import ChiasmError, nearest
from chiasm.inference.calling import CalledTools
from chiasm.inference.conversation import Conversation
from chiasm.inference.reading import CODES, CodedImage
from chiasm.model import Model
from chiasm.serving.fetching import Fetcher
from chiasm.serving.forms import edits_body
from chiasm.serving.measures import Measures
from chiasm.serving.messages import RequestImages
from chiasm.serving.reconstructed import reconstruction_of
from chiasm.serving.refusals import ClientLeft, UnknownModel, reply_to
from chiasm.serving.replies import (
    ChatReply,
    CompletionReply,
    ImagesReply,
    Piece,
    WordsReply,
    event,
    finish_reason,
    signal_reply,
    usage,
)
from chiasm.serving.requests import (
    Images,
    chat_request,
    completion_request,
    edits_request,
    images_request,
    response_request,
    signals_request,
)
from chiasm.serving.responses import ResponsesReply
from chiasm.serving.responses_schema import ResponsesRequest
from chiasm.serving.schema import (
    ChatRequest,
    CompletionRequest,
    ImagesRequest,
    ReconstructionRequest,
    SamplingFields,
    SignalsRequest,
    TokensRequest,
    WordFields,
)
from chiasm.serving.tokens import tokens_of
from chiasm.serving.worker import Ticket, Worker

Result = TypeVar("Result")
DISCONNECT = 0.25  # seconds between two looks at whether the client is still there


@dataclass(frozen=True)
class Limits:
    """pending: requests of a model under way or waiting. body: bytes, also of an image that is fetched.

    images, pixels: of one request, all its images together. seconds: in which a body must come.
    hosts: from which images are fetched (see `Fetcher`).
    prefixes: positions that are kept of what each model has read, for requests that begin alike; 0 = none.
    """

    pending: int = 64
    body: int = 32 * 2**20
    images: int = 16
    pixels: int = 64 * 2**20
    seconds: float = 60.0
    hosts: tuple[str, ...] = ()
    prefixes: int = 8192


class Server:
    """The models, each with its worker, and what is done for a request."""

    def __init__(self, models: Mapping[str, Model], limits: Limits):
        self.models, self.limits = models, limits
        self.workers: dict[str, Worker] = {}
        self.measures = Measures(self.workers)
        self.fetcher = Fetcher(limits.hosts, most_bytes=limits.body) if limits.hosts else None
        self.started = int(time.time())

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        for name, model in self.models.items():
            self.workers[name] = Worker(model, most=self.limits.pending, prefixes=self.limits.prefixes)
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
        conversation, called = await run_in_threadpool(chat_request, worker.model, body, self._images(worker))
        reply = ChatReply(body.model, conversation.seed, ordered=body.ordered_content, counted=_counted(body))
        return await self._answer("chat", request, body, conversation, reply, called)

    async def complete(self, request: Request, body: CompletionRequest) -> Any:
        """What follows a text, in text."""
        worker = self._worker(body.model)
        conversation = await run_in_threadpool(completion_request, worker.model, body)
        reply = CompletionReply(body.model, conversation.seed, counted=_counted(body))
        return await self._answer("completions", request, body, conversation, reply)

    async def respond(self, request: Request, body: ResponsesRequest) -> Any:
        """An answer to a conversation, in items of text and images in their order."""
        worker = self._worker(body.model)
        conversation, called = await run_in_threadpool(
            response_request, worker.model, body, self._images(worker)
        )
        reply = ResponsesReply(body, conversation.seed)
        return await self._answer("responses", request, body, conversation, reply, called)

    async def _answer(
        self,
        route: str,
        request: Request,
        body: SamplingFields,
        conversation: Conversation,
        reply: WordsReply,
        called: CalledTools | None = None,
    ) -> Any:
        """Whole, or event by event. called: reads the calls of tools in it."""
        prompt = len(conversation.document)  # which grows by the answer
        ticket = self._worker(body.model).submit(conversation)

        async def events() -> AsyncIterator[str]:
            for each in reply.first():
                yield event(each)
            async for piece in self._pieces(body.model, ticket, called):
                for each in await run_in_threadpool(reply.events, piece):
                    yield event(each)
            self._finished(body.model, prompt, conversation)
            for each in reply.last(finish_reason(conversation), usage(prompt, conversation)):
                yield event(each)
            for end in reply.end:
                yield event(end)

        if body.stream:
            return self._stream(route, body.model, ticket, events())
        pieces = await self._whole(
            route, body.model, request, ticket, _all_of(self._pieces(body.model, ticket, called))
        )
        self._finished(body.model, prompt, conversation)
        counts = usage(prompt, conversation)
        return await run_in_threadpool(reply.whole, pieces, finish_reason(conversation), counts)

    async def _pieces(self, name: str, ticket: Ticket, called: CalledTools | None) -> AsyncIterator[Piece]:
        """What a request makes, its calls of tools behind all else."""
        async for piece in ticket:
            if isinstance(piece, Image.Image):
                await run_in_threadpool(self.workers[name].drawn.sign, piece)
            for each in [piece] if called is None else called.feed(piece):
                yield each
        if called is not None:
            rest: list[Piece] = [*called.finish(), *called.calls]
            for each in rest:
                yield each

    async def synthesise(self, request: Request, body: SignalsRequest) -> dict[str, Any]:
        """The signal of a modality beside text and images with which a conversation is answered."""
        worker = self._worker(body.model)
        wanted = await run_in_threadpool(signals_request, worker.model, body, self._images(worker))
        ticket = worker.submit(wanted)
        numbers = await self._whole("signals", body.model, request, ticket, ticket.result())
        return signal_reply(body, wanted, numbers)

    async def tokens(self, body: TokensRequest) -> dict[str, Any]:
        """A conversation as the model reads it, token by token."""
        worker = self._worker(body.model)
        return await run_in_threadpool(tokens_of, worker.model, body, self._images(worker))

    async def reconstruct(self, body: ReconstructionRequest) -> dict[str, Any]:
        """An image as the model's image tokenizer has it, at each of its scales."""
        worker = self._worker(body.model)
        return await run_in_threadpool(reconstruction_of, worker.model, body, self._images(worker))

    async def draw(self, request: Request, body: ImagesRequest) -> Any:
        """Images of a prompt."""
        name = body.model or self._one_that_draws()
        model = self._worker(name).model
        drawing, seeds = await run_in_threadpool(images_request, model, body)
        return await self._draw("images", request, name, drawing, ImagesReply(body, seeds, drawing))

    async def edit(self, request: Request) -> Any:
        """An image, drawn anew under a mask, or after an instruction."""
        body = await edits_body(request)
        name = body.model or self._one_that_draws()
        worker = self._worker(name)
        drawing, seeds = await run_in_threadpool(edits_request, worker.model, body, self._images(worker))
        return await self._draw("edits", request, name, drawing, ImagesReply(body, seeds, drawing))

    async def _draw(
        self, route: str, request: Request, name: str, drawing: Images, reply: ImagesReply
    ) -> Any:
        ticket = self._worker(name).submit(drawing)
        if reply.stream:
            return self._stream(route, name, ticket, self._growing(reply, ticket, name))
        drawn = await self._whole(route, name, request, ticket, ticket.result())
        return await run_in_threadpool(reply.whole, self._drawn(name, drawn))

    async def _growing(self, reply: ImagesReply, ticket: Ticket, name: str) -> AsyncIterator[str]:
        """Events of an image: as far as it is drawn, and whole."""
        async for piece in ticket:
            yield event(await run_in_threadpool(reply.partial, piece))
        images = self._drawn(name, await ticket.result())
        yield event(await run_in_threadpool(reply.completed, images))

    def _drawn(self, name: str, images: Sequence[CodedImage]) -> list[Image.Image]:
        """Count what was drawn, and note its codes."""
        self.measures.images.labels(name).inc(len(images))
        for each in images:
            each.open().info[CODES] = each.codes
        return [self.workers[name].drawn.sign(each.open()) for each in images]

    def _images(self, worker: Worker) -> RequestImages:
        limits = self.limits
        return RequestImages(limits.images, limits.pixels, fetcher=self.fetcher, drawn=worker.drawn)

    def _worker(self, name: str) -> Worker:
        if name not in self.workers:
            raise UnknownModel(f"there is no model {name!r}{nearest(name, self.workers)}")
        return self.workers[name]

    def _one_that_draws(self) -> str:
        drawing = [name for name, model in self.models.items() if model.draws]
        if len(drawing) != 1:
            raise ChiasmError.of("model", f"name one; {len(drawing)} of the models that are served draw")
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
                "input": [*(["text", "image"] if model.sees else ["text"]), *contract.signals],
                "output": [*(["text", "image"] if model.draws else ["text"]), *contract.signals],
            },
            "signals": {
                name: {"shape": layout.shape, "tokens": layout.positions}
                for name, layout in contract.signals.items()
            },
            "context_length": contract.context,
            "image_size": f"{size.width}x{size.height}" if size is not None and model.draws else None,
            "image_tokens": contract.span.length if contract.span is not None else None,
            "tools": contract.tokenizer.knows_tools,
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
                    yield event(reply_to(error)[1])
                finally:
                    if not ticket.done:
                        outcome("cancelled")
                        self.workers[name].cancel(ticket)

        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(guarded(), media_type="text/event-stream", headers=headers)

    def _measured(self, route: str, name: str) -> _Measured:
        return _Measured(self.measures, route, name)

    def _finished(self, name: str, prompt: int, conversation: Conversation) -> None:
        """Count what was done."""
        self.measures.tokens.labels(name, "prompt").inc(prompt)
        self.measures.tokens.labels(name, "answer").inc(conversation.tokens)


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


def _counted(body: WordFields) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


async def _all_of(pieces: AsyncIterator[Piece]) -> list[Piece]:
    return [piece async for piece in pieces]


async def _leaves(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(DISCONNECT)
