"""What the shell proposes."""

import os
import subprocess
import sys

import pytest


def proposed(typed, word, folder):
    code = "import sys; sys.argv = ['chiasm']\nfrom chiasm.cli import main\nmain()"
    environment = {
        **os.environ,
        "_CHIASM_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(word),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=folder
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "word", "expected"),
    [
        ("chiasm quickst", 1, ["quickstart"]),
        ("chiasm train quick", 2, ["quickstart", "quick-mine.yaml"]),
        ("chiasm parts conn", 2, ["connector"]),
        ("chiasm edit --ma", 2, ["--mask"]),
        ("chiasm serve runs/", 2, ["runs/first/", "runs/second/"]),
        ("chiasm serve old=runs/f", 2, ["old=runs/first/"]),
        ("chiasm serve old=other/lr=1/", 2, ["old=other/lr=1/third/"]),
    ],
)
def test_commands_options_recipes_and_slots_are_proposed(tmp_path, typed, word, expected):
    (tmp_path / "quick-mine.yaml").touch()
    for name in ("runs/first", "runs/second", "other/lr=1/third"):
        (tmp_path / name).mkdir(parents=True)
    assert proposed(typed, word, tmp_path) == expected


def test_every_study_that_comes_with_it_is_proposed(tmp_path):
    from chiasm.recipe import shipped

    assert proposed("chiasm study ", 2, tmp_path) == list(shipped("studies", "study-files"))
