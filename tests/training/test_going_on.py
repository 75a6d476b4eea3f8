"""A run that is taken up again: other data, more steps, a start that failed, a disk that fails."""

import errno
import json
import os
import shutil
import sys
from datetime import datetime

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from toy import Squares, raw, toy

import chiasm
from chiasm.distribution.processes import Ranks
from chiasm.errors import CheckpointError, ChiasmError, DataError, RecipeError
from chiasm.language.text import TextTokenizer
from chiasm.model.checkpoint import load_model
from chiasm.recipe.checkpoints import training_checkpoints
from chiasm.training import run as run_module
from chiasm.training import train
from chiasm.training.loop import Interrupted
from chiasm.training.metrics import Metrics, read_metrics
from chiasm.training.run import Run

train_module = sys.modules["chiasm.training.train"]  # `chiasm.training.train` is the function


def short(*overrides, learn=4):
    """A rate that is the same at every step, so that a run with more steps begins as one with fewer."""
    steps = ("stages.codes.steps=2", f"stages.learn.steps={learn}", "checkpoints.every=2")
    return toy(*steps, "stages.learn.schedule=constant", "stages.learn.warmup=0", *overrides)


def run(recipe, folder, **options):
    return train(recipe, folder, console=Console(quiet=True), device="cpu", **options)


def weights(folder):
    return (folder / "final" / "model.safetensors").read_bytes()


