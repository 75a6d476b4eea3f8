"""What `chiasm study check` finds, and that it finds where something is wrong."""

import sys

import pytest

from chiasm.cli import main
from chiasm.studies import check as checking
from chiasm.studies.check import Seer, check, examined, world


def test_statistics_and_controls_hold_where_the_truth_is_known(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["chiasm", "study", "check"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("ok") for line in lines)


def test_a_test_without_correction_is_caught(monkeypatch):
    monkeypatch.setattr("chiasm.studies.compare.holm", list)
    monkeypatch.setattr(checking, "_controls", lambda: ())
    first = next(iter(check()))
    assert not first.passed  # three arms at 5 % each


def test_questions_that_are_answered_blind_are_caught():
    class Blind(Seer):
        def answer(self, samples, *, blind=False):
            return super().answer(samples)

    assert any("does not see" in each for each in examined(Blind(), world()))


@pytest.mark.parametrize("connected", [True, False])
def test_a_subject_that_sees_is_told_from_one_that_does_not(connected):
    assert bool(examined(Seer(connected), world())) is not connected
