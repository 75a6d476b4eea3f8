"""The one train function: its folder, stopping and going on, and what it refuses."""

import errno
import json
import math
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from toy import Squares, toy

import chiasm.storage.folders
from chiasm.errors import CheckpointError, ChiasmError, RecipeError
from chiasm.model.checkpoint import load_model
from chiasm.recipe.checkpoints import training_checkpoints
from chiasm.training import Interrupted, loop, train
from chiasm.training.metrics import read_metrics

train_module = sys.modules["chiasm.training.train"]  # `chiasm.training.train` is the function
SHORT = ("stages.codes.steps=4", "stages.learn.steps=8", "checkpoints.every=2")


def quiet():
    return Console(quiet=True)


def weights(folder):
    return (folder / "final" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIASM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train(toy(*SHORT), tmp_path_factory.mktemp("runs") / "whole", console=quiet())


def stop_after(monkeypatch, steps, action):
    """Do something in the middle of a run: before step `steps` of all stages."""
    original, done = loop.TrainStep.__call__, []

    def counted(self, batches):
        done.append(None)
        if len(done) == steps:
            action()
        return original(self, batches)

    monkeypatch.setattr(loop.TrainStep, "__call__", counted)


def test_a_run_can_be_retold_from_its_folder(finished):
    record = json.loads((finished / "run.json").read_text())
    assert record["seed"] == 0
    assert record["data"] == {"squares": "squares 40 ('see', 'draw', 'words')"}
    assert {"python", "torch", "transformers", "chiasm"} <= set(record["versions"])
    assert record["machine"]["device"] == "cpu"
    assert record["started"] <= record["finished"]
    lines = read_metrics(finished)
    assert [line["total"] for line in lines] == list(range(1, 13))
    assert set(lines[0]["losses"]) == {"reconstruction", "commitment"}
    assert any(
        "perplexity" in line.get("health", {}) for line in lines
    )  # not while it settles: nothing is coded
    assert set(lines[-1]["losses"]) == {"text", "image"}
    assert list((finished / "tensorboard").iterdir())


def test_the_last_checkpoints_and_the_best_are_kept(finished):
    kept = training_checkpoints(finished)
    assert [path.name for path in kept[-2:]] == ["learn-000006", "learn-000008"]
    assert 2 <= len(kept) <= 3


def test_a_finished_run_is_left_as_it_is(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    console = Console(record=True, width=200, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    assert train(toy(*SHORT), finished, console=console) == finished
    assert "is a finished run" in console.export_text()
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    before.pop(finished / "recipe.yaml"), after.pop(finished / "recipe.yaml")
    assert before == after


def test_the_run_can_be_loaded(finished):
    model = load_model(finished)
    assert model.sampling == toy(*SHORT).sampling
    assert not model.training


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 12])
def test_stopped_by_ctrl_c_and_started_again_is_never_stopped(finished, tmp_path, monkeypatch, step):
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_after(patched, step, lambda: os.kill(os.getpid(), signal.SIGINT))
        if step == 12:  # a run that is done is done
            train(toy(*SHORT), folder, console=quiet())
        else:
            with pytest.raises(Interrupted, match="give the same command again"):
                train(toy(*SHORT), folder, console=quiet())
        assert [line["total"] for line in read_metrics(folder)] == list(range(1, step + 1))  # nothing more
    train(toy(*SHORT), folder, console=quiet())
    assert weights(folder) == weights(finished)
    assert [line["total"] for line in read_metrics(folder)] == list(range(1, 13))


def test_a_stop_while_the_end_of_a_stage_is_saved_stops_there(tmp_path, monkeypatch):
    """By SIGTERM, as a scheduler sends it."""
    original = loop.save_checkpoint

    def stopped(folder, recipe, model, optimiser, position, *others):
        original(folder, recipe, model, optimiser, position, *others)
        if position.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "save_checkpoint", stopped)
    with pytest.raises(Interrupted, match="stopped after step 4 of 4 of stage 'codes'; all is saved"):
        train(toy(*SHORT), tmp_path / "run", console=quiet())
    assert [path.name for path in training_checkpoints(tmp_path / "run")][-1] == "codes-000004"


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (2, r"nothing is saved yet in .*run\. To begin it again, give the same command"),
        (3, r"what the last checkpoint in .*run holds is saved\. To go on, give the same command again"),
    ],
)
def test_a_run_that_is_interrupted_at_once_says_what_is_saved(tmp_path, monkeypatch, steps, words):
    def interrupt():
        raise KeyboardInterrupt

    stop_after(monkeypatch, steps, interrupt)
    with pytest.raises(Interrupted, match=words):
        train(toy(*SHORT), tmp_path / "run", console=quiet())
    assert bool(training_checkpoints(tmp_path / "run")) == (steps == 3)


