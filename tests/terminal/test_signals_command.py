"""Modalities beside text and images on the command line: files of numbers in and out."""

import sys

import numpy as np
import pytest

from chiasm.cli import main
from chiasm.model.checkpoint import load_model, save_model
from chiasm.recipe import load_recipe
from levels import Level, levels_model

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    save_model(levels_model(tiny), load_recipe(tiny), tmp_path / "run")
    np.save(tmp_path / "loud.npy", np.array([0.5, 1.0]))
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["chiasm", *arguments])
        main()

    return command


HEARD = [{"role": "user", "content": [Level(0.5, 1.0), "how loud is it ?"]}]


def test_a_signal_is_written_into_a_file(run, capsys):
    for number in (1, 2):
        run("synthesise", "run", "levels", "how loud is it ?", "--signal", "levels=loud.npy")
        assert capsys.readouterr().out.strip() == f"drawn/levels-00{number}.npy"
    numbers = np.load("drawn/levels-001.npy", allow_pickle=False)
    assert np.array_equal(numbers, load_model("run").synthesise("levels", HEARD))


def test_a_signal_is_heard_in_chat(run, capsys):
    run("chat", "run", "-m", "how loud is it ?", "--signal", "levels=loud.npy", "--tokens", "3")
    assert load_model("run").chat(HEARD, tokens=3).text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("chat", "run", "-m", "a", "--signal", "loud.npy"), "signal: 'loud.npy' must be MODALITY=FILE.npy"),
        (("chat", "run", "-m", "a", "--signal", "sound=loud.npy"), "this model's are: levels"),
        (("chat", "run", "-m", "a", "--signal", "levels=none.npy"), "there is no signal at none.npy"),
        (
            ("synthesise", "run", "levels", "is <image> loud ?"),
            "the message has 1 <image> markers but 0 images",
        ),
        (("synthesise", "run", "levels", "is none.png loud ?"), "there is no picture at none.png"),
        (("synthesise", "run", "sound", "a"), "this model has no modality 'sound'; it has: levels"),
    ],
)
def test_what_is_wrong_is_a_sentence(run, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 1
    assert sentence in " ".join(capsys.readouterr().err.split())
