"""What a run's steps leave behind: metrics, averages and checkpoints; and how it is stopped and given up."""

import io
import json
import os
import random
import signal
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from toy import toy

from chiasm.distribution.processes import Ranks
from chiasm.errors import ChiasmError
from chiasm.recipe import load_recipe
from chiasm.recipe.checkpoints import training_checkpoints
from chiasm.training import train
from chiasm.training.loop import Stop, Training, _finite, seed_all, sizes_of
from chiasm.training.metrics import read_metrics
from chiasm.training.optimiser import rate
from chiasm.training.position import Position
from chiasm.training.step import StepOutcome

RECIPE = toy(
    "stages.codes.steps=4",
    "stages.learn.steps=7",
    "stages.learn.accumulate=2",
    "stages.learn.warmup=0.5",
    "checkpoints={every: 3, keep: 99}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIASM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train(RECIPE, tmp_path_factory.mktemp("runs") / "run", console=Console(quiet=True))


def lines(run, stage):
    return [line for line in read_metrics(run) if line["stage"] == stage]


def test_a_checkpoint_stands_behind_every_so_many_steps_and_at_the_end_of_a_stage(run):
    names = [path.name for path in training_checkpoints(run)]
    assert names == ["codes-000003", "codes-000004", "learn-000003", "learn-000006", "learn-000007"]


def test_steps_are_numbered_and_told_with_the_rate_of_each_slot(run):
    every = read_metrics(run)
    assert [line["total"] for line in every] == list(range(1, 12))
    assert [line["step"] for line in every] == [1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7]
    for stage in RECIPE.stages:
        for line in lines(run, stage.name):
            share = rate(stage, line["step"] - 1)
            assert line["lr"] == pytest.approx({slot: peak * share for slot, peak in stage.train.items()})
    assert not any(line["skipped"] or "warning" in line or "records_skipped" in line for line in every)


def test_what_a_step_read_is_told_in_images_or_in_positions_of_all_its_batches(run):
    assert [line["pictures"] for line in lines(run, "codes")] == [8] * 4
    assert [line["samples"] for line in lines(run, "codes")] == [8] * 4
    assert not any("real" in line for line in lines(run, "codes"))
    for line in lines(run, "learn"):
        assert line["places"] == 2 * 2 * 128
        assert 0.3 * line["places"] < line["real"] <= line["places"]
        assert "pictures" not in line
        assert 4 <= line["samples"] <= line["real"]


def test_a_position_holds_sums_of_its_stage_and_moving_averages_of_the_losses(run):
    for folder in training_checkpoints(run):
        position = json.loads((folder / "state.json").read_text())
        name, step = RECIPE.stages[position["stage"]].name, position["step"]
        done = lines(run, name)[:step]
        assert folder.name == f"{name}-{step:06d}"
        assert position["total"] == done[-1]["total"]
        assert position["tokens"] == sum(line.get("real", line.get("pictures")) for line in done)
        assert position["seconds"] == pytest.approx(sum(line["seconds"] for line in done), abs=1e-4)
        head = (run / "metrics.jsonl").read_bytes()[: position["metrics"]]
        assert head.count(b"\n") == position["total"]
        averages = {}
        for line in done:
            for key, value in (*line["losses"].items(), ("objective", line["objective"])):
                averages[key] = 0.95 * averages.get(key, value) + 0.05 * value
        assert position["averages"] == pytest.approx(averages)
        assert position["score"] == position["averages"]["objective"]
        assert (position["skipped"], position["in_a_row"], position["world"]) == (0, 0, 1)


def training(**options):
    console = Console(file=io.StringIO(), width=400)
    parts = {
        "recipe": RECIPE,
        "folder": None,
        "model": None,
        "sources": {},
        "ranks": Ranks(),
        "metrics": None,
    }
    return Training(**parts, device=torch.device("cpu"), console=console, position=Position(), **options)


def test_steps_are_counted_also_those_that_are_skipped():
    counting = training()
    counting._count(StepOutcome({"text": 2.0}, 3.0), 10, 0.5)
    counting._count(StepOutcome({"text": 1.0, "image": 4.0}, 1.0), 20, 0.25)
    position = counting.position
    assert position.averages == pytest.approx({"text": 1.95, "image": 4.0, "objective": 2.9})
    for _ in range(2):
        counting._count(StepOutcome({"text": float("nan")}, float("nan"), skipped=True), 5, 0.25)
    assert (position.step, position.total, position.tokens, position.seconds) == (4, 4, 40, 1.25)
    assert (position.skipped, position.in_a_row) == (2, 2)
    assert position.averages["text"] == pytest.approx(1.95)
    counting._count(StepOutcome({}, 0.0), 1, 0.0)
    assert (position.skipped, position.in_a_row) == (2, 0)


def test_a_stage_is_given_up_after_twenty_steps_in_a_row_that_were_not_finite():
    hoping, stage = training(), RECIPE.stages[1]
    hoping._give_up_on_nonsense(stage)
    assert hoping.console.file.getvalue() == ""
    hoping.position.in_a_row, hoping.position.step = 19, 33
    hoping._give_up_on_nonsense(stage)
    assert "step 33 skipped" in hoping.console.file.getvalue()
    hoping.position.in_a_row = 20
    with pytest.raises(ChiasmError, match=r"stage 'learn': .* 20 steps in a row, up to step 33"):
        hoping._give_up_on_nonsense(stage)


def test_a_warning_is_said_each_time_it_begins():
    warning = training()
    for sentence in ("it collapses", "it collapses more", None, "it collapses"):
        warning._warn(sentence)
    assert warning.console.file.getvalue().split("\n") == ["it collapses", "it collapses", ""]


def test_records_are_told_only_where_a_source_skips_some():
    sources = {"a": SimpleNamespace(broken="error", skipped={})}
    strict = training()
    strict.sources = sources
    assert not strict.skips
    lenient = training()
    lenient.sources = sources | {"b": SimpleNamespace(broken="skip", skipped={"turns": 2})}
    lenient.position.left_out = {"codes": {"b": {"0:0": "long"}}}
    assert lenient.skips
    assert lenient._note_skipped({"left_out": {"b": {"1:0": "long"}}}) == 4
    assert lenient.skipped == {"a": Counter(), "b": Counter(turns=2, long=2)}


def test_the_first_signal_is_noted_and_the_second_interrupt_stops_at_once():
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    said = []
    with Stop(lambda: said.append(True)) as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(said) == 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    with Stop(lambda: None) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested


def test_signals_are_left_alone_in_a_thread_where_they_cannot_be_noted():
    found = []

    def enter():
        with Stop(lambda: None) as stop:
            found.append(stop._before)

    thread = threading.Thread(target=enter)
    thread.start(), thread.join()
    assert found == [{}]


def test_one_seed_is_that_of_all_random_numbers():
    def drawn(seed):
        seed_all(seed)
        return random.random(), float(np.random.random()), float(torch.rand(()))

    assert drawn(3) == drawn(3)
    assert all(one != other for one, other in zip(drawn(3), drawn(4), strict=True))
    drawn(2**64 - 1)
    assert drawn(2**32 + 3)[1] == drawn(3)[1]  # numpy's are of 32 bits, torch's of 63
    assert drawn(2**63 + 3)[2] == drawn(3)[2]


def test_numbers_that_json_has_not_are_null_and_images_are_counted_whole():
    assert [_finite(each) for each in (1.5, float("nan"), float("inf"))] == [1.5, None, None]
    assert sizes_of(torch.zeros(5, 3, 4, 4)) == (5, 5, 5)


def test_a_stage_with_an_objective_learns_from_what_is_said_of_images_and_its_weights_are_saved(tmp_path):
    raw = toy().model_dump(mode="json")
    raw["model"] = {slot: raw["model"][slot] for slot in ("views", "encoder", "connector", "language")}
    raw["data"] = {"squares": {"type": "test_squares", "kinds": ["see"]}}
    raw["stages"] = [
        {
            "name": "look",
            "objective": {"type": "supervised"},
            "train": {"encoder": 1e-3, "objective": 1e-3},
            "data": {"squares": 1.0},
            "steps": 2,
            "rows": 5,
        }
    ]
    run = train(load_recipe(raw), tmp_path / "run", console=Console(quiet=True))
    assert [line["pictures"] for line in read_metrics(run)] == [5, 5]
    assert all(line["lr"].keys() == {"encoder", "objective"} for line in read_metrics(run))
    tensors = load_file(training_checkpoints(run)[-1] / "state.safetensors")
    own = {name.partition("/")[2] for name in tensors if name.startswith("objective/")}
    assert own
    assert own & {name.removeprefix("optimiser/objective.").rpartition("/")[0] for name in tensors}
