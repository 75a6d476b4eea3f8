"""Pickles of a trainer: their tensors come out, and nothing in them runs."""

import io
import sys
import tarfile
import types

import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.interop import import_checkpoint
from chiasm.interop.shapes.lightning import read_arguments, read_state_dict, wrapped_as
from chiasm.storage.weights import read_tensors


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


class Program(torch.nn.Module):
    """TorchScript runs `__setstate__` as soon as it is loaded."""

    def __init__(self):
        super().__init__()
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> bool:
        return self.training

    @torch.jit.export
    def __setstate__(self, state: bool):
        self.training = state
        torch.save(torch.ones(1), "evil")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A folder of VQGAN's layout whose checkpoint is a program that writes a file `evil` when it is loaded."""
    monkeypatch.chdir(tmp_path)
    torch.jit.save(torch.jit.script(Program()), "last.ckpt")
    torch.jit.load("last.ckpt")
    (tmp_path / "evil").unlink()  # it does run
    (tmp_path / "project.yaml").write_text(
        "model: {target: taming.models.vqgan.VQModel, params: {embed_dim: 4, n_embed: 8, ddconfig: {ch: 32}}}"
    )
    return tmp_path


@pytest.mark.parametrize("name", ["last.ckpt", "last.pt", "last.bin", "last.pth"])
@pytest.mark.parametrize(
    "read", [read_state_dict, lambda path: read_arguments(path, "args"), wrapped_as, read_tensors]
)
def test_a_program_is_refused_and_does_not_run(program, name, read):
    (program / "last.ckpt").rename(program / name)
    with pytest.raises(CheckpointError, match=rf"{name}.*(?i:torchscript)"):
        read(program / name)
    assert not (program / "evil").exists()


def test_a_program_in_the_place_of_a_checkpoint_is_not_imported(program):
    with pytest.raises(CheckpointError, match=r"last\.ckpt is a program \(TorchScript\)"):
        import_checkpoint(program, program / "ours")
    assert not (program / "evil").exists()


def test_a_tar_archive_is_refused_before_it_is_unpacked(tmp_path):
    link = tarfile.TarInfo("storages")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "x.ckpt", "w") as archive:
        archive.addfile(link, io.BytesIO())
    with pytest.raises(CheckpointError, match=r"x\.ckpt is a tar archive"):
        read_state_dict(tmp_path / "x.ckpt")


def test_files_from_before_torch_wrote_zips_are_read(tmp_path):
    torch.save(
        {"state_dict": {"a": torch.arange(3)}}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=False
    )
    assert read_state_dict(tmp_path / "x.ckpt")["a"].tolist() == [0, 1, 2]
