"""MiniCPM-V's slices: how a picture is cut, and which words stand round its visual tokens."""

import math
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
    return parts.build("views", {"type": "slices", "size": 40, "patch": 4, **options})


def spelled(cut, size, tokens=1):
    order = cut.arrange(size, [(1, tokens)] * len(cut.split(size)))
    return "".join("?" if index >= 0 else cut.words[-1 - index] for index in order)


def test_a_picture_of_no_more_pixels_than_a_square_is_enlarged_and_seen_alone():
    (view,) = views().split(Size(10, 10))
    assert (view.box, view.size) == ((0, 0, 10, 10), (40, 40))
    assert spelled(views(), Size(10, 10), 2) == "<image>??</image>"


def test_a_larger_one_is_cut_into_slices_behind_its_overview():
    split = views().split(Size(80, 80))  # four squares: 2 x 2
    assert [view.size for view in split] == [(40, 40)] * 5
    assert [view.box for view in split[1:3]] == [(0, 0, 40, 40), (40, 0, 80, 40)]
    assert spelled(views(), Size(80, 80)) == (
        "<image>?</image><slice><image>?</image><image>?</image>\n<image>?</image><image>?</image></slice>"
    )


def test_since_version_2_6_slices_have_words_of_their_own():
    cut = views(slice_words=("<slice>", "</slice>"), slices_words=("", ""))
    assert spelled(cut, Size(80, 40)) == "<image>?</image><slice>?</slice>\n<slice>?</slice>"


def test_halves_are_rounded_to_the_even_multiple():
    """30 x 30 pixels of patches of 4: 7.5 patches are 8; of 12: 2.5 are 2."""
    cut = views(size=30, slices=1)
    assert cut.split(Size(30, 30))[0].size == (32, 32)
    assert views(size=30, patch=12, slices=1).split(Size(30, 30))[0].size == (24, 24)


@pytest.mark.parametrize("slices", [1, 4, 9])
def test_what_holds_of_slices_holds_over_ten_thousand_sizes(slices):
    random.seed(0)
    cut = views(slices=slices)
    sizes = [Size(1, 1), Size(20, 20000), Size(20000, 20)]
    sizes += [Size(random.randint(1, 400), random.randint(1, 400)) for _ in range(10000 // 3)]
    for size in sizes:
        plan = cut.plan(size)
        count = plan.rows * plan.columns
        squares = min(math.ceil(size.height * size.width / 1600), slices)
        assert (count == 0) == (squares <= 1)
        assert count == 0 or (abs(count - squares) <= 1 and 1 < count <= slices)
        for side in (*plan.overview, *(plan.slice if count else ())):
            assert side >= 4
            assert side % 4 == 0
        assert len(cut.split(size)) == 1 + count


@pytest.fixture
def model(tiny):
    tiny["model"]["views"] = {"type": "slices", "size": 16, "patch": 8, "slices": 4}
    tiny["model"]["connector"] = {"type": "resampler_2d", "queries": 4, "heads": 2}
    tiny["model"]["language"]["special_tokens"] = ["<image>", "</image>", "<slice>", "</slice>"]
    tiny["model"]["language"]["read_marker"] = "#{number}:"
    return Model(load_recipe(tiny).model, texts=["Where is it? There. #0:1:"]).eval()


def test_words_are_the_language_models_own(model):
    """Of an image in a document, all but the visual tokens are words with their own embeddings."""
    image, contract = PictureInMemory(Image.new("RGB", (32, 16), "red")), model.contract
    sample = Sample("one", (Message("user", (image, "Where?")), Message("assistant", ("There.",))))
    written = document(contract, sample)
    (slot,) = written.slots
    embeddings = model.embed(PictureReader(contract).attach(*pack([[written]]))).embeddings[0]
    pieces = ["<image>", None, "</image><slice><image>", None, "</image><image>", None, "</image></slice>"]
    position = slot.start
    for piece in pieces:
        ids = [] if piece is None else contract.tokenizer.encode(piece)
        for id in ids:
            torch.testing.assert_close(embeddings[position], model.language.embed(torch.tensor(id)))
            position += 1
        position += 4 if piece is None else 0
    assert position == slot.start + slot.length


def test_pictures_of_a_document_are_counted(model):
    images = [PictureInMemory(Image.new("RGB", (16, 16), colour)) for colour in ("red", "blue")]
    written = document(model.contract, Sample("two", (Message("user", (*images, "Where?")),)), prompt=True)
    before = [written.ids[: slot.start] for slot in written.slots]
    for number, ids in enumerate(before):
        assert model.language.tokenizer.decode(ids).endswith(f"#{number}:")


def test_words_need_a_place_in_the_sequence(tiny):
    tiny["model"]["views"] = {"type": "slices", "size": 16, "patch": 8}
    tiny["model"]["routing"] = {"type": "gated_cross_attention"}
    with pytest.raises(RecipeError, match="have words"):
        Model(load_recipe(tiny).model, texts=["a b"])