def test_metrics_behind_the_checkpoint_are_cut_off(finished, tmp_path, monkeypatch):
    class Crash(Exception):
        pass

    def crash():
        raise Crash

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_after(patched, 8, crash)
        with pytest.raises(Crash):
            train(toy(*SHORT), folder, console=quiet())
    assert [line["total"] for line in read_metrics(folder)] == list(range(1, 8))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"half a li')
    train(toy(*SHORT), folder, console=quiet())
    assert [line["total"] for line in read_metrics(folder)] == list(range(1, 13))
    assert weights(folder) == weights(finished)


def test_another_recipe_in_the_folder_is_refused_by_its_keys(finished):
    with pytest.raises(RecipeError, match=r"differs in model\.connector\.depth, stages\.1\.rows"):
        train(toy(*SHORT, "model.connector.depth=3", "stages.learn.rows=3"), finished, console=quiet())


def test_how_often_it_is_saved_and_evaluated_may_change(finished):
    train(toy(*SHORT, "checkpoints.keep=1", "evaluation.questions=5"), finished, console=quiet())


def test_a_checkpoint_of_another_recipe_is_refused(finished, tmp_path):
    other = toy(*SHORT, "seed=1")
    checkpoint = tmp_path / "run" / "checkpoints" / "learn-000008"
    checkpoint.parent.mkdir(parents=True)
    os.system(f"cp -r {training_checkpoints(finished)[-1]} {checkpoint}")
    with pytest.raises(CheckpointError, match="another recipe; it differs in seed"):
        train(other, tmp_path / "run", console=quiet())


def test_a_folder_is_trained_in_by_one_process(tmp_path):
    import fcntl

    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ChiasmError, match="another process is training"):
            train(toy(*SHORT), tmp_path / "run", console=quiet())


def test_a_full_disk_leaves_the_last_good_checkpoint(finished, tmp_path, monkeypatch):
    folder, saved = tmp_path / "run", []
    write = chiasm.storage.folders.safetensors.torch.save_file

    def full(tensors, path):
        if path.name == "state.safetensors" and path.parent.name.startswith(".learn-") and not saved:
            saved.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, path)

    with monkeypatch.context() as patched:
        patched.setattr(chiasm.storage.folders.safetensors.torch, "save_file", full)
        with pytest.raises(CheckpointError, match="disk is full"):
            train(toy(*SHORT), folder, console=quiet())
    assert [path.name for path in (folder / "checkpoints").iterdir()].count("codes-000004") == 1
    assert not list((folder / "checkpoints").glob(".*"))
    train(toy(*SHORT), folder, console=quiet())
    assert weights(folder) == weights(finished)


def test_steps_that_are_not_finite_are_counted_and_reported(tmp_path, monkeypatch):
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    original, done = loop.DocumentsAim.losses, []

    def poisoned(self, batch):
        done.append(None)
        losses = original(self, batch)
        return (
            {k: type(v)(v.sum * float("nan"), v.count, v.weight) for k, v in losses.items()}
            if len(done) == 3
            else losses
        )

    monkeypatch.setattr(loop.DocumentsAim, "losses", poisoned)
    folder = train(toy(*SHORT), tmp_path / "run", console=console)
    assert [line["skipped"] for line in read_metrics(folder)[4:]] == [False, False, True] + [False] * 5
    assert "step 3 skipped" in console.export_text(clear=False)
    assert "skipped 1" in console.export_text()
    assert all(torch.isfinite(value).all() for value in load_model(folder).state_dict().values())


