"""The line of a stage: what it says in figures, and how often where no terminal looks on."""

import io

import pytest
from rich.console import Console

from chiasm.recipe import Stage
from chiasm.training import progress
from chiasm.training.optimiser import SlotRow
from chiasm.training.progress import Line, Speed, Status, describe, trained_table

STAGE = Stage(name="learn", train={"language": 1e-3}, data={"a": 1.0}, steps=30)


def status(step=10, **options):
    speed = Speed("tokens", real=600.0, places=800.0, seconds=4.0, waited=1.0, steps=2.0)
    return Status(step, {"text": 1.2345, "image": 0.5}, 1.5e-4, options.pop("speed", speed), **options)


def test_speeds_are_moving_sums_of_which_a_tenth_goes_each_step():
    speed = Speed("pictures")
    speed.add(10, 20, 2.0, 0.5)
    speed.add(30, 40, 1.0, 0.25)
    assert speed == Speed("pictures", *(pytest.approx(each) for each in (39.0, 58.0, 2.8, 0.7, 1.9)))


def test_the_line_says_step_losses_rate_speed_wait_and_what_remains():
    """Twenty steps remain, of two seconds each."""
    assert describe(status(), STAGE) == (
        "10/30 · text 1.234 · image 0.500 · lr 1.5e-04 · 150 tokens/s · real 75% · data wait 25% · 0:40 left"
    )


def test_only_what_there_is_is_said():
    speed = Speed("pictures", real=8.0, places=8.0, seconds=2.0, waited=0.0, steps=1.0)
    line = describe(
        status(29, speed=speed, skipped=3, health={"codebook_use": 0.5, "perplexity": 12.4}), STAGE
    )
    assert line.endswith(
        "4 pictures/s · data wait 0% · codebook use 0.50 · perplexity 12 · skipped 3 · 0:02 left"
    )
    assert describe(Status(0, {}, 0.0, Speed("tokens")), STAGE) == (
        "0/30 · lr 0.0e+00 · 0 tokens/s · data wait 0% · 0:00 left"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00"), (36_061, "10:01:01")],
)
def test_time_is_told_in_minutes_or_hours(seconds, text):
    assert describe(status(speed=Speed("tokens", steps=1.0, seconds=seconds / 20)), STAGE).endswith(
        f"{text} left"
    )


@pytest.mark.parametrize(("value", "text"), [(0.125, "0.12"), (9.99, "9.99"), (10.0, "10"), (123.4, "123")])
def test_figures_of_health_are_short(value, text):
    assert f"perplexity {text} ·" in describe(status(health={"perplexity": value}), STAGE)


def test_where_no_terminal_looks_on_a_line_comes_every_ten_seconds_and_at_the_end(monkeypatch):
    console, now = Console(file=io.StringIO(), width=40), [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Line(console, STAGE) as line:
        for step, second in ((1, 100.0), (2, 109.9), (3, 110.0), (4, 115.0), (29, 119.9), (30, 119.95)):
            now[0] = second
            line.update(status(step))
    lines = console.file.getvalue().splitlines()
    assert [each.split()[:2] for each in lines] == [["learn", f"{step}/30"] for step in (1, 3, 30)]


def test_another_rank_than_the_first_says_nothing():
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        with Line(console, STAGE, active=False) as line:
            line.update(status(30))
        assert console.file.getvalue() == ""


def test_on_a_terminal_one_line_is_drawn_anew():
    console = Console(file=io.StringIO(), force_terminal=True, width=200, force_interactive=True)
    with Line(console, STAGE) as line:
        line.update(status(10))
        line.update(status(30))
        assert line._live.tasks[0].completed == 30
        assert line._live.tasks[0].total == 30
        assert line._live.tasks[0].fields["text"] == describe(status(30), STAGE)
        assert line._live.live.is_started
    assert not line._live.live.is_started
    assert "learn" in console.file.getvalue()


def test_the_table_of_what_is_trained_names_frozen_slots_and_leaves_what_has_no_rate_empty():
    rows = [
        SlotRow("views", "whole", 0, 0, 0.0),
        SlotRow("encoder", "vit", 1234, 0, 0.0),
        SlotRow("language", "causal", 5678, 5000, 1e-3),
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(trained_table(STAGE, rows))
    title, heads, *lines = [each.split() for each in console.file.getvalue().splitlines()]
    assert title == ["stage", "learn:", "30", "steps"]
    assert heads == ["slot", "part", "parameters", "trained", "peak", "lr"]
    assert lines == [
        ["views", "whole", "0", "0"],
        ["encoder", "vit", "1,234", "0", "frozen"],
        ["language", "causal", "5,678", "5,000", "0.001"],
    ]
