"""BEiT-3's transformer: positions, what is shared, and what a picture's tokens see."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from chiasm import parts
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.errors import RecipeError
from chiasm.language.beit3 import word_positions
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from chiasm.sequence.layout import Layout

SMALL = {"type": "beit3", "width": 16, "depth": 2, "heads": 2, "hidden": 24, "context": 64, "vocabulary": 300}


@pytest.fixture
def language():
    torch.manual_seed(0)
    return parts.build("language", SMALL, ["some words to learn"]).eval()


def read(language, embeddings, kinds, layout=None):
    layout = layout or Layout.causal(*kinds.shape)
    with torch.no_grad():
        return language(embeddings, replace(layout, kinds=kinds))


def test_words_are_counted_without_pictures_and_from_the_start_of_each_document():
    kinds = torch.tensor([[0, 1, 1, 0, 0, 0, 1, 0, 0]])
    documents = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, -1]])
    every = torch.ones_like(documents, dtype=torch.bool)
    words, index = word_positions(Layout(documents, every, every, kinds=kinds))
    assert words[0].tolist() == [True, False, False, True, True, True, False, True, False]
    assert index[0].tolist() == [0, 0, 0, 1, 2, 0, 0, 1, 0]


def test_words_are_counted_on_behind_padding_in_the_middle_of_a_document():
    documents, every = torch.tensor([[0, 0, -1, -1, 0, 0]]), torch.ones(1, 6, dtype=torch.bool)
    words, index = word_positions(Layout(documents, every, every, queries=2))
    assert words.tolist() == [[True, True]]
    assert index.tolist() == [[2, 3]]


def test_word_positions_begin_at_the_third_row(language):
    nn.init.zeros_(language.positions.weight[:2])
    x = torch.randn(1, 1, 16)
    before = read(language, x, torch.zeros(1, 1, dtype=torch.long))
    with torch.no_grad():
        language.positions.weight[0] += 1
    assert torch.equal(read(language, x, torch.zeros(1, 1, dtype=torch.long)), before)
    with torch.no_grad():
        language.positions.weight[2] += 1
    assert not torch.equal(read(language, x, torch.zeros(1, 1, dtype=torch.long)), before)


def test_words_alone_do_not_depend_on_the_weights_of_images(language):
    x, kinds = torch.randn(1, 5, 16), torch.zeros(1, 5, dtype=torch.long)
    before = read(language, x, kinds)
    for name, parameter in language.named_parameters():
        if ".image." in name:
            nn.init.normal_(parameter)
    assert torch.equal(read(language, x, kinds), before)
    assert not torch.equal(read(language, x, kinds + 1), before)


def test_without_inner_norms_there_are_fewer_weights():
    full, plain = (
        parts.build("language", {**SMALL, "sub_norm": inner}, ["words"]).state_dict()
        for inner in (True, False)
    )
    assert len(full) - len(plain) == 2 * 2 * 2 * 2  # layers, ways, norms, weight and bias


def test_heads_divide_the_width():
    with pytest.raises(RecipeError, match="3 heads do not divide the width 16"):
        parts.build("language", {**SMALL, "heads": 3}, ["words"])


def test_the_tokens_of_a_picture_see_each_other_and_no_word_behind_them(tiny):
    from PIL import Image

    from chiasm.data.files import PictureInMemory

    for slot in ("image_tokenizer", "heads"):
        del tiny["model"][slot]
    tiny["stages"] = []
    tiny["model"] |= {"language": SMALL, "connector": {"type": "embedding", "grid": [4, 4]}}
    model = Model(load_recipe(tiny).model, texts=["what is it"]).eval()
    picture = PictureInMemory(Image.new("RGB", (20, 20), "red"))
    asked = Sample("one", (Message("user", (picture, "what is it")),))
    batch, slots = pack([[document(model.contract, asked, prompt=True)]])
    batch = PictureReader(model.contract).attach(batch, slots)
    there = batch.kinds[0] == 1
    assert int(there.sum()) == 17
    allowed = batch.layout.allowed[0]
    assert allowed[there][:, there].all()
    last = int(there.nonzero()[-1])
    assert not allowed[there][:, last + 1 :].any()


def test_masked_patches_are_the_mask_token():
    connector = parts.build("connector", {"type": "embedding", "grid": [2, 2]}, 3, 4)
    connector.mask_token.fill_(7)
    masked = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    grid = torch.randn(1, 2, 2, 3)
    plain, made = connector(grid), connector(grid, masked)
    torch.testing.assert_close(made[0, 1], 7 + connector.positions[3])
    assert torch.equal(made[:, [0, 2, 3, 4]], plain[:, [0, 2, 3, 4]])


def test_positions_are_interpolated_for_another_grid():
    connector = parts.build("connector", {"type": "embedding", "grid": [2, 2]}, 3, 4)
    nn.init.ones_(connector.positions)
    made = connector(torch.zeros(1, 3, 5, 3)) - connector.projection.bias
    assert made.shape == (1, 16, 4)
    torch.testing.assert_close(made[:, 1:], torch.ones(1, 15, 4))
