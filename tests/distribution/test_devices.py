"""The one place that decides where a model runs."""

import pytest
import torch

from chiasm.distribution import devices
from chiasm.distribution.devices import choose_device, choose_dtype
from chiasm.errors import ChiasmError


def having(monkeypatch, **counts):
    monkeypatch.setattr(devices, "count", lambda kind: {"cpu": 1, **counts}.get(kind, 0))


@pytest.mark.parametrize(
    ("counts", "fastest"),
    [({"cuda": 2, "mps": 1}, "cuda:0"), ({"cuda": 1}, "cuda:0"), ({"mps": 1}, "mps"), ({}, "cpu")],
)
def test_by_default_the_fastest_device_is_chosen(monkeypatch, counts, fastest):
    having(monkeypatch, **counts)
    assert str(choose_device()) == fastest


def test_a_device_that_is_asked_for_is_taken(monkeypatch):
    having(monkeypatch, cuda=2, mps=1)
    assert [str(choose_device(each)) for each in ("cpu", "mps", "cuda", "cuda:1", torch.device("cuda", 1))] == [
        "cpu", "mps", "cuda:0", "cuda:1", "cuda:1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wanted", ["gpu", "cuda:", "cuda:x", "CUDA", "cuda:-1", "", "meta", "cpu\n", 0, True, ["cpu"]]
)
def test_what_is_no_device_is_named(wanted):
    with pytest.raises(ChiasmError, match=r"^device: .* it must be cuda, cuda:0 \(or another\), mps or cpu$"):
        choose_device(wanted)


def test_a_device_that_is_not_there_is_named(monkeypatch):
    having(monkeypatch)
    with pytest.raises(ChiasmError, match=r"device: there is no mps on this machine, .* there is cpu"):
        choose_device("mps")
    having(monkeypatch, cuda=2)
    with pytest.raises(ChiasmError, match="device: there is no cuda:2; this machine has cuda:0 to cuda:1"):
        choose_device("cuda:2")


def test_numbers_are_chosen_by_name_or_as_torch_calls_them():
    assert choose_dtype() is None
    assert choose_dtype("bf16") is choose_dtype(torch.bfloat16) is torch.bfloat16
    assert choose_dtype("fp64", torch.device("cpu")) is torch.float64


def test_numbers_that_a_device_has_not_are_refused():
    assert choose_dtype("fp32", torch.device("mps")) is torch.float32
    with pytest.raises(ChiasmError, match=r"^dtype: mps has no fp64; fp32 is the most exact that it has$"):
        choose_dtype("fp64", torch.device("mps"))


@pytest.mark.parametrize("wanted", ["x" * 100_000, [0.5] * 1000, 10**5000], ids=type)
def test_what_is_no_device_and_no_numbers_is_quoted_in_short(wanted):
    for choose in (choose_device, choose_dtype):
        with pytest.raises(ChiasmError) as caught:
            choose(wanted)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("wanted", ["float32", "fp8", torch.int64, torch.float8_e5m2, 16, ""])
def test_what_are_no_numbers_is_named(wanted):
    with pytest.raises(ChiasmError, match=r"^dtype: .* it must be fp32 or bf16 or fp16 or fp64$"):
        choose_dtype(wanted)