def record(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIASM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return run(short(), tmp_path_factory.mktemp("runs") / "whole")


def of_day(monkeypatch, day):
    """The data is another, though the recipe is not."""
    monkeypatch.setattr(Squares, "fingerprint", property(lambda self: f"squares of day {day}"))


def stop_at(monkeypatch, total, error):
    """Raise `error` in the place of writing down step `total`."""
    write = Metrics.write

    def fail(self, step, line):
        if step == total:
            raise error
        write(self, step, line)

    monkeypatch.setattr(Metrics, "write", fail)


def test_other_data_is_refused_unless_it_is_meant(tmp_path, monkeypatch):
    of_day(monkeypatch, 1)
    with monkeypatch.context() as patched:
        stop_at(patched, 5, ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            run(short(), tmp_path)
    of_day(monkeypatch, 2)
    with pytest.raises(RecipeError, match=r"on other data: squares has changed .* --other-data"):
        run(short(), tmp_path)
    assert record(tmp_path)["data_changes"] == []
    run(short(), tmp_path, other_data=True)
    assert record(tmp_path)["data"] == {"squares": "squares of day 1"}
    assert [each["data"] for each in record(tmp_path)["data_changes"]] == [{"squares": "squares of day 2"}]
    assert [line["total"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    run(short(), tmp_path)  # once it was meant, it is the run's data
    of_day(monkeypatch, 1)
    with pytest.raises(RecipeError, match="on other data"):
        run(short(learn=5), tmp_path)


def test_a_finished_run_that_is_given_more_steps_is_one_that_had_them_from_the_start(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    run(short(learn=6), folder)
    assert weights(folder) == weights(run(short(learn=6), tmp_path / "long"))
    assert weights(folder) != weights(finished)
    assert record(folder)["finished"] is not None
    assert [line["total"] for line in read_metrics(folder)] == list(range(1, 9))


def held_out(folder, *, name="held", image="a.png"):
    """Overrides with which a run is measured on a file."""
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    turns = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "red"}]
    (folder / f"{name}.jsonl").write_text(json.dumps({"messages": turns, "image": image}) + "\n")
    spec = f"{{type: chat, path: {folder}/{name}.jsonl}}"
    return (f"data.{name}={spec}", f"evaluation.data={name}")


def test_other_held_out_data_is_refused_unless_it_is_meant(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "run")
    first = held_out(tmp_path)
    run(short(*first), folder)  # measured on something for the first time
    known = record(folder)["held_out"]
    recipe = (folder / "recipe.yaml").read_text()
    assert known.keys() == {"held"}
    assert "data: held" in recipe
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    file = tmp_path / "held.jsonl"
    file.write_text(file.read_text().replace("red", "blue"))
    other = held_out(tmp_path, name="other")
    for overrides in (first, other, ()):  # another file, another source, none
        with pytest.raises(RecipeError, match=r"on other data: .*(held|other) has changed .* --other-data"):
            run(short(*overrides), folder)
    with pytest.raises(DataError, match=r"there is no picture at .*none\.png"):
        run(short(*held_out(tmp_path, image="none.png")), folder, other_data=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    file.write_text(file.read_text().replace("none.png", "a.png").replace("red", "blue"))
    run(short(*first), folder, other_data=True)
    assert record(folder)["held_out"] == known
    assert record(folder)["data_changes"][-1]["held_out"] != known
    assert record(folder)["data_changes"][-1]["data"] == record(folder)["data"]
    run(short(*first), folder)  # once it was meant, it is what the run is measured on
    assert weights(folder) == weights(finished)


def test_held_out_data_that_changes_between_a_stop_and_going_on_is_refused(tmp_path, monkeypatch):
    overrides = held_out(tmp_path)
    with monkeypatch.context() as patched:
        stop_at(patched, 5, ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            run(short(*overrides), tmp_path / "run")
    file = tmp_path / "held.jsonl"
    file.write_text(file.read_text().replace("red", "blue"))
    with pytest.raises(RecipeError, match="on other data: held has changed"):
        run(short(*overrides), tmp_path / "run")
    run(short(*overrides), tmp_path / "run", other_data=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {}}, "stage 'codes' trains nothing; name a slot and its learning rate above 0"),
        ({"train": {"image_tokenizer": 0}}, "stage 'codes' trains nothing"),
        ({"data": {}}, "stage 'codes' has no data; name a source and its share above 0"),
        ({"data": {"squares": 0}}, "stage 'codes' has no data"),
    ],
)
def test_a_stage_that_teaches_nothing_is_refused(tmp_path, change, message):
    first, second = raw()["stages"]
    with pytest.raises(RecipeError, match=message):
        run(toy(stages=[first | change, second]), tmp_path / "run")


def test_a_slot_without_weights_is_met_before_the_first_stage(tmp_path):
    wrong = short("stages.learn.train={encoder: 1.0e-3}", "model.encoder={type: patches, patch_size: 8}")
    with pytest.raises(RecipeError, match=r"stage 'learn' trains 'encoder', but 'patches' has no parameters"):
        run(wrong, tmp_path / "run")
    assert read_metrics(tmp_path / "run") == []


def test_more_steps_that_could_not_begin_are_done_by_the_next_start(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "run")
    recipe = (folder / "recipe.yaml").read_text()

    def fail(_):
        raise RecipeError("held-out data: broken")

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "check_held_out", fail)
        with pytest.raises(RecipeError, match="held-out data: broken"):
            run(short(learn=6), folder)
    assert (folder / "recipe.yaml").read_text() == recipe
    run(short(learn=6), folder)
    assert [line["total"] for line in read_metrics(folder)] == list(range(1, 9))


@pytest.mark.parametrize("override", ["stages.learn.steps=3", "stages.codes.steps=3", "seed=1"])
def test_a_finished_run_is_given_nothing_else(finished, override):
    """Fewer steps, or more of a stage that others have built upon, make it another run."""
    with pytest.raises(RecipeError, match=r"another recipe: it differs in (stages\.[01]\.steps|seed);"):
        run(short(override), finished)
    assert load_model(finished, "cpu").slots()


def test_a_start_that_failed_before_its_first_step_leaves_the_folder_to_the_corrected_recipe(
    finished, tmp_path
):
    wrong = short("stages.learn.rows=3", "data.squares.unreadable=0", "stages.codes.rows=40")
    with pytest.raises(ChiasmError, match="group 0 of test_squares is broken"):
        run(wrong, tmp_path / "run")
    assert read_metrics(tmp_path / "run") == []
    run(short(), tmp_path / "run")
    assert weights(tmp_path / "run") == weights(finished)
    assert len(record(tmp_path / "run")["sessions"]) == 1


def test_a_checkpoint_holds_what_it_trains_and_the_rest_by_reference(finished, tmp_path):
    whole = run(short("checkpoints.whole=true"), tmp_path / "whole")
    assert weights(whole) == weights(finished)
    everything = set(load_file(whole / "final" / "model.safetensors"))
    frozen = {name for name in everything if name.startswith(("encoder.", "image_tokenizer."))}
    files = [training_checkpoints(folder)[-1] / "model.safetensors" for folder in (finished, whole)]
    assert [set(load_file(file)) for file in files] == [everything - frozen, everything]
    kept = sum(file.stat().st_size for file in (finished / "frozen").iterdir())
    assert files[0].stat().st_size < files[1].stat().st_size - 0.9 * kept
    assert not (whole / "frozen").exists()
    models = [load_model(file.parent, "cpu").state_dict() for file in files]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


@pytest.mark.parametrize(
    "content",
    ["[1]", "3", "{", '{"data": 3}', '{"data_changes": [3]}', '{"data_changes": [{"data": 1}]}', "\ufeff{}"],
)
def test_a_record_of_the_wrong_type_is_said(finished, tmp_path, content):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json (is not the record of a run|cannot be read)"):
        run(short(), folder)


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def read_only(path, *_, **__):
    raise OSError(errno.EROFS, "Read-only file system", str(path))


FAILURES = {
    "metrics, full": (
        lambda patched: stop_at(patched, 5, OSError(errno.ENOSPC, "No space left")),
        "disk is full",
    ),
    "run.json, full": (lambda patched: patched.setattr(run_module, "write_text", full), "disk is full"),
    "final, full": (lambda patched: patched.setattr(train_module, "save_model", full), "disk is full"),
    "run.json, read-only": (
        lambda patched: patched.setattr(run_module, "write_text", read_only),
        r"run\.json: read-only file system; .* start again with the same command",
    ),
    "lock, read-only": (
        lambda patched: patched.setattr(run_module.os, "open", read_only),
        r"\.lock: read-only file system; .* start again with the same command",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_cannot_be_written_is_a_sentence_and_loses_nothing(finished, tmp_path, monkeypatch, failure):
    fail, message = FAILURES[failure]
    with monkeypatch.context() as patched:
        fail(patched)
        with pytest.raises(CheckpointError, match=message):
            run(short(), tmp_path / "run")
    run(short(), tmp_path / "run")
    assert weights(tmp_path / "run") == weights(finished)


def test_a_clock_that_was_set_back_changes_nothing(finished, tmp_path, monkeypatch):
    """The newest checkpoint is the one of most steps, whatever the time of its files and of the day."""

    class Earlier(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime(2001, 1, 1, tzinfo=zone)

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_at(patched, 6, KeyboardInterrupt)
        with pytest.raises(Interrupted):
            run(short(), folder)
    assert len(training_checkpoints(folder)) == 2
    for age, path in enumerate([*folder.rglob("*"), *training_checkpoints(folder)]):
        os.utime(path, (4e9 - age, 4e9 - age))  # the later, the older it looks; all are of days to come
    monkeypatch.setattr(run_module, "datetime", Earlier)
    steps, write = [], Metrics.write
    monkeypatch.setattr(
        Metrics, "write", lambda self, step, line: (steps.append(step), write(self, step, line))
    )
    run(short(), folder)
    assert steps == [5, 6]
    assert weights(folder) == weights(finished)


def test_a_place_where_no_folder_can_be_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file: (not a directory|file exists); "):
        run(short(), tmp_path / "file")
    with pytest.raises(CheckpointError, match="not a directory"):
        run(short(), tmp_path / "file" / "run")


def test_a_second_run_in_a_folder_leaves_the_first_alone(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with Run(folder, short(), Ranks()), pytest.raises(ChiasmError, match="another process is training in"):
        run(short("seed=1"), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_a_run_learns_and_answers_knows_the_day_on_which_it_began(tmp_path, monkeypatch):
    """However often it is taken up again, and when it is measured."""
    days = []
    monkeypatch.setattr(TextTokenizer, "date", lambda self, day: days.append(day.isoformat()))
    stop_at(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(Interrupted):
        run(short(*held_out(tmp_path)), tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(TextTokenizer, "date", lambda self, day: days.append(day.isoformat()))
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps(record(tmp_path / "run") | {"started": "2024-02-29T23:59:59+00:00"}))
    run(short(*held_out(tmp_path)), tmp_path / "run")
    chiasm.evaluate(tmp_path / "run")
    assert days[1:] == ["2024-02-29T23:59:59+00:00"] * 2
    assert record(tmp_path / "run")["started"] == "2024-02-29T23:59:59+00:00"
    path.write_text(json.dumps(record(tmp_path / "run") | {"started": "yesterday"}))
    with pytest.raises(CheckpointError, match="started at 'yesterday', which is no time"):
        chiasm.evaluate(tmp_path / "run")
