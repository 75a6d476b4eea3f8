"""What metrics.jsonl says of a training: sums, and the curves that are worth drawing, in their order."""

import pytest

from chiasm.evaluation.history import curves, training

LINES = [
    {"stage": "codes", "step": 1, "seconds": 2, "losses": {"image": 1.0}, "health": {"codebook_use": 0.25}},
    {"stage": "codes", "step": 3, "seconds": 3, "losses": {"image": 0.5}, "health": {"codebook_use": 0.5}},
    {
        "stage": "joint", "step": 2, "seconds": 0.5, "real": 100, "places": 200, "samples": 7, "pictures": 8,
        "losses": {"text": 2.0, "image": 4.0}, "lr": {"language": 0.1, "encoder": 0.2},
    },
    {
        "stage": "joint", "step": 1, "seconds": 0.25, "real": 100, "places": 400, "pictures": 4,
        "losses": {"text": 1.0, "image": float("inf"), "odd": None}, "lr": {"language": 0.3, "encoder": 0.2},
    },
]  # fmt: skip


def test_time_tokens_and_samples_are_summed_by_stage_and_the_last_step_counts():
    counted = [{**line, "samples": 7} for line in LINES]
    assert training(counted) == {
        "seconds": 5.75,
        "tokens": 200,
        "samples": 28,
        "stages": {
            "codes": {"steps": 3, "seconds": 5.0, "tokens": 0, "samples": 14},
            "joint": {"steps": 2, "seconds": 0.75, "tokens": 200, "samples": 14},
        },
    }
    assert training([]) == {}
    assert training([{"step": 4, "samples": 0}])["stages"]["training"] == {
        "steps": 4, "seconds": 0.0, "tokens": 0, "samples": 0,
    }  # fmt: skip
    assert training([{"step": 4, "seconds": None, "real": None}])["seconds"] == 0


def test_samples_are_left_out_where_a_line_of_an_older_version_has_none():
    codes, joint = ({**line, "samples": 5} for line in (LINES[0], LINES[2]))
    mixed = training([codes, joint, LINES[3]])  # the last goes on with the stage, and lacks them
    assert "samples" not in mixed
    assert {name: stage.get("samples") for name, stage in mixed["stages"].items()} == {
        "codes": 5,
        "joint": None,
    }
    assert training(LINES) == {
        "seconds": 5.75,
        "tokens": 200,
        "stages": {
            "codes": {"steps": 3, "seconds": 5.0, "tokens": 0},
            "joint": {"steps": 2, "seconds": 0.75, "tokens": 200},
        },
    }


def drawn(lines, monkeypatch):
    """Steps and values of every curve, by stage."""
    points = {}
    monkeypatch.setattr(
        "chiasm.evaluation.plots.curve", lambda name, steps, values: dict(zip(steps, values, strict=True))
    )
    for stage in curves(lines):
        points[stage["name"]] = {each["name"]: each["svg"] for each in stage["curves"]}
    return points


def test_curves_are_of_what_changes_losses_first(monkeypatch):
    points = drawn(LINES, monkeypatch)
    assert points == {
        "codes": {"loss: image": {1: 1.0, 3: 0.5}, "codebook use": {1: 0.25, 3: 0.5}},
        "joint": {
            "loss: text": {2: 2.0, 1: 1.0},
            "tokens/s": {2: 200, 1: 400},
            "share of real tokens": {2: 0.5, 1: 0.25},
            "learning rate": {2: 0.2, 1: 0.3},
        },  # pictures/s stays at 16, and of the loss of images only one value is a number
    }
    order = [list(stage) for stage in points.values()]
    assert order == [list(stage) for stage in drawn(LINES, monkeypatch).values()]


def test_speeds_need_a_time_and_shares_a_whole(monkeypatch):
    lines = [
        {"step": 1, "seconds": 2, "pictures": 4},
        {"step": 2, "seconds": 1, "pictures": 4, "real": 3},
        {"step": 3, "real": 9, "pictures": 4},
        {"step": 4, "seconds": 1, "real": 8, "places": 0},
    ]
    assert drawn(lines, monkeypatch) == {
        "training": {"pictures/s": {1: 2, 2: 4}, "tokens/s": {2: 3, 4: 8}},
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "much", None])
def test_what_is_no_number_is_not_drawn(value, monkeypatch):
    lines = [{"step": step, "losses": {"text": 1.0 / step, "odd": value}} for step in (1, 2)]
    assert list(drawn(lines, monkeypatch)["training"]) == ["loss: text"]


def test_a_curve_is_told_with_its_last_value():
    (stage,) = curves([{"step": step, "losses": {"text": 4.0 / step}} for step in (1, 2, 3)])
    assert stage["curves"][0]["last"] == "1.33"
    assert stage["curves"][0]["svg"].startswith("<svg")
