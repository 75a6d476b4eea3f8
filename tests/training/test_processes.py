"""Two processes are one process that has all of their documents; a rank without a picture holds nobody up."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import toy
from two_ranks import RECIPE, union

from chiasm.distribution import processes as distribution
from chiasm.distribution.processes import Ranks, _buckets
from chiasm.training import train

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The folder in which two ranks of one torchrun have done what `two_ranks.py` says."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, "-m", *torchrun, str(HERE / "two_ranks.py"), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_two_ranks_of_which_one_has_only_words_equal_one_process(launched, tmp_path):
    union(tmp_path, Ranks())
    one = load_file(tmp_path / "rank0of1.safetensors")
    two = [load_file(launched / f"rank{rank}of2.safetensors") for rank in (0, 1)]
    for name, value in one.items():
        assert torch.equal(two[0][name], two[1][name]), name
        torch.testing.assert_close(two[0][name], value, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.slow
def test_a_whole_run_on_two_ranks_ends_and_is_kept_once(launched):
    assert (launched / "run" / "final" / "model.safetensors").is_file()
    # One process now finds it finished.
    assert train(toy(*RECIPE), launched / "run") == launched / "run"


class Meeting:
    """Stands in for torch.distributed: ranks are threads that wait for one another at every call."""

    def __init__(self, world):
        self.world, self.brought, self.calls, self.begun = world, {}, [], None
        self.own, self.barrier_of_threads = threading.local(), threading.Barrier(world, timeout=120)

    def _exchange(self, call, value):
        self.brought[self.own.rank] = value
        self.barrier_of_threads.wait()
        values = [self.brought[rank] for rank in range(self.world)]
        self.barrier_of_threads.wait()
        if self.own.rank == 0:
            self.calls.append(call)
        return values

    def all_reduce(self, tensor):
        tensor.copy_(sum(self._exchange("all_reduce", tensor.clone())))

    def all_gather_object(self, values, value):
        values[:] = self._exchange("all_gather_object", value)

    def broadcast(self, tensor, source):
        tensor.copy_(self._exchange("broadcast", tensor.clone())[source])

    def barrier(self):
        self._exchange("barrier", None)

    def is_initialized(self):
        return self.begun is not None

    def init_process_group(self, backend):
        self.begun = backend

    def destroy_process_group(self):
        assert self.begun is not None
        self.begun = None

    def get_rank(self):
        return 1


def on_two_ranks(monkeypatch, do):
    """What `do(ranks)` returns on each of two ranks, and the calls that it took."""
    meeting, results = Meeting(2), [None, None]
    monkeypatch.setattr(distribution, "dist", meeting)

    def run(rank):
        meeting.own.rank = rank
        results[rank] = do(Ranks(rank, 2))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, meeting.calls


def parameter(*shape, gradient=None, dtype=torch.float32):
    made = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
    if gradient is not None:
        made.grad = torch.full(shape, gradient, dtype=dtype)
    return made


def test_gradients_are_added_up_and_what_nobody_touched_keeps_none(monkeypatch):
    monkeypatch.setattr(distribution, "_BUCKET_ELEMENTS", 8)

    def do(ranks):
        own = 1.0 if ranks.first else 10.0
        parameters = [
            parameter(2, 3, gradient=own),
            parameter(2, gradient=None if ranks.first else own),
            parameter(3),
            parameter(4, gradient=2 * own if ranks.first else None),
            parameter(1, gradient=own, dtype=torch.float64),
        ]
        ranks.sum_gradients(parameters)
        return [each.grad for each in parameters]

    results, calls = on_two_ranks(monkeypatch, do)
    for gradients in results:
        expected = [((2, 3), 11.0), ((2,), 10.0), None, ((4,), 2.0), ((1,), 11.0)]
        for gradient, each in zip(gradients, expected, strict=True):
            assert (gradient is None) == (each is None)
            if each is not None:
                assert torch.equal(gradient, torch.full(each[0], each[1], dtype=gradient.dtype))
    assert gradients[4].dtype == torch.float64
    assert len(calls) == 1 + 3  # who touched what; 6 + 2 elements, 4, and those of the other type


def test_buckets_hold_parameters_of_one_type_up_to_their_size(monkeypatch):
    monkeypatch.setattr(distribution, "_BUCKET_ELEMENTS", 6)
    sizes = [3, 3, 1, 9, 5, 2]
    made = [parameter(size) for size in sizes] + [parameter(2, dtype=torch.float64)]
    buckets = _buckets(made)
    assert [[p.numel() for p in bucket] for bucket in buckets] == [[3, 3], [1], [9], [5], [2], [2]]
    assert [p for bucket in buckets for p in bucket] == made
    assert _buckets([]) == []


def test_what_ranks_report_is_gathered_in_their_order_and_added_up_by_name(monkeypatch):
    def do(ranks):
        own = {"both": 1.0, "first": 2.0} if ranks.first else {"both": 4.0, "second": 8.0}
        ranks.wait()
        return ranks.gather(ranks.rank), ranks.totals(own), ranks.any(not ranks.first), ranks.any(False)

    results, calls = on_two_ranks(monkeypatch, do)
    assert results == [([0, 1], {"both": 5.0, "first": 2.0, "second": 8.0}, True, False)] * 2
    assert calls == ["barrier", *["all_gather_object"] * 4]


def test_tensors_are_shared_as_the_first_rank_has_them(monkeypatch):
    def do(ranks):
        tensors = [torch.full((2,), float(ranks.rank)), torch.full((3,), 5.0 + ranks.rank)]
        ranks.share(tensors)
        return [each.tolist() for each in tensors]

    assert on_two_ranks(monkeypatch, do)[0] == [[[0.0, 0.0], [5.0, 5.0, 5.0]]] * 2


def test_one_process_asks_nobody(monkeypatch):
    monkeypatch.setattr(distribution, "dist", None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks.start(torch.device("cpu"))
    assert ranks == Ranks(0, 1, torch.device("cpu")) == Ranks()
    assert ranks.first
    weight, tensor = parameter(2, gradient=3.0), torch.ones(1)
    ranks.wait(), ranks.share([tensor]), ranks.sum_gradients([weight]), ranks.stop()
    assert (weight.grad.tolist(), tensor.tolist()) == ([3.0, 3.0], [1.0])
    assert ranks.gather("own") == ["own"]
    assert ranks.totals({"a": 2.0}) == {"a": 2.0}
    assert (ranks.any(True), ranks.any(False)) == (True, False)


@pytest.mark.parametrize("card", [False, True])
def test_the_processes_of_torchrun_are_joined_once_each_with_a_card_of_its_own(monkeypatch, card):
    meeting, cards = Meeting(1), []
    monkeypatch.setattr(distribution, "dist", meeting)
    monkeypatch.setattr(distribution, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", cards.append)
    for name, value in (("WORLD_SIZE", "3"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    device, own = (torch.device(name) for name in (("cuda", "cuda:2") if card else ("cpu", "cpu")))
    ranks = Ranks.start(device)
    assert ranks == Ranks(1, 3, own)
    assert not ranks.first
    assert meeting.begun == ("nccl" if card else "gloo")
    assert cards == ([own] if card else [])
    meeting.begun = "before"
    assert Ranks.start(device) == ranks
    assert meeting.begun == "before"
    ranks.stop()
    assert meeting.begun is None
    ranks.stop()


def test_a_card_is_taken_by_one_process_too(monkeypatch):
    cards = []
    monkeypatch.setattr(torch.cuda, "set_device", cards.append)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Ranks.start(torch.device("cuda:1")) == Ranks(device=torch.device("cuda:1"))
    assert cards == [torch.device("cuda:1")]
