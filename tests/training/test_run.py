"""The folder of a run: what is written down of it, when it counts as finished, and who may train in it."""

import json
import subprocess
import sys

import pytest
import torch
from toy import toy

from chiasm.distribution.processes import Ranks
from chiasm.errors import CheckpointError, ChiasmError, RecipeError
from chiasm.recipe import load_recipe
from chiasm.recipe.checkpoints import FILES
from chiasm.storage.integrity import seal
from chiasm.training import run as run_module
from chiasm.training.run import Run, command, versions

CPU = torch.device("cpu")


class Second(Ranks):
    """The second of two ranks, which waits for nobody here."""

    def __init__(self):
        super().__init__(1, 2)

    def wait(self):
        pass


def record(folder):
    return json.loads((folder / "run.json").read_text())


def begin(folder, recipe=None, data=None):
    """Start a run, as far as its folder goes, and leave it."""
    with Run(folder, recipe or toy(), Ranks()) as run:
        run.started(data or {"a": "one"}, {}, CPU)
    (folder / "metrics.jsonl").write_text("{}\n")
    return run


def end(folder, run):
    final = folder / "final"
    final.mkdir()
    for name in FILES:
        (final / name).write_text(name)
    seal(final)
    run.ended()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Each look at the clock shows another time."""
    ticks = iter(range(1000))
    monkeypatch.setattr(run_module, "_now", lambda: f"t{next(ticks):03}")


@pytest.mark.parametrize(
    ("arguments", "typed"),
    [
        (["/usr/bin/chiasm", "train", "my recipe", "seed=1"], "chiasm train 'my recipe' seed=1"),
        (["scripts/mine.py", "--fast"], "python scripts/mine.py --fast"),
        (["-c", "x"], "python -c ... x"),
        (["", "x"], "python -c ... x"),
        ([], "python -c ..."),
        (["/usr/bin/chiasm", "train", "a\udcff"], "chiasm train 'a\\udcff'"),  # a byte that is no text
    ],
)
def test_the_command_is_told_as_one_would_type_it(monkeypatch, arguments, typed):
    monkeypatch.setattr(sys, "argv", arguments)
    assert command() == typed


def test_what_a_run_is_made_of_is_written_when_it_begins_and_again_when_it_goes_on(tmp_path):
    begin(tmp_path)
    first = record(tmp_path)
    assert first["data"] == {"a": "one"}
    assert first["data_changes"] == []
    assert (first["seed"], first["finished"], first["command"]) == (0, None, command())
    assert first["versions"] == versions()
    assert first["machine"]["processes"] == 1
    assert first["machine"]["threads"] == torch.get_num_threads()
    assert first["machine"]["device"] == "cpu"
    assert first["machine"]["cpu"]
    assert first["machine"]["cores"] >= 1
    assert len(first["sessions"]) == 1
    begin(tmp_path)
    second = record(tmp_path)
    assert second["started"] == first["started"] < second["sessions"][1]
    assert second["sessions"][0] == first["sessions"][0]
    assert second["data_changes"] == []
    assert load_recipe(tmp_path / "recipe.yaml") == toy()


def test_what_the_data_became_is_noted_once_for_each_change(tmp_path):
    for data in ("one", "two", "two", "one", "one"):
        begin(tmp_path, data={"a": data})
    assert record(tmp_path)["data"] == {"a": "one"}
    assert [each["data"]["a"] for each in record(tmp_path)["data_changes"]] == ["two", "one"]


def test_data_is_compared_with_what_was_trained_on_last(tmp_path):
    run = begin(tmp_path, data={"a": "one", "b": "same"})
    run.check_data({"a": "one", "b": "same"}, {}, meant=False)
    run.check_data({"new": "x"}, {}, meant=False)
    with pytest.raises(RecipeError, match=r"on other data: a has changed since .*--other-data"):
        run.check_data({"a": "two", "b": "same"}, {}, meant=False)
    run.check_data({"a": "two", "b": "same"}, {}, meant=True)
    begin(tmp_path, data={"a": "two", "b": "same"})
    run.check_data({"a": "two", "b": "same"}, {}, meant=False)
    with pytest.raises(RecipeError, match="a, b has changed"):
        run.check_data({"a": "one", "b": "other"}, {}, meant=False)
    (tmp_path / "run.json").unlink()
    run.check_data({"a": "one"}, {}, meant=False)


def test_a_run_is_finished_when_its_model_is_whole_and_its_record_says_so(tmp_path):
    run, said = begin(tmp_path), []
    assert not run.finished(said.append)
    end(tmp_path, run)
    assert record(tmp_path)["finished"]
    assert run.finished(said.append)
    run.more_steps = True
    assert not run.finished(said.append)
    run.more_steps = False
    run.note(finished=None, more=3)
    assert record(tmp_path)["more"] == 3
    assert not run.finished(said.append)
    run.ended()
    for name in FILES:
        kept = (tmp_path / "final" / name).rename(tmp_path / "kept")
        assert not run.finished(said.append)
        kept.rename(tmp_path / "final" / name)
    assert said == []
    (tmp_path / "final" / FILES[0]).write_text("another")
    assert not run.finished(said.append)
    assert len(said) == 1
    assert said[0].endswith("it is written anew from the last checkpoint")


@pytest.mark.parametrize("trace", ["metrics.jsonl", "final", "checkpoints/s-000001"])
def test_what_a_start_that_failed_left_is_replaced_and_what_has_begun_is_not(tmp_path, trace):
    run = Run(tmp_path, toy(), Ranks())
    assert not run.begun
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.json").write_text("{}")
    toy("seed=1").save(tmp_path / "recipe.yaml")
    assert not run.begun
    with run:
        assert not (tmp_path / "run.json").exists()
        assert load_recipe(tmp_path / "recipe.yaml") == toy()
    if trace == "metrics.jsonl":
        (tmp_path / trace).write_text("{}\n")
    else:
        (tmp_path / trace).mkdir(parents=True)
    assert run.begun
    with (
        pytest.raises(RecipeError, match=r"another recipe: it differs in seed;"),
        Run(tmp_path, toy("seed=1"), Ranks()),
    ):
        pass
    (tmp_path / "recipe.yaml").write_text("{")
    with (
        pytest.raises(RecipeError, match=r"(?s)cannot be read: .*the checkpoints have it too"),
        Run(tmp_path, toy(), Ranks()),
    ):
        pass
    (tmp_path / "recipe.yaml").unlink()
    with Run(tmp_path, toy(), Ranks()):  # after each refusal the folder can be claimed again
        assert load_recipe(tmp_path / "recipe.yaml") == toy()


def test_more_steps_of_the_last_stage_are_taken_up_and_the_recipe_stays_until_they_begin(tmp_path):
    begin(tmp_path)
    with Run(tmp_path, toy("stages.learn.steps=99"), Ranks()) as run:
        assert run.more_steps
        assert load_recipe(tmp_path / "recipe.yaml") == toy()
        run.started({"a": "one"}, {}, CPU)
        assert load_recipe(tmp_path / "recipe.yaml") == toy("stages.learn.steps=99")
    with Run(tmp_path, toy("stages.learn.steps=99", "checkpoints.keep=5"), Ranks()) as run:
        assert not run.more_steps
        assert load_recipe(tmp_path / "recipe.yaml").checkpoints.keep == 2
        run.started({"a": "one"}, {}, CPU)
        assert load_recipe(tmp_path / "recipe.yaml").checkpoints.keep == 5


def test_half_written_folders_are_cleared_away(tmp_path):
    for folder in (tmp_path, tmp_path / "checkpoints"):
        (folder / ".x.draft").mkdir(parents=True)
    with Run(tmp_path, toy(), Ranks()):
        assert not (tmp_path / ".x.draft").exists()
        assert not (tmp_path / "checkpoints" / ".x.draft").exists()


def test_one_process_trains_in_a_folder_and_its_end_frees_it(tmp_path):
    with (
        Run(tmp_path, toy(), Ranks()),
        pytest.raises(ChiasmError, match=r"another process is training in .*; choose another folder"),
        Run(tmp_path, toy(), Ranks()),
    ):
        pass
    with Run(tmp_path, toy(), Ranks()) as run:
        assert run._lock is not None
    assert run._lock is None
    run.__exit__()


def test_the_second_rank_claims_and_writes_nothing(tmp_path):
    with Run(tmp_path, toy(), Ranks()) as first, Run(tmp_path, toy(), Second()) as second:
        before = sorted(path.name for path in tmp_path.iterdir())
        second.started({"a": "one"}, {}, CPU), second.note(x=1), second.ended()
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        (tmp_path / "run.json").write_text("{}")
        second._compare()
        assert (tmp_path / "run.json").exists()
        first._compare()
        assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        '{"held_out": []}',
        '{"data": []}',
        '{"sessions": {}}',
        '{"data_changes": {}}',
        '{"data_changes": [{}]}',
    ],
)
def test_a_record_of_another_shape_is_said(tmp_path, content):
    run = begin(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json is not the record of a run"):
        run.check_data({}, {}, meant=False)


def test_versions_are_those_of_what_is_installed(monkeypatch):
    assert {"python", "chiasm", "torch", "numpy"} <= versions().keys()
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]

    def missing(package):
        if package == "torch":
            raise run_module.metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(run_module.metadata, "version", missing)
    assert "torch" not in versions()
    assert versions()["pillow"] == "1"


def test_the_commit_is_that_of_the_working_folder_if_it_has_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_module._commit() is None
    subprocess.run(["git", "init", "-q"], check=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert run_module._commit() == head.stdout.strip()
    monkeypatch.setenv("PATH", "")
    assert run_module._commit() is None


@pytest.mark.parametrize("name", ["a\udcff", "a\0b"])
def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_written(tmp_path, name):
    folder = tmp_path / name
    with pytest.raises(ChiasmError, match=r"the run's folder .* has bytes that are no text; choose another"):
        Run(folder, toy(), Ranks())
    assert list(tmp_path.iterdir()) == []
