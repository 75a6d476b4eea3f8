"""A recipe whose model is an image tokenizer alone: trained, loaded, resumed, and clear about what it cannot do."""

import copy

import pytest
import torch
from rich.console import Console
from toy import GRID

import chiasm
from chiasm.errors import ChiasmError, RecipeError
from chiasm.evaluation.evaluate import evaluate
from chiasm.recipe import load_recipe
from chiasm.training import train
from chiasm.training.loop import Training

QUIET = Console(quiet=True)
VIDEO = {
    "vqgan_video": {"size": 16, "width": 32, "multipliers": [1, 1], "depth": 1, "attention_levels": [1],
                    "quantizer": {"type": "nearest", "codebook_size": 16, "width": 4}},
    "open_magvit2_video": {"size": 16, "width": 32, "multipliers": [1, 2, 2], "depth": 1,
                           "quantizer": {"type": "lfq", "bits": 5}},
}  # fmt: skip


def raw(**changes):
    return {
        "name": "alone",
        "model": {"image_tokenizer": {"type": "vq", **GRID, "settle": 2}},
        "data": {"squares": {"type": "test_squares"}},
        "stages": [
            {
                "name": "codes",
                "train": {"image_tokenizer": 1e-3},
                "data": {"squares": 1.0},
                "steps": 6,
                "rows": 4,
            }
        ],
        "checkpoints": {"every": 2, "keep": 2},
        **changes,
    }


def moving(name, frames, **world):
    recipe = raw(model={"image_tokenizer": {"type": name, **VIDEO[name]}})
    recipe["data"] = {
        "squares": {"type": "moving_world", "canvas": 16, "frames": frames, "clips": 20, **world}
    }
    return load_recipe(recipe)


def test_it_is_trained_and_loaded_like_any_model(tmp_path):
    train(load_recipe(raw()), tmp_path / "run", console=QUIET)
    model = chiasm.load(tmp_path / "run")
    pictures = torch.rand(2, 3, 16, 16)
    codes = model.image_tokenizer.encode(pictures)
    assert codes.shape == (2, *model.image_tokenizer.grid)
    assert torch.equal(model.image_decoder.decode(codes), model.image_tokenizer.decode(codes))
    assert not (tmp_path / "run" / "final" / "tokenizer").exists()


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch):
    recipe = load_recipe(raw())
    train(recipe, tmp_path / "whole", console=QUIET)
    step = Training._step

    def stopping(self, *args):
        if self.position.step == 3:
            raise RuntimeError("killed")
        step(self, *args)

    monkeypatch.setattr(Training, "_step", stopping)
    with pytest.raises(RuntimeError):
        train(recipe, tmp_path / "killed", console=QUIET)
    monkeypatch.setattr(Training, "_step", step)
    train(recipe, tmp_path / "killed", console=QUIET)
    one, other = (chiasm.load(tmp_path / name).state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_it_says_what_it_cannot_do(tmp_path):
    train(load_recipe(raw()), tmp_path / "run", console=QUIET)
    model = chiasm.load(tmp_path / "run")
    with pytest.raises(ChiasmError, match="an image tokenizer alone; it has no language model"):
        model.chat("What is this?")
    with pytest.raises(ChiasmError, match="no language model"):
        model.generate("Draw: a dog.")
    with pytest.raises(ChiasmError, match="chiasm tokenizer report"):
        evaluate(tmp_path / "run")


def test_a_part_that_joins_others_does_not_stand_alone(tmp_path):
    recipe = copy.deepcopy(raw())
    recipe["model"]["heads"] = {"image": {"type": "raster", "alphabet": {"type": "own"}}}
    with pytest.raises(RecipeError, match=r"heads\.image but no language"):
        train(load_recipe(recipe), tmp_path / "run", console=QUIET)


@pytest.mark.parametrize(("name", "frames"), [("vqgan_video", 4), ("open_magvit2_video", 5)])
def test_a_tokenizer_of_moving_pictures_learns_from_clips(name, frames, tmp_path):
    train(moving(name, frames), tmp_path / "run", console=QUIET)
    tokenizer = chiasm.load(tmp_path / "run").image_tokenizer
    clips = torch.rand(2, frames, 3, 16, 16)
    assert tokenizer.decode_video(tokenizer.encode_video(clips)).shape == clips.shape


def test_clips_of_a_length_that_cannot_be_made_are_refused(tmp_path):
    with pytest.raises(ChiasmError, match="clips of 6 frames given to image_tokenizer 'vqgan_video'"):
        train(moving("vqgan_video", 6), tmp_path / "run", console=QUIET)


def test_clips_and_pictures_do_not_mix_in_a_batch(tmp_path):
    recipe = moving("vqgan_video", 4).model_dump(mode="json")
    recipe["data"]["stills"] = {"type": "test_squares"}
    recipe["stages"][0]["data"] = {"squares": 1.0, "stills": 1.0}
    with pytest.raises(ChiasmError, match="mixes pictures, clips of 4 frames in a batch"):
        train(load_recipe(recipe), tmp_path / "run", console=QUIET)


def test_any_other_tokenizer_takes_the_first_frames(tmp_path):
    recipe = raw(data={"squares": {"type": "moving_world", "canvas": 16, "clips": 20}})
    train(load_recipe(recipe), tmp_path / "run", console=QUIET)
