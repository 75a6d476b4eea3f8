"""The benchmarks run and compare like with like. Speeds are not asserted: they belong to a machine."""

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def measured(monkeypatch, capsys):
    """What a benchmark writes as JSON. It is run as a script, but in this process, which has imported all."""

    def run(name, *arguments):
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        monkeypatch.setattr(sys, "argv", [name, *arguments, "--json"])
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
        return json.loads(capsys.readouterr().out)

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def measured_apart(name):
    """The same by a process of its own, for one that starts others."""
    command = [sys.executable, BENCHMARKS / name, "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_training_step_is_measured_against_transformers_at_equal_loss():
    result = measured_apart("train_step.py")
    assert result["ratio"]["speed"] > 0
    assert abs(result["loss_difference"]["initial_fp32"]) < 1e-5
    assert abs(result["loss_difference"]["training"]) < 1e-3
    assert result["sides"]["chiasm"]["padding"] < result["sides"]["transformers"]["padding"]


@pytest.mark.slow
def test_every_part_is_measured_against_transformers_at_equal_output(measured):
    rows = measured("parts.py", "--quick")["parts"]
    assert len(rows) >= 17
    for row in rows:
        assert row["difference"] < 1e-4, row
        assert row["forward_processor"] > 0
        assert row["backward_wall"] > 0


@pytest.mark.slow
def test_loading_is_measured_for_every_number_of_workers():
    result = measured_apart("loading.py")
    assert result["images"] == 8
    for seconds in result["seconds"].values():
        assert set(seconds) == {"0", "1", "2"}
        assert min(seconds.values()) > 0


@pytest.mark.slow
def test_pictures_are_drawn_as_the_originals_draw_them(measured):
    result = measured("sampling.py", "--quick")
    for name in ("var", "var, no guidance", "llamagen"):
        assert result[name]["same_codes"] == 1
        assert result[name]["pixel_error"] < 1e-3
    for scheduler in ("ddim", "euler", "pndm"):
        assert result[f"diffusion, {scheduler}"]["pixel_error"] < 1e-3
    for name in ("next scale, as many codes", "next scale, the same grid"):
        scale, token = result[name]["parameters"].values()
        assert abs(scale / token - 1) < 0.02
    for name in ("vectors, one by one", "vectors, all at once"):
        assert result[name]["processor_seconds"].keys() == result[name]["parameters"].keys()
        assert result[name]["codes"] == 9


def test_a_network_is_made_as_large_as_is_wanted(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    root = runpy.run_path(str(BENCHMARKS / "sampling.py"))["_root"]

    def parameters(width):
        return 3 * width * width + 40 * width + 700

    counts = {width: parameters(width) for width in (64, 128, 192)}
    assert root(counts, parameters(1000)) == 1000
    assert root(counts, 0) == 8


@pytest.mark.slow
def test_a_document_of_tiles_is_answered_as_transformers_answers_it(measured):
    result = measured("internvl.py", "--quick")
    assert result["tiles"] == 13  # 12 and the whole
    for part in ("prefix", "answer"):
        assert result[part]["same_answer"]
        assert result[part]["ratio"]["processor"] > 0


def test_the_time_of_every_rule_of_views_is_measured(measured):
    rows = measured("views.py", "--sizes", "20")
    assert {"ratio_tiles", "anchors", "slices", "hd_tiles"} <= rows.keys()
    assert all(row["microseconds"] > 0 and row["views"] >= 1 for row in rows.values())


def test_a_study_is_compared_with_its_cells_one_by_one(tmp_path, monkeypatch):
    """A study of six cells that takes 30 s, beside two of them, of 20 and 40 s, with caches of their own."""
    spec = importlib.util.spec_from_file_location("study_cost", BENCHMARKS / "study_cost.py")
    study_cost = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study_cost)
    caches = []

    def seconds(command, cache):
        caches.append(cache.name)
        if command[0] == "study":
            (tmp_path / "study").mkdir()
            (tmp_path / "study" / "cells.json").write_text(json.dumps({f"cell-{i}": {} for i in range(6)}))
            return 30.0
        return {"cell-0": 10.0, "cell-3": 20.0}[Path(command[-1]).name]

    monkeypatch.setattr(study_cost, "processor_seconds", seconds)
    result = study_cost.compare("connectors", "smoke", tmp_path, most=2)
    assert result == {"cells": 6, "measured": 2, "study": 30.0, "alone": 180.0, "ratio": 6.0}
    assert caches == ["cache", *["cache-cell-0"] * 2, *["cache-cell-3"] * 2]
