"""Clips as images of all their frames."""

import pytest
import torch

from chiasm import parts
from chiasm.data.documents import document
from chiasm.distribution.processes import Ranks
from chiasm.errors import DataError, RecipeError
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.tokenizers.contact_sheet import ContactSheet
from chiasm.training.train import build_sources
from chiasm.training.usable import stage_batches


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return parts.build("image_tokenizer", {"type": "contact_sheet", **ContactSheet.example()}).eval()


def test_its_codes_are_those_of_the_clip_the_earliest_grid_on_top(tokenizer):
    video = torch.rand(2, 3, 3, 16, 16)
    sheet = torch.ones(2, 3, 32, 32)
    sheet[..., :16, :16], sheet[..., :16, 16:], sheet[..., 16:, :16] = video.unbind(1)
    inner = tokenizer.tokenizer.encode_video(video)
    assert inner.shape == (2, 2, 4, 4)
    codes = tokenizer.encode(sheet)
    assert codes.shape == (2, *tokenizer.grid) == (2, 8, 4)
    assert torch.equal(codes[:, :4], inner[:, 0])
    assert torch.equal(codes[:, 4:], inner[:, 1])
    decoded = tokenizer.decode(codes)
    assert torch.equal(tokenizer.video(decoded), tokenizer.tokenizer.decode_video(inner))
    assert (decoded[..., 16:, 16:] == 1).all()
    assert tokenizer.losses(sheet).keys() == tokenizer.tokenizer.video_losses(video).keys()


def test_how_many_grids_a_clip_has():
    emu3 = {"type": "vqgan_video", **parts.lookup("image_tokenizer", "vqgan_video").example()}
    built = parts.build("image_tokenizer", {"type": "contact_sheet", "tokenizer": emu3, "frames": 8})
    video = torch.rand(1, 8, 3, 32, 32)
    assert built.grids == built.tokenizer.encode_video(video).shape[1] == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"tokenizer": {"type": "vq", "size": 32, "width": 16}},
            "holds a tokenizer of moving pictures, which 'vq' is not",
        ),
        ({**ContactSheet.example(), "frames": 4}, r"makes clips of 1 \+ 2 k frames, not of 4"),
    ],
)
def test_what_does_not_fit_is_a_sentence(options, sentence):
    with pytest.raises(RecipeError, match=sentence):
        parts.build("image_tokenizer", {"type": "contact_sheet", **options})


def videopoet(*overrides):
    frames = [f"data.{name}.of.frames=3" for name in ("films", "held-out")]
    return load_recipe("videopoet", [*frames, *overrides], tiny=True)


def test_sheets_of_another_number_of_frames_are_refused_by_all_that_learn_of_them():
    recipe = videopoet()
    model, sources = Model(recipe.model, texts=["a b"] * 9), build_sources(recipe)
    wrong = "has a clip of 3 frames, but this model's image tokenizer makes codes of 5; set its frames"
    with pytest.raises(DataError, match=wrong):
        document(model.contract, sources["films"][0][0])
    for stage in recipe.stages:
        with pytest.raises(DataError, match=wrong):
            stage_batches(model, sources, stage, 0, Ranks()).next()
    clips = recipe.stages[0].model_copy(update={"data": {"clips": 1.0}})
    with pytest.raises(
        DataError, match=r"has a clip where .* sheets of 5 frames; data source 'films' makes those"
    ):
        stage_batches(model, {"clips": sources["films"].of}, clips, 0, Ranks()).next()


def test_the_half_behind_its_codes_can_learn_alone(tokenizer):
    pixels = torch.rand(2, 3, 32, 32)
    codes = tokenizer.encode(pixels)
    (loss,) = tokenizer.decoding_losses(codes, pixels).values()
    expected = 2 * (tokenizer.tokenizer.decode_video(codes.view(2, 2, 4, 4)) - tokenizer.video(pixels)).abs()
    torch.testing.assert_close(
        loss.mean, expected.mean(), atol=0.05, rtol=0
    )  # decoded pixels are cut to [0, 1]
    assert set(tokenizer.decoding) == {f"tokenizer.{name}" for name in tokenizer.tokenizer.decoding}