def test_a_run_that_is_never_finite_is_given_up(tmp_path):
    recipe = toy("stages.codes.steps=40")
    stages = tuple(s.model_copy(update={"weights": {"reconstruction": math.inf}}) for s in recipe.stages)
    with pytest.raises(ChiasmError, match="not finite in 20 steps in a row"):
        train(recipe.model_copy(update={"stages": stages}), tmp_path, console=quiet())


def test_a_second_run_finds_the_features_of_the_first(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("CHIASM_CACHE", str(tmp_path / "cache"))
    for name, computed in (("one", True), ("two", False)):
        console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
        folder = train(toy(*SHORT), tmp_path / name, console=console)
        assert ("features of" in console.export_text()) == computed
        assert weights(folder) == weights(finished)


def test_a_run_computes_in_the_numbers_that_are_asked_for():
    recipe = toy()
    assert train_module._computing_in(None, recipe) is recipe
    for name in ("fp32", "bf16"):
        assert {stage.precision for stage in train_module._computing_in(name, recipe).stages} == {name}
    with pytest.raises(ChiasmError, match="computes in fp32 or bf16, not in fp16"):
        train_module._computing_in("fp16", recipe)


def test_data_is_told_by_its_samples_and_the_files_of_its_images(tmp_path):
    source = Squares()
    assert train_module.identity(source) == source.fingerprint
    files = [tmp_path / name for name in ("b.png", "a.png")]
    source.image_files = lambda: files
    missing = train_module.identity(source)
    assert missing != source.fingerprint
    files[0].write_bytes(b"123")
    there = train_module.identity(source)
    assert there != missing
    files.reverse()
    assert train_module.identity(source) == there
    files[1].write_bytes(b"1234")
    assert train_module.identity(source) != there
    source.groups += 1
    assert len(train_module.identity(source)) == 32


def test_held_out_data_is_read_whole_and_the_images_of_its_first_groups_are_opened(monkeypatch):
    opened, broken = [], ["error"]

    class Held:
        def __init__(self):
            self.broken, self.fingerprint = broken[0], f"of {len(built)}"

        def image_files(self):
            return ()

        def __len__(self):
            return 20

        def __getitem__(self, index):
            picture = SimpleNamespace(open=lambda: opened.append(index))
            return [SimpleNamespace(messages=[SimpleNamespace(content=("x", picture))])]

    monkeypatch.setattr(train_module, "Media", SimpleNamespace)
    monkeypatch.setattr(train_module.parts, "build", lambda slot, spec, where: built.append(where) or Held())
    built = []
    recipe = toy(evaluation={"data": "squares", "labelled": ["squares", "squares"]})
    assert train_module.check_held_out(recipe) == {"squares": "of 1"}
    assert built == ["data.squares"]
    assert opened == list(range(8))
    broken[0] = "skip"
    train_module.check_held_out(recipe)
    assert opened == list(range(8))
    train_module.check_held_out(toy())
    assert len(built) == 2


def test_a_stage_without_data_or_without_anything_to_train_is_said():
    recipe = toy()
    for field, message in (("data", "stage 'codes' has no data"), ("train", "stage 'codes' trains nothing")):
        stages = (recipe.stages[0].model_copy(update={field: {}}), recipe.stages[1])
        with pytest.raises(RecipeError, match=message):
            train_module.build_sources(recipe.model_copy(update={"stages": stages}))
    assert list(train_module.build_sources(recipe)) == ["squares"]


def test_the_folder_of_a_run_is_named_after_its_recipe(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train_module, "_run", lambda *given: seen.append(given))
    assert train(toy()) == Path("runs/toy") == seen[0][1]
    assert train(toy(), tmp_path, console=(console := quiet()), device="cpu", other_data=True) == tmp_path
    recipe, folder, ranks, given, other, workers = seen[1]
    assert (recipe, folder, given, other, workers) == (toy(), tmp_path, console, True, None)
    assert (ranks.rank, ranks.world, ranks.device.type) == (0, 1, "cpu")
    assert (seen[0][4], seen[0][3].quiet) == (False, False)
