"""Cells on Ray, where it is installed; without it, how to get it."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from chiasm.errors import ChiasmError
from chiasm.studies.processes import run_apart
from chiasm.studies.ray_processes import ray_processes


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ChiasmError, match=r"pip install 'chiasm\[ray\]'"), ray_processes("local"):
        pass


@pytest.mark.parametrize(("jobs", "expected"), [(0, 8), (3, 3), (20, 8)])
def test_jobs_are_processes_at_a_time_on_a_cluster_too(monkeypatch, jobs, expected):
    cluster = SimpleNamespace(
        init=lambda **options: None,
        shutdown=lambda: None,
        cluster_resources=lambda: {"CPU": 8.0},
        remote=lambda **options: lambda function: function,
    )
    monkeypatch.setitem(sys.modules, "ray", cluster)
    with ray_processes("auto", jobs) as processes:
        assert processes.jobs == expected


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_a_process_on_ray_does_and_says_what_one_here_does(tmp_path):
    recipe = tmp_path / "no recipe.yaml"
    from chiasm.studies.work import write_cost

    arguments = (str(recipe), str(tmp_path / "cost.json"), "id", [])
    with ray_processes("local", jobs=1) as processes:
        assert processes.jobs == 1
        assert not processes.run(write_cost, arguments, tmp_path / "ray.log")
    assert not run_apart(write_cost, arguments, tmp_path / "here.log")
    last = [(tmp_path / name).read_text().splitlines()[-1] for name in ("ray.log", "here.log")]
    assert "no recipe.yaml" in last[0]
    assert last[0] == last[1]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_where_no_ray_answers_it_is_said():
    with (
        pytest.raises(ChiasmError, match="Ray cannot be reached at 'nothing:here'"),
        ray_processes("nothing:here"),
    ):
        pass
