"""What is read of a run's state is what training writes, or a sentence names the field."""

import json
from dataclasses import asdict

import pytest

from chiasm.errors import CheckpointError
from chiasm.training.metrics import read_metrics
from chiasm.training.position import Position, read_position
from chiasm.training.state import _random_state

BATCHES = {
    "taken": {"squares": 3},
    "groups": {"squares": 1},
    "current": "squares",
    "offset": 1,
    "left_out": {},
}
LINE = {"stage": "codes", "step": 1, "seconds": 0.5, "losses": {"text": None}}


def state(**changes):
    position = Position(
        step=3, total=3, averages={"objective": 0.1}, batches=[BATCHES], random=[_random_state()[0]]
    )
    return asdict(position) | {"score": position.score, "world": 1} | changes


def written(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(content))
    return path


def test_what_was_written_is_read(tmp_path):
    position, world = read_position(written(tmp_path, state(averages={"objective": float("inf")})))
    assert world == 1
    assert position.score == float("inf")
    assert position.batches == [BATCHES]
    assert json.loads(json.dumps(asdict(position))) == {
        name: value
        for name, value in json.loads((tmp_path / "state.json").read_text()).items()
        if name not in ("score", "world")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": "3"}, r"step: input should be a valid integer"),
        ({"step": -1}, r"step: input should be greater than or equal to 0"),
        ({"step": True}, r"step: input should be a valid integer"),
        ({"averages": [1]}, r"averages: input should be an object"),
        ({"averages": {"text": "low"}}, r"averages\.text: input should be a valid number"),
        ({"seconds": None}, r"seconds: input should be a valid number"),
        ({"batches": [BATCHES | {"taken": {"squares": "x"}}]}, r"batches\.0\.taken\.squares: .*integer"),
        ({"batches": [{}]}, r"batches\.0\.taken: field required"),
        ({"batches": []}, r"of 1 processes but has the batches of 0 and the random numbers of 1"),
        ({"random": [{"python": [3], "numpy": []}]}, r"random\.0\.python\.1: field required"),
        ({"left_out": {"codes": {"squares": 3}}}, r"left_out\.codes\.squares: .*mapping|object"),
        ({"world": "one"}, r"world: input should be a valid integer"),
        ({"more": 1}, r"missing or left over: more"),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        read_position(written(tmp_path, state(**changes)))


@pytest.mark.parametrize("content", [[1, 2], 3, None, "text"])
def test_what_is_no_state_is_said(tmp_path, content):
    with pytest.raises(CheckpointError, match=r"state\.json"):
        read_position(written(tmp_path, content))


def test_metrics_are_read_without_a_half_written_last_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINE) + '\n{"stage": "co')
    assert read_metrics(tmp_path) == [LINE]
    assert read_metrics(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    "damage",
    [
        b"\0\0\0",
        b'{"stage": "co',
        b"[1]",
        b"3",
        b"\xff",
        json.dumps(LINE | {"seconds": "long"}).encode(),
        b"",
    ],
)
def test_a_damaged_line_of_the_metrics_is_named(tmp_path, damage):
    line = json.dumps(LINE).encode()
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([line, damage, line, b""]))
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 2, is not as training wrote it"):
        read_metrics(tmp_path)


def test_the_next_stage_begins_anew_but_for_what_is_the_runs():
    run = {"total": 9, "metrics": 44, "left_out": {"codes": {}}, "data": {"a": "x"}}
    position = Position(
        **run, stage=1, step=7, skipped=2, in_a_row=1, averages={"text": 1.0}, tokens=5, seconds=2.5,
        batches=[BATCHES], random=[_random_state()[0]],
    )  # fmt: skip
    position.next_stage()
    assert position == Position(**run, stage=2)
    assert position.score == float("inf")
