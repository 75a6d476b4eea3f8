"""A worker: requests from an event loop, a model in a thread of its own."""

import asyncio

import pytest

from chiasm.data.documents import document
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError
from chiasm.inference.answers import Answers
from chiasm.serving.worker import Full, Stopped, Worker


@pytest.fixture
def worker(tiny_model):
    worker = Worker(tiny_model[0], most=2)
    yield worker
    worker.stop()


def request(model, tokens=4):
    sample = Sample("a question", (Message("user", ("What is this?",)),))
    return Answers(model, [document(model.contract, sample, prompt=True)], tokens=tokens)


def test_a_result_comes_back(worker):
    async def ask():
        return await worker.submit(request(worker.model)).result()

    (answer,) = asyncio.run(ask())
    assert isinstance(answer, str)
    assert worker.pending == 0


def test_one_more_than_may_wait_is_refused_and_a_cancelled_one_makes_room(worker):
    async def ask():
        tickets = [worker.submit(request(worker.model, 200)) for _ in range(2)]
        with pytest.raises(Full):
            worker.submit(request(worker.model))
        worker.cancel(tickets[0])
        with pytest.raises(ChiasmError, match="cancelled"):
            await tickets[0].result()
        return await worker.submit(request(worker.model)).result()

    assert asyncio.run(ask())


def test_the_engines_own_fault_fails_requests_and_not_the_worker(worker, monkeypatch):
    async def ask():
        return await worker.submit(request(worker.model)).result()

    with monkeypatch.context() as patched:
        patched.setattr(worker._engine, "tick", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(ask())
    assert asyncio.run(ask())


def test_who_waits_when_it_stops_is_told(tiny_model):
    worker = Worker(tiny_model[0])

    async def ask():
        ticket = worker.submit(request(worker.model, 200))
        await asyncio.get_running_loop().run_in_executor(None, worker.stop)
        with pytest.raises(Stopped):
            await ticket.result()
        with pytest.raises(Stopped):
            worker.submit(request(worker.model))

    asyncio.run(ask())
