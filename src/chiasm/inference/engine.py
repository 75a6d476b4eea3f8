"""The engine: one loop that makes all answers, each tick one pass of the language model for all who wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chiasm.data.picture_reader import PictureReader
from chiasm.errors import ChiasmError
from chiasm.inference.kernels import fastest_linear
from chiasm.inference.prefixes import DocumentContent, Prefixes
from chiasm.inference.reading import CodeReader
from chiasm.inference.requests import Extend, Forget, Keep, Offer, Read, Request, Steps, Wish
from chiasm.inference.session import Session
from chiasm.sequence import Document

if TYPE_CHECKING:
    from chiasm.model import Model

ROWS = 128
POSITIONS = 1 << 16


class Handle(Iterator[Any]):
    """A request that was handed in. done: it has a result, or an error."""

    def __init__(self, engine: Engine, request: Request):
        self.engine, self.request = engine, request
        self.done = False
        self.error: Exception | None = None
        self.value: Any = None
        # The engine's: the generator (None: to be begun), what it waits for, and its rows in the session.
        self.steps: Steps | None = None
        self.wish: Wish | None = None
        self.contents: list[DocumentContent] | None = None  # of the documents that it wants read
        self.rows: list[int] = []
        self.alone = False  # a pass that it was a part of has failed: the next is made for it alone
        self.waited = False  # for another that begins alike to be read

    def result(self) -> Any:
        """Drive the engine until this request is done; raises what it failed with."""
        while not self.done:
            self.engine.tick()
        if self.error is not None:
            raise self.error
        return self.value

    def __next__(self) -> Any:
        """The next piece of the result; raises what the request failed with."""
        while not self.request.pieces:
            if self.done:
                self.result()
                raise StopIteration
            self.engine.tick()
        return self.request.pieces.popleft()

    def finish(self, value: Any = None, error: Exception | None = None) -> None:
        self.done, self.value, self.error = True, value, error


class Engine:
    """Continuous batching: requests of any kind share passes, and come and go between them.

    A tick reads the documents that requests begin with, all in one pass, or else appends what each of them wants
    next, all in one pass. What a request gets does not depend on its neighbours. One that fails takes nobody with
    it: a pass that fails is made again for each of those in it alone. Whatever stops a tick (Ctrl-C, say), the next
    goes on: every request begins again from what it has noted.

    rows, positions: most rows at a time, and most positions in all of them; a request that wants more runs alone.
    prefixes: positions that are kept of what was read, for documents that begin alike (`Prefixes`).
    """

    def __init__(self, model: Model, *, rows: int = ROWS, positions: int = POSITIONS, prefixes: int = 0):
        self.model = model
        self.prefixes = Prefixes(model, prefixes)
        self.limits = rows, positions
        self.reader: PictureReader = CodeReader(model)
        self._waiting: deque[Handle] = deque()
        self._active: list[Handle] = []
        self._session: Session | None = None

    def submit(self, request: Request) -> Handle:
        handle = Handle(self, request)
        self._waiting.append(handle)
        return handle

    def withdraw(self, handle: Handle) -> None:
        """Stop a request that nobody waits for any more, between two ticks; no other notices."""
        if handle.steps is not None:
            handle.steps.close()
        if handle in self._waiting:
            self._waiting.remove(handle)
        handle.finish(error=ChiasmError("the request was withdrawn"))
        self._leave()

    def run(self) -> None:
        """Tick until nothing is left to do."""
        while self.tick():
            pass

    def tick(self) -> bool:
        """One pass of the language model for all who wait; False: nobody does."""
        with torch.inference_mode(), fastest_linear(self.model.device):
            try:
                self._begin()
                self._pass()
                self._leave()
            except BaseException:
                self._interrupted()
                raise
        return bool(self._active or self._waiting)

    def _begin(self) -> None:
        """Let requests in while there is room, and begin those that have not begun."""
        while self._waiting and self._fits(self._waiting[0].request):
            self._active.append(self._waiting.popleft())
        for handle in list(self._active):
            if handle.steps is None:
                handle.steps = handle.request.steps()
                self._resume(handle, None)

    def _fits(self, request: Request) -> bool:
        requests = [*(handle.request for handle in self._active), request]
        rows = sum(each.rows for each in requests)
        positions = rows * max(each.positions for each in requests)
        return not self._active or (rows <= self.limits[0] and positions <= self.limits[1])

    def _pass(self) -> None:
        waiting = [handle for handle in self._active if not handle.done]
        chosen = [handle for handle in waiting if handle.alone][:1] or waiting
        reading = [handle for handle in chosen if isinstance(handle.wish, Read)]
        if reading:
            if together := self._read_together(reading):
                self._read(together)
        elif chosen:
            self._extend(chosen)

    def _read_together(self, handles: Sequence[Handle]) -> list[Handle]:
        """Those that are read in the next pass: of the first's kind, that go on behind what is cached, or do not.

        One that begins as another does waits for that one, but once. One whose images cannot be read ends here.
        """
        if not self.prefixes.most:
            return list(handles)
        contents: dict[Handle, list[DocumentContent]] = {}
        for handle in handles:
            try:
                contents[handle] = _contents(handle)
            except Exception as error:
                handle.finish(error=error)
        continues = {
            handle: any(self.prefixes.of(each).length for each in own) for handle, own in contents.items()
        }
        together: list[Handle] = []
        ahead: dict[DocumentContent, None] = {}
        for handle, own in contents.items():
            if continues[handle] is not next(iter(continues.values())):
                continue
            awaits = not (continues[handle] or handle.waited)
            if awaits and any(self.prefixes.awaited(each, ahead) for each in own):
                handle.waited = True
                continue
            together.append(handle)
            ahead |= dict.fromkeys(own)
        return together

    def _read(self, handles: Sequence[Handle]) -> None:
        documents = [document for handle in handles for document in handle.wish.documents]  # type: ignore[union-attr]
        try:
            contents = [content for handle in handles for content in _contents(handle)]
            fresh, reused = self._session_of(documents, contents)
        except Exception as error:
            if len(handles) == 1:
                handles[0].finish(error=error)
                return
            for handle in handles:  # one of them is at fault, and the others shall not suffer from it
                self._read([handle])
            return
        counts = [len(handle.wish.documents) for handle in handles]  # type: ignore[union-attr]
        hidden = fresh.last.split(counts)
        first = self._join(fresh)
        for handle, count in zip(handles, counts, strict=True):
            if not handle.rows:
                handle.request.reused = sum(reused[:count])
            handle.rows += range(first, first + count)
            first, reused = first + count, reused[count:]
        for handle, states in zip(handles, hidden, strict=True):
            self._resume(handle, states)

    def _session_of(
        self, documents: Sequence[Document], contents: Sequence[DocumentContent]
    ) -> tuple[Session, list[int]]:
        """Read documents, those that are equal once; and how many positions of each were cached."""
        numbers: dict[DocumentContent, int] = {}
        places = [numbers.setdefault(each, len(numbers)) for each in contents]
        distinct = [documents[places.index(number)] for number in range(len(numbers))]
        session, reused = self.prefixes.read(distinct, list(numbers), self.reader)
        if len(numbers) < len(documents):
            try:
                session.select(places)
            except ChiasmError:  # a cache that is longer than its sliding window gives no rows away
                return Session(self.model, documents, self.reader), [0] * len(documents)
        return session, [reused[place] for place in places]

    def _join(self, fresh: Session) -> int:
        """Put new rows behind those that there are; returns the first of them."""
        self._tidy()
        if self._session is None:
            self._session = fresh
            return 0
        first = len(self._session)
        self._session.join(fresh)
        return first

    def _extend(self, handles: Sequence[Handle]) -> None:
        assert self._session is not None
        wishes: list[tuple[Sequence[int], Extend]] = [(handle.rows, handle.wish) for handle in handles]  # type: ignore[misc]
        try:
            hidden = self._session.extend(wishes)
        except Exception as error:
            self._interrupted()  # some layers of the cache may be ahead of the others
            for handle in handles:
                handle.alone = True
            if len(handles) == 1:
                handles[0].finish(error=error)
            return
        for handle, states in zip(handles, hidden, strict=True):
            handle.alone = False
            self._resume(handle, states)

    def _resume(self, handle: Handle, states: Tensor | None) -> None:
        """Send a request its hidden states, and note what it wants next."""
        assert handle.steps is not None
        try:
            while True:
                handle.wish, handle.contents = handle.steps.send(states), None
                states = None
                if isinstance(handle.wish, Keep):
                    handle.rows = [handle.rows[row] for row in handle.wish.rows]
                elif isinstance(handle.wish, Forget):
                    assert self._session is not None
                    self._session.forget(handle.rows, handle.wish.count)
                elif isinstance(handle.wish, Offer):
                    self._offer(handle, handle.wish.document)
                else:
                    return
        except StopIteration as end:
            handle.finish(end.value)
        except Exception as error:
            handle.finish(error=error)

    def _offer(self, handle: Handle, document: Document) -> None:
        assert self._session is not None
        row = handle.rows[0]
        content = DocumentContent.of(document, int(self._session.lengths[row]))
        self.prefixes.keep(content, self._session, row)

    def _leave(self) -> None:
        """Let go of what is done; rows that nobody owns go along until they are as many as the others."""
        self._active = [handle for handle in self._active if not handle.done]
        owned = sum(len(handle.rows) for handle in self._active)
        if self._session is not None and 2 * owned <= len(self._session):
            self._tidy()

    def _tidy(self) -> None:
        """Take rows that nobody owns out of the session."""
        handles = [handle for handle in self._active if not handle.done]
        owned = [row for handle in handles for row in handle.rows]
        if self._session is None or len(owned) == len(self._session):
            return
        if owned:
            self._session.select(owned)
        else:
            self._session = None
        first = 0
        for handle in handles:
            handle.rows = list(range(first, first + len(handle.rows)))
            first += len(handle.rows)

    def _interrupted(self) -> None:
        """Have every request begin again."""
        self._session = None
        for handle in self._active:
            if handle.steps is not None:
                handle.steps.close()
            handle.steps, handle.wish, handle.rows = None, None, []


def _contents(handle: Handle) -> list[DocumentContent]:
    """Of the documents that a request wants read; worked out once, however many ticks it waits."""
    if handle.contents is None:
        handle.contents = [DocumentContent.of(each) for each in handle.wish.documents]  # type: ignore[union-attr]
    return handle.contents
