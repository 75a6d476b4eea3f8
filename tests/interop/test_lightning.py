"""Pickles of a trainer: their tensors come out, and nothing in them runs."""

import sys
import types

import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.interop.lightning import read_state_dict


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch evil",)


def test_tensors_are_read_beside_classes_that_do_not_exist_here(tmp_path, monkeypatch):
    trainer = types.ModuleType("a_trainer")
    Callback = type("Callback", (), {"__module__": "a_trainer"})
    trainer.Callback = Callback
    monkeypatch.setitem(sys.modules, "a_trainer", trainer)
    state = {"a": torch.arange(3), "b": torch.nn.Parameter(torch.ones(2).half())}
    torch.save({"state_dict": state, "callbacks": {Callback: Callback()}}, tmp_path / "x.ckpt")
    monkeypatch.delitem(sys.modules, "a_trainer")
    read = read_state_dict(tmp_path / "x.ckpt")
    assert torch.equal(read["a"], state["a"])
    assert torch.equal(read["b"], state["b"])
    assert read["b"].dtype == torch.float16


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Evil()}, "x.ckpt")
    assert read_state_dict(tmp_path / "x.ckpt").keys() == {"a"}
    assert not (tmp_path / "evil").exists()


def test_a_half_downloaded_file_is_named(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1000)}}, tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").write_bytes((tmp_path / "x.ckpt").read_bytes()[:-500])
    with pytest.raises(CheckpointError, match=r"x\.ckpt cannot be read as a checkpoint"):
        read_state_dict(tmp_path / "x.ckpt")
