"""Every command on a second device: no tensor is made on another one than the model's."""

import sys

import pytest
import torch
import yaml
from PIL import Image

import chiasm
from chiasm.cli import main
from chiasm.recipe.slots import by_slot
from second_device import Elsewhere, second_device
from tiny_recipe import TINY

RUNS = {
    "sees": {},
    "masked": {"heads": {"image": {"type": "masked", "alphabet": {"type": "own"}, "steps": 3}}},
    "scales": {
        "image_tokenizer": {
            "type": "multi_scale", "width": 32, "multipliers": [1, 2, 2], "depth": 1,
            "code_width": 8, "codebook_size": 16, "scales": [1, 2, 8],
        },
        "heads": {"image": {"type": "scales", "alphabet": {"type": "own"}}},
    },
}  # fmt: skip


def chiasm_runs(*arguments):
    sys.argv = ["chiasm", *map(str, arguments)]
    main()  # an error would be a SystemExit


def recipe_file(place, model, *, sees=True):
    slots = {k: v for k, v in TINY["model"].items() if sees or k not in ("views", "encoder", "connector")}
    raw = {**TINY, "model": {**slots, **model}}
    raw["data"] = {**TINY["data"], "held-out": {**TINY["data"]["held-out"], "objects": [2, 2]}}
    raw["stages"] = [
        {
            **stage,
            "steps": 2,
            "train": {k: v for k, v in stage["train"].items() if k in by_slot(raw["model"], "model")},
        }
        for stage in TINY["stages"]
    ]
    place.write_text(yaml.safe_dump(raw))
    return place


def test_tensors_of_two_devices_do_not_mix(monkeypatch):
    """The simulation itself: as on a GPU."""
    with second_device(monkeypatch) as mode:
        one = torch.arange(4, device="meta") * 2
        assert isinstance(one, Elsewhere)
        assert one.tolist() == [0, 2, 4, 6]
        assert isinstance(torch.tensor([1, 2], device=one.device), Elsewhere)
        assert int(one.sum()) == 12
        assert mode.operations > 3
        with pytest.raises(AssertionError, match="takes tensors of two devices"):
            one + torch.arange(4)


@pytest.mark.parametrize(
    "name", ["sees", *(pytest.param(name, marks=pytest.mark.slow) for name in RUNS if name != "sees")]
)
def test_commands_follow_the_device_of_the_model(monkeypatch, tmp_path, name):
    recipe, run = recipe_file(tmp_path / "recipe.yaml", RUNS[name]), tmp_path / "run"
    Image.new("RGB", (32, 32), "white").save(tmp_path / "a.png")
    with second_device(monkeypatch) as mode:
        for command in (
            ["train", recipe, "--out", run],
            ["eval", run],
            ["chat", run, "-m", "What is this?", "-p", tmp_path / "a.png", "--save", tmp_path],
            ["generate", run, "Draw: a dog.", "a cat", "--temperature", "1", "--out", tmp_path / "drawn"],
            ["tokenizer", "report", run, "--out", tmp_path / "report", "--pictures", "4"],
        ):
            mode.operations = 0
            chiasm_runs(*command)
            assert mode.operations > 100, command
        on_it = chiasm.load(run)
        assert {type(each) for each in (*on_it.parameters(), *on_it.buffers())} <= {
            Elsewhere,
            torch.nn.Parameter,
        }
        assert {each.device.type for each in (*on_it.parameters(), *on_it.buffers())} == {"meta"}
        drawn = on_it.generate("Draw: a dog.", seed=3)[0]
    assert chiasm.load(run, "cpu").generate("Draw: a dog.", seed=3)[0].tobytes() == drawn.tobytes()


@pytest.mark.slow
def test_completion_follows_the_device_of_the_model(monkeypatch, tmp_path):
    recipe, run = recipe_file(tmp_path / "recipe.yaml", {}, sees=False), tmp_path / "run"
    Image.new("RGB", (32, 32), "white").save(tmp_path / "a.png")
    with second_device(monkeypatch) as mode:
        chiasm_runs("train", recipe, "--out", run)
        mode.operations = 0
        chiasm_runs("complete", run, tmp_path / "a.png", "--count", "2", "--out", tmp_path / "drawn")
        assert mode.operations > 100
