"""The fuzz notices what it is there for: a traceback, a hang, too much memory, what is written or run elsewhere."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import fuzz_stock
import mutated
from fuzz_kinds import kinds
from fuzz_worker import LARGE, OUTSIDE, SENTENCE, SLOW, SUCCESS, TRACEBACK, Kind, Limits

import fuzz
from chiasm.errors import ChiasmError

QUICK = Limits(seconds=0.5, memory=64 << 20)


def outcome(root, action):
    """Of an input between two that are sound."""
    acts = (lambda here: None, action, lambda here: None)
    planted = {"planted": Kind(1, lambda dice, here: lambda: acts[int(here.parents[1].name[-1])](here))}
    results = fuzz.attempt(root, planted, {"planted": [0, 1, 2]}, seed=0, limits=QUICK)["planted"]
    assert [result.number for result in results] == [0, 1, 2]
    assert results[0].outcome == results[2].outcome == SUCCESS, "what fails takes nothing else with it"
    assert bool(fuzz.failed({"planted": results})) == (results[1].outcome not in (SUCCESS, SENTENCE))
    return results[1].outcome


def says(text):
    def action(here):
        raise ChiasmError(text)

    return action


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda here: (here / "x").write_text("inside"), SUCCESS),
        (says("the option 'dept' is unknown"), SENTENCE),
        (says(""), TRACEBACK),
        (says("all of the input " * 1000), TRACEBACK),
        (says("a name that no terminal prints: \ud800"), TRACEBACK),
        (lambda here: 1 / 0, TRACEBACK),
        (lambda here: sys.exit("no"), TRACEBACK),
        (lambda here: bytearray(1 << 30), LARGE),
        (lambda here: sum(iter(int, 1)), SLOW),
        (lambda here: time.sleep(1000), SLOW),
        (lambda here: sys.stdin.read(), SUCCESS),
    ],
    ids=[
        "inside",
        "sentence",
        "mute",
        "long",
        "unprintable",
        "error",
        "exit",
        "memory",
        "works",
        "waits",
        "stdin",
    ],
)
def test_an_input_ends_in(tmp_path, action, expected):
    assert outcome(tmp_path, action) == expected


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize(
    "action",
    [
        lambda root: (root / "elsewhere").write_text("x"),
        lambda root: (root / "elsewhere").mkdir(),
        lambda root: (root / "there").unlink(),
        lambda root: (root / "there").rename(root / "away"),
        lambda root: subprocess.run(["touch", root / "elsewhere"], check=True),
    ],
    ids=["file", "folder", "removed", "renamed", "program"],
)
def test_what_is_done_outside_is_seen_and_prevented(tmp_path, action, swallowed):
    (tmp_path / "there").write_text("x")

    def hostile(here):
        try:
            action(tmp_path)
        except OSError:
            if not swallowed:
                raise

    assert outcome(tmp_path, hostile) == OUTSIDE
    assert (tmp_path / "there").read_text() == "x"
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_library_writes_beside_the_folders_is_seen(tmp_path):
    """Safetensors writes by itself, which no audit hook is told."""
    import safetensors.torch
    import torch

    def written(here):
        safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "elsewhere")

    assert outcome(tmp_path, written) == OUTSIDE


def test_a_canary_would_sing(tmp_path):
    """What the fuzz plants does run where it is let."""
    import pickle

    victim = mutated.Runs(tmp_path / "ran")
    pickle.loads(pickle.dumps(victim)).close()
    assert (tmp_path / "ran").exists()


def test_an_input_depends_on_seed_kind_and_number_alone():
    record = fuzz_stock.RECORDS[0]
    wrong = [mutated.tree(record, random.Random(f"0 record {number}")) for number in (1, 2, 1)]
    assert repr(wrong[0]) == repr(wrong[2]) != repr(wrong[1])
    assert record == fuzz_stock.RECORDS[0]


def test_a_few_of_the_inputs(tmp_path):
    fuzz_stock.write_data(tmp_path / "stock" / "data")
    chosen = {name: kind for name, kind in kinds(tmp_path).items() if name in ("picture", "record", "recipe")}
    numbers = fuzz.shared(36, chosen)
    results = fuzz.attempt(tmp_path, chosen, numbers, seed=0)
    assert sum(map(len, results.values())) == sum(map(len, numbers.values())) >= 35
    assert [result.detail for _, result in fuzz.failed(results)] == []
    assert {result.outcome for several in results.values() for result in several} == {SUCCESS, SENTENCE}
    assert fuzz.table(results).count("\n") == 5
