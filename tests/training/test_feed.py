"""Batches made in turn or ahead: how many processes, and what becomes of them."""

import io
import os
import signal
import time
from collections import namedtuple

import pytest
import torch
from rich.console import Console
from toy import toy

from chiasm.errors import ChiasmError, DataError
from chiasm.training import feed as feeds
from chiasm.training import train
from chiasm.training.feed import Feed, usual_workers
from chiasm.training.loop import Interrupted, Training
from chiasm.training.metrics import read_metrics


class Slow:
    """Batches 1, 2, 3 ... of which each takes a while to fill."""

    def __init__(self, seconds=0.0, last=10**9):
        self.count, self.filled, self.seconds, self.last = 0, 0, seconds, last

    def pack(self):
        if self.count == self.last:
            raise DataError("no more", "end")
        self.count += 1
        return self.count

    def fill(self, packed):
        time.sleep(self.seconds)
        self.filled += 1
        return packed, os.getpid(), self.filled

    def state(self):
        return {"count": self.count}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_each_batch_comes_with_the_position_behind_it_and_the_time_that_was_waited(workers):
    with Feed(Slow(0.02, last=4), workers) as feed:
        found = [feed.take() for _ in range(4)]
        assert [(each.batch[0], each.state["count"]) for each in found] == [(i, i) for i in range(1, 5)]
        assert all(each.waited >= (0 if workers else 0.02) for each in found)  # `Slow` sleeps
        with pytest.raises(DataError, match=r"^no more$") as error:
            feed.take()
        assert error.value.kind == "end"


def test_a_batch_is_made_here_when_it_is_taken_or_by_turns_in_the_workers_each_of_which_fills_its_own():
    slow = Slow()
    with Feed(slow) as feed:
        assert [feed.take().batch for _ in range(2)] == [(1, os.getpid(), 1), (2, os.getpid(), 2)]
    assert (slow.count, slow.filled) == (2, 2)
    with Feed(Slow(), 2) as feed:
        made = [feed.take().batch for _ in range(6)]
    assert [packed for packed, *_ in made] == [1, 2, 3, 4, 5, 6]
    assert [filled for *_, filled in made] == [1, 1, 2, 2, 3, 3]
    processes = [process for _, process, _ in made]
    assert len(set(processes)) == 2
    assert processes == processes[:2] * 3


def test_batches_are_made_ahead_only_so_far_and_waiting_ones_hold_up_no_end(tmp_path):
    record = tmp_path / "filled"

    class Recorded(Slow):
        def fill(self, packed):
            with record.open("a") as file:
                file.write("x")
            return super().fill(packed)

    with Feed(Recorded(), 2) as feed:
        process = feed.take().batch[1]
        deadline = time.monotonic() + 60
        while record.stat().st_size < 5 and time.monotonic() < deadline:  # one taken, two ahead in each
            time.sleep(0.01)
        time.sleep(0.05)
        assert record.stat().st_size == 5
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_worker_leaves_interruptions_to_the_process_that_trains_and_ends_with_it():
    with Feed(Slow(), 1) as feed:
        worker = feed.take().batch[1]
        for each in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker, each)
        assert [feed.take().batch[:2] for _ in range(4)] == [(i, worker) for i in range(2, 6)]
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_worker_that_is_killed_is_a_sentence():
    def kill():
        with Feed(Slow(), 1) as feed:
            os.kill(feed.take().batch[1], signal.SIGKILL)
            while True:
                feed.take()

    with pytest.raises(ChiasmError, match=r"a process that makes batches has ended: .* With workers=0"):
        kill()


def test_a_run_is_the_same_bit_for_bit_with_any_number_of_workers_and_goes_on_with_another(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("CHIASM_CACHE", str(tmp_path / "cache"))
    recipe = toy("stages.codes.steps=3", "stages.learn.steps=4", "checkpoints.every=1")
    quiet = Console(file=io.StringIO())
    whole = train(recipe, tmp_path / "whole", console=quiet, workers=0)
    whole_step = Training._step

    def step(self, *arguments):
        if self.position.total == 5:
            raise KeyboardInterrupt
        whole_step(self, *arguments)

    monkeypatch.setattr(Training, "_step", step)
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "parts", console=quiet, workers=2)
    monkeypatch.setattr(Training, "_step", whole_step)
    parts = train(recipe, tmp_path / "parts", console=quiet, workers=1)
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (whole, parts)]
    assert weights[0] == weights[1]
    lines = [
        [{k: v for k, v in line.items() if k not in ("seconds", "waited")} for line in read_metrics(folder)]
        for folder in (whole, parts)
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 7


@pytest.mark.parametrize("workers", [-1, 257])
def test_a_number_of_workers_that_cannot_be_is_refused(workers, tmp_path):
    with pytest.raises(ChiasmError, match=f"a number of processes, 0 to 256, not {workers}"):
        train(toy(), tmp_path / "run", workers=workers)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("device", "cores", "local", "skips", "room", "forks", "expected"),
    [
        ("cpu", 64, "1", False, 2 << 30, True, 0),
        ("cuda", 2, "1", False, 2 << 30, True, 1),
        ("cuda", 1, "1", False, 2 << 30, True, 1),
        ("cuda", 6, "1", False, 2 << 30, True, 5),
        ("cuda", 64, "1", False, 2 << 30, True, 8),
        ("cuda", 32, "8", False, 2 << 30, True, 3),
        ("cuda", 64, "1", True, 2 << 30, True, 1),
        ("cuda", 64, "1", False, 64 << 20, True, 0),
        ("mps", 8, "1", False, 2 << 30, False, 0),
    ],
)
def test_how_many_workers_are_usual(
    device, cores, local, skips, room, forks, expected, monkeypatch, tmp_path
):
    monkeypatch.setattr(feeds, "_FORKS", forks)
    monkeypatch.setattr(feeds, "_SHARED", tmp_path)
    monkeypatch.setattr(feeds.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(feeds.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(room))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    assert usual_workers(torch.device(device), skips=skips) == expected
