"""LLaVA-UHD's slices: how an image is cut, what stands between, and which pieces of the vocabulary that is."""

import random

import pytest
import torch
from PIL import Image

from chiasm import parts
from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from chiasm.views import Size


def views(**options):
    return parts.build("views", {"type": "uhd_slices", "size": 40, "patch": 4, **options})


def spelled(cut, size, tokens=1):
    order = cut.arrange(size, [(1, tokens)] * len(cut.split(size)))
    return "".join(
        "?" if index >= 0 else {",": ",", "<0x0A>": "\n"}[cut.words[-1 - index]] for index in order
    )


def test_an_image_of_no_more_pixels_than_a_slice_is_seen_alone_without_a_word():
    (view,) = views().split(Size(10, 10))
    assert (view.box, view.size) == ((0, 0, 10, 10), (40, 40))
    assert spelled(views(), Size(10, 10), 2) == "??"


def test_slices_come_row_by_row_with_words_behind_them_and_the_overview_last():
    split = views().split(Size(80, 120))  # six squares: 2 x 3
    assert [view.box for view in split[:4]] == [
        (0, 0, 40, 40), (40, 0, 80, 40), (80, 0, 120, 40), (0, 40, 40, 80),
    ]  # fmt: skip
    assert split[-1].box == (0, 0, 120, 80)
    assert spelled(views(), Size(80, 120)) == "?,?,?\n?,?,?\n?"


def test_what_does_not_fill_a_patch_is_left_out():
    """30 pixels are 7.5 patches of 4: 7."""
    assert views(size=30, slices=1).split(Size(30, 30))[0].size == (28, 28)


def test_any_image_may_be_made_large_before_it_is_cut():
    """At 80 pixels an image of 10 x 20 has 40 x 80 pixels, which are two slices."""
    assert len(views(longest=80).split(Size(10, 20))) == 3
    assert len(views(longest=80).split(Size(1000, 2000))) == 3
    assert views(longest=80).split(Size(1, 2000))[-1].size == views(longest=80).split(Size(1, 4000))[-1].size


def test_what_holds_of_slices_holds_over_many_sizes():
    random.seed(0)
    sizes = [Size(1, 1), Size(20, 20000), Size(20000, 20)]
    sizes += [Size(random.randint(1, 400), random.randint(1, 400)) for _ in range(2000)]
    cut = views()
    for size in sizes:
        split, plan = cut.split(size), cut.plan(size)
        text = spelled(cut, size)
        assert len(split) == 1 + plan.rows * plan.columns <= 8
        assert text.count("\n") == plan.rows
        assert text.count("?") == len(split)
        assert not any(side % 4 or side < 4 for view in split for side in view.size)


@pytest.fixture
def model(tiny):
    tiny["model"]["views"] = {
        "type": "uhd_slices",
        "size": 16,
        "patch": 8,
        "slices": 4,
        "separators": [",", "Ċ"],
    }
    tiny["model"]["connector"] = {"type": "region_resampler", "queries": 4, "heads": 2}
    return Model(load_recipe(tiny).model, texts=["Where is it? There."]).eval()


def test_the_words_are_single_pieces_with_the_language_models_embeddings(model):
    image, contract = PictureInMemory(Image.new("RGB", (32, 16), "red")), model.contract
    sample = Sample("one", (Message("user", (image, "Where?")), Message("assistant", ("There.",))))
    written = document(contract, sample)
    (slot,) = written.slots
    assert slot.length == 3 * 4 + 2
    embeddings = model.embed(PictureReader(contract).attach(*pack([[written]]))).embeddings[0]
    vocabulary = contract.tokenizer.inner.get_vocab()
    for offset, name in ((4, ","), (9, "Ċ")):
        own = model.language.embed(torch.tensor(vocabulary[name]))
        torch.testing.assert_close(embeddings[slot.start + offset], own)


def test_a_word_that_is_no_piece_is_refused_by_name(tiny):
    tiny["model"]["views"] = {"type": "uhd_slices", "size": 16, "patch": 8, "separators": [",", "<0x0A>"]}
    with pytest.raises(RecipeError, match="no piece '<0x0A>'"):
        Model(load_recipe(tiny).model, texts=["a b"])
