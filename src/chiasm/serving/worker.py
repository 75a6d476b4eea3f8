"""A model and its engine in a thread of their own; what requests make goes back to the event loop of who asked."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from chiasm.errors import ChiasmError
from chiasm.inference.engine import Engine, Handle
from chiasm.inference.requests import Request
from chiasm.model import Model
from chiasm.serving.drawn import DrawnImages

log = logging.getLogger("chiasm.serving")


class Full(ChiasmError):
    """As many requests wait as may."""


class Stopped(ChiasmError):
    """The server stops, and what is not done will not be."""


class Ticket:
    """A request that was handed in: what it makes comes out piece by piece, its result at the end.

    Iterating gives pieces; `result` waits for the end. Both raise what the request failed with.
    """

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop):
        self.request = request
        self._loop = loop
        self._pieces: asyncio.Queue[Any] = asyncio.Queue()
        self._result: asyncio.Future[Any] = loop.create_future()
        self._result.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # it may be left unread

    async def __aiter__(self) -> Any:
        while (piece := await self._pieces.get()) is not _END:
            yield piece
        await self._result

    async def result(self) -> Any:
        return await asyncio.shield(self._result)

    @property
    def done(self) -> bool:
        return self._result.done()

    def give(self, piece: Any) -> None:
        """From the worker's thread."""
        self._call(self._pieces.put_nowait, piece)

    def end(self, value: Any = None, error: BaseException | None = None) -> None:
        """From the worker's thread."""
        self._call(self._end, value, error)

    def _end(self, value: Any, error: BaseException | None) -> None:
        if not self._result.done():
            if error is None:
                self._result.set_result(value)
            else:
                self._result.set_exception(error)
            self._pieces.put_nowait(_END)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


_END = object()


class Worker:
    """Runs a model's engine; requests that come in between two passes share the next.

    most: requests that may be under way or wait; one more is refused (`Full`). drawn: of images of its own.
    prefixes: positions that are kept of what was read (see `Engine`).
    """

    def __init__(self, model: Model, *, most: int = 64, prefixes: int = 0):
        self.model, self.most = model, most
        self.drawn = DrawnImages(model)
        self._engine = Engine(model, prefixes=prefixes)
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._handles: dict[Ticket, Handle] = {}
        self._count, self._lock = 0, threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="chiasm-engine", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Requests that are under way or wait."""
        return self._count

    @property
    def reused(self) -> int:
        """Positions that were not read, as another request had read them."""
        return self._engine.prefixes.reused

    def submit(self, request: Request) -> Ticket:
        """Hand in a request, from a coroutine; raises Full, or Stopped."""
        with self._lock:
            if self._stopping:
                raise Stopped("the server is stopping")
            if self._count >= self.most:
                raise Full(f"{self._count} requests are under way or wait already; try again later")
            self._count += 1
        ticket = Ticket(request, asyncio.get_running_loop())
        self._inbox.put(lambda: self._handles.__setitem__(ticket, self._engine.submit(request)))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for it any more; no harm where it is done."""
        self._inbox.put(lambda: self._cancel(ticket))

    def stop(self) -> None:
        """Finish nothing more: who still waits is told (`Stopped`)."""
        with self._lock:
            self._stopping = True
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._receive():
            try:
                self._engine.tick()
            except Exception as error:  # the engine fails requests one by one; this is its own fault
                log.exception("the engine failed")
                for ticket in list(self._handles):
                    self._cancel(ticket, error)
            self._deliver()
        for ticket in list(self._handles):
            self._cancel(ticket, Stopped("the server has stopped before this was done"))

    def _receive(self) -> bool:
        """Take what came in, waiting for something where there is nothing to do; False: it is time to stop."""
        while not self._inbox.empty() or not self._handles:
            message = self._inbox.get()
            if message is None:
                return False
            message()
        return True

    def _deliver(self) -> None:
        for ticket, handle in list(self._handles.items()):
            while handle.request.pieces:
                ticket.give(handle.request.pieces.popleft())
            if handle.done:
                self._forget(ticket)
                ticket.end(handle.value, handle.error)

    def _cancel(self, ticket: Ticket, error: Exception | None = None) -> None:
        handle = self._handles.get(ticket)
        if handle is not None:
            self._engine.withdraw(handle)
            self._forget(ticket)
            ticket.end(error=error or ChiasmError("the request was cancelled"))

    def _forget(self, ticket: Ticket) -> None:
        del self._handles[ticket]
        with self._lock:
            self._count -= 1
