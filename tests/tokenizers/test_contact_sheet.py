"""Clips as images of all their frames."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.tokenizers.contact_sheet import ContactSheet


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
