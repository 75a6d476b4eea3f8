"""`chiasm tokenizer report`: what it measures, on what, and what it writes."""

import json

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import chiasm
from chiasm import parts
from chiasm.cli import app
from chiasm.errors import ChiasmError
from chiasm.evaluation.tokenizer_report import report
from chiasm.evaluation.tokenizers import measure
from chiasm.recipe import load_recipe
from chiasm.training import train

SMALL = {"size": 32, "downsample": 8, "codebook_size": 16, "code_width": 8, "width": 16, "settle": 1}
FILES = {"report.md", "report.json", "rate.svg", "sheet.png"}


def trained(folder, name="vq", tokenizer=None, world=None, evaluation="held-out"):
    world = world or {
        "type": "world",
        "emoji": 8,
        "grid": 2,
        "objects": [1, 2],
        "canvas": 32,
        "drawn_canvas": 32,
    }
    recipe = {
        "name": name,
        "model": {"image_tokenizer": tokenizer or {"type": "vq", **SMALL}},
        "data": {"seen": world, "held-out": {**world, "split": "emoji"}},
        "stages": [
            {
                "name": "codes",
                "train": {"image_tokenizer": 1e-3},
                "data": {"seen": 1.0},
                "steps": 3,
                "rows": 4,
            }
        ],
        "evaluation": {"data": evaluation},
    }
    return train(load_recipe(recipe), folder / name, console=Console(quiet=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    two = {"type": "vqvae2", "size": 32, "width": 16, "depth": 1, "residual_width": 8, "code_width": 8}
    return trained(folder), trained(folder, "vqvae2", {**two, "codebook_size": 16})


def test_the_command_prints_a_table_and_writes_the_files(runs, tmp_path):
    said = CliRunner().invoke(
        app, ["tokenizer", "report", *map(str, runs), "--out", str(tmp_path / "out"), "--pictures", "6"]
    )
    assert said.exit_code == 0, said.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert "6 held-out images" in said.output
    assert "FD-efficientnet-lite0" in said.output
    told = (tmp_path / "out" / "report.md").read_text()
    assert "| vq |" in told
    assert "| vqvae2 |" in told
    assert (tmp_path / "out" / "rate.svg").read_text().startswith("<svg xmlns")


def test_bits_are_codes_times_the_logarithm_of_the_vocabulary(runs, tmp_path):
    vq, two = report(runs, tmp_path, count=6)
    assert (vq["codes"], vq["bits"]) == (16, 16 * 4)
    assert (two["codes"], two["bits"]) == (16 + 64, 80 * 4)
    assert two["dead"] + two["used"] == 2 * 16  # each level has a codebook of its own
    for told in (vq, two):
        assert told["coded_bits"] <= told["bits"]
        assert told["dead"] + told["used"] == pytest.approx(told["used"] / told["use"])
        assert told["psnr_ci"][0] < told["psnr"] < told["psnr_ci"][1]
    assert json.loads((tmp_path / "report.json").read_text())[0]["psnr"] == vq["psnr"]


def test_a_tokenizer_that_loses_nothing_is_measured_as_such(runs):
    model = chiasm.load(runs[0])
    seen = {}
    model.image_tokenizer.encode = lambda pixels: (
        seen.update(pixels=pixels) or torch.zeros(len(pixels), 4, 4, dtype=torch.long)
    )
    model.image_decoder.decode = lambda codes, generators=None: seen["pixels"]
    world = chiasm.load_recipe(runs[0]).data["held-out"]
    told = measure(model, parts.build("data", world), 5).figures
    assert told["psnr"] == 100
    assert told["ssim"] == pytest.approx(1, abs=1e-5)
    assert told["feature_distance"] == pytest.approx(0, abs=1e-3)
    assert (told["used"], told["entropy"], told["coded_bits"]) == (1, 0, 0)


def test_clips_are_measured_by_the_clip(tmp_path):
    moving = {"type": "moving_world", "canvas": 16, "frames": 5, "clips": 20, "emoji": 8}
    tokenizer = {
        "type": "open_magvit2_video",
        "size": 16,
        "width": 32,
        "multipliers": [1, 2, 2],
        "depth": 1,
        "quantizer": {"type": "lfq", "bits": 5},
    }
    out = tmp_path / "reports" / "of clips"  # neither folder is there yet
    (told,) = report([trained(tmp_path, "video", tokenizer, moving)], out, count=4)
    assert (told["unit"], told["frames"], told["pictures"]) == ("clip", 5, 4)
    assert told["codes"] == 3 * 4 * 4  # the first frame alone, then two and two
    assert told["bits"] == 48 * 5
    assert "clips of 5 frames" in (out / "report.md").read_text()


def test_what_was_measured_on_other_pictures_stands_in_another_table(runs, tmp_path):
    other = trained(tmp_path, "other", world={"type": "moving_world", "canvas": 32, "clips": 20, "emoji": 8})
    report([runs[0], other], tmp_path / "out", count=4)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"rate-2.svg", "sheet-2.png"}
    told = report([runs[0], other], tmp_path / "same", count=4, data=runs[0])
    assert told[0]["data"] == told[1]["data"]


def test_a_run_without_held_out_pictures_takes_those_of_the_others(runs, tmp_path):
    bare = trained(tmp_path, "bare", evaluation=None)
    told = report([bare, runs[0]], tmp_path / "out", count=4)
    assert told[0]["data"] == told[1]["data"]


def test_what_cannot_be_measured_is_said(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ChiasmError, match="has not been trained into runs/quickstart: chiasm train quickstart"
    ):
        report(["quickstart"], tmp_path / "out")
    seer = {"name": "seer", "model": {"encoder": {"type": "patches"}}, "data": {}, "stages": []}
    from chiasm.model import Model
    from chiasm.model.checkpoint import save_model

    recipe = load_recipe(seer)
    save_model(Model(recipe.model), recipe, tmp_path / "seer")
    with pytest.raises(ChiasmError, match="seer has no image tokenizer"):
        report([tmp_path / "seer"], tmp_path / "out")
