"""A run's folder of which a file lies: it goes on bit for bit, or says in a sentence what is wrong."""

import shutil

import pytest
from rich.console import Console
from toy import toy

import chiasm
from chiasm.errors import ChiasmError
from chiasm.recipe.checkpoints import training_checkpoints
from chiasm.training import train
from chiasm.training.loop import Training

RECIPE = ("stages.codes.steps=2", "stages.learn.steps=4", "checkpoints.every=2", "checkpoints.keep=3")


def quiet():
    return Console(quiet=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A whole run, and one that was stopped in its last stage with two checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    train(toy(*RECIPE), folder / "whole", console=quiet())
    count = Training._count

    def counted(self, *rest):
        count(self, *rest)
        if self.position.total == 5:
            raise RuntimeError("killed")

    Training._count = counted
    try:
        with pytest.raises(RuntimeError):
            train(toy(*RECIPE), folder / "stopped", console=quiet())
    finally:
        Training._count = count
    return folder


def weights(run):
    return (run / "final" / "model.safetensors").read_bytes()


def flip(path):
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) * 3 // 4] ^= 4
    path.write_bytes(content)


def become_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "of another type": lambda path: path.write_text("[1, 2]\n"),
    "missing": lambda path: path.unlink(),
    "a flipped bit": flip,
    "a folder": become_a_folder,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_survived_or_said(runs, tmp_path, damage):
    """Every file of the newest checkpoint falls back to the one before; elsewhere a sentence will do."""
    newest = training_checkpoints(runs / "stopped")[-1].relative_to(runs / "stopped")
    files = [path.relative_to(runs / "stopped") for path in (runs / "stopped").rglob("*") if path.is_file()]
    for i, file in enumerate(sorted(each for each in files if "tensorboard" not in each.parts)):
        run = tmp_path / str(i)
        shutil.copytree(runs / "stopped", run)
        DAMAGES[damage](run / file)
        said = None
        try:
            train(toy(*RECIPE), run, console=quiet())
        except ChiasmError as error:
            said = error
        if said is None:
            assert weights(run) == weights(runs / "whole"), file
        assert said is None or newest not in file.parents, f"{file}: {said}"
        shutil.rmtree(run)


def test_a_flipped_bit_in_the_newest_weights_is_noticed_and_said(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "stopped", run)
    newest = training_checkpoints(run)[-1]
    flip(newest / "model.safetensors")
    with pytest.raises(ChiasmError, match=r"model\.safetensors is not as it was written|not finite"):
        chiasm.load(newest, "cpu")
    console = Console(record=True, width=400, file=open("/dev/null", "w"))  # noqa: SIM115
    train(toy(*RECIPE), run, console=console)
    assert "is not as it was written: the file is damaged or was changed" in (text := console.export_text())
    assert "going on from codes-000002 instead" in text
    assert weights(run) == weights(runs / "whole")


def test_a_finished_model_that_is_damaged_is_written_anew(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "whole", run)
    flip(run / "final" / "model.safetensors")
    train(toy(*RECIPE), run, console=quiet())
    assert weights(run) == weights(runs / "whole")


def test_frozen_weights_that_are_gone_are_said(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "stopped", run)
    checkpoint = shutil.copytree(
        training_checkpoints(run)[-1], tmp_path / "elsewhere" / "checkpoints" / "one"
    )
    model = chiasm.load(checkpoint, "cpu")  # the run that it came from still has them
    assert model.encoder is not None
    shutil.rmtree(run)
    shutil.rmtree(runs / "stopped" / "frozen")
    with pytest.raises(ChiasmError, match=r"by reference, but .* is missing"):
        chiasm.load(checkpoint, "cpu")
