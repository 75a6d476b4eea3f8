"""What is LlamaGen's own: turning by cell, conditions without a place, class numbers, captions read whole."""

from dataclasses import replace

import pytest
import torch

from chiasm.data.documents import document, draw_prompt, without_prompt
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Sample
from chiasm.errors import DataError, RecipeError
from chiasm.heads import raster
from chiasm.inference.session import Session
from chiasm.language.llama_block import GridRotation, hidden_width, turned
from chiasm.language.text import TextTokenizer
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import Kind
from chiasm.sequence.layout import Layout

SIZES = {"width": 32, "depth": 2, "heads": 4, "hidden": 48}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
TOKENIZER = {"type": "vq", "size": 64, "width": 16, "depth": 1, "codebook_size": 16, "code_width": 8}


def model(**language):
    raw = {
        "name": "tiny",
        "model": {
            "language": {"type": "llamagen", **SIZES, **language},
            "image_tokenizer": TOKENIZER,
            "heads": {
                "image": {"type": "raster", "cells": False, "alphabet": {"type": "own", "deviation": 0.0}}
            },
        },
        "data": {},
        "stages": [],
    }
    return Model(load_recipe(raw).model, texts=["draw a dog", "draw a cat"]).eval()


def turns(language, kinds, cells=(), queries=None):
    """cells: of a grid of 4 x 4, in which the positions that are written stand."""
    kinds, coordinates = torch.tensor([kinds]), torch.zeros(1, len(kinds), 3, dtype=torch.long)
    coordinates[kinds == Kind.WRITTEN] = torch.tensor(raster(4, 4))[list(cells)]
    layout = Layout.causal(*kinds.shape, kinds=kinds, coordinates=coordinates)
    return language.rotary(replace(layout, queries=queries))


def test_a_code_turns_by_its_row_and_column_and_a_class_not_at_all():
    language = model(classes=10).language
    W, T = int(Kind.WRITTEN), int(Kind.TEXT)
    found = turns(language, [T] + [W] * 6, range(6))
    assert not found.real[0, 0].any()
    assert not found.imag[0, 0].any()
    expected = language.rotation(*(torch.tensor([axis]) for axis in ([1], [1])), torch.tensor([[True]]))
    assert torch.equal(found.imag[0, 6], expected.imag[0, 0])  # cell 5 of 4 x 4


def test_a_code_behind_a_cache_turns_by_its_cell():
    language = model(classes=10).language
    W, T = int(Kind.WRITTEN), int(Kind.TEXT)
    whole = turns(language, [T, W, W, W, W], range(4))
    assert torch.equal(turns(language, [T, W, W, W, W], range(4), queries=2).imag, whole.imag[:, 3:])


def test_words_and_the_images_between_them_turn_along_the_diagonal():
    language = model(turn_words=True).language
    W, T = int(Kind.WRITTEN), int(Kind.TEXT)
    found = turns(language, [T, T, W, W, W, W, W, T], range(5))
    places = torch.tensor([[0, 1, 2, 2, 2, 2, 3, 7], [0, 1, 2, 3, 4, 5, 2, 7]])
    expected = language.rotation(places[:1], places[1:], torch.ones(1, 8, dtype=torch.bool))
    assert torch.equal(found, expected)


def test_words_that_turn_have_an_order_and_others_have_none():
    for turn, equal in ((False, True), (True, False)):
        made = model(turn_words=turn)
        with torch.no_grad():
            one, other = (_last(made, ids) for ids in ([5, 6, 7, 8], [6, 5, 7, 8]))
        # One layer sees a set; that a prefix is a set as well gives further layers a trace of the order.
        assert torch.allclose(one, other, atol=1e-6) == equal


def _last(made, ids):
    language = made.language
    language.layers = language.layers[:1]
    return language(language.embed(torch.tensor([ids])), Layout.causal(1, len(ids)))[0, -1]


def test_turning_keeps_lengths_and_tells_how_far_apart():
    rotation = GridRotation(8)
    query, key = torch.randn(2, 1, 1, 1, 8)

    def at(x, row, column):
        return turned(x, rotation(torch.tensor([[row]]), torch.tensor([[column]]), torch.tensor([[True]])))

    torch.testing.assert_close(at(query, 3, 5).norm(), query.norm())
    one, other = ((at(query, r, 5) * at(key, r + 2, 1)).sum() for r in (0, 7))
    torch.testing.assert_close(one, other)
    with pytest.raises(RecipeError, match="multiple of 4"):
        GridRotation(6)


def test_widths_of_the_published_models():
    assert [hidden_width(width) for width in (768, 1024, 1280)] == [2048, 2816, 3584]


def test_a_class_is_a_number_and_no_class_one_more():
    tokenizer = TextTokenizer.classes(10)
    assert tokenizer.encode("7") == (7,)
    assert (tokenizer.begin, len(tokenizer)) == (10, 11)
    with pytest.raises(DataError, match="'dog' is no class: this model draws the classes 0 to 9"):
        tokenizer.encode("dog")
    made = model(classes=10)
    asked = draw_prompt(made.contract, Sample("x", (Message("user", ("7",)),)))
    assert asked.ids == [7]
    assert without_prompt(made.contract, asked).ids == [10]


def captions(**options):
    return model(type="llamagen_captions", config=T5, **options)


def test_captions_are_read_whole_and_packed_as_alone():
    made = captions(vocabulary=300)
    texts = ["draw a dog", "a cat"]
    prompts = [draw_prompt(made.contract, Sample(text, (Message("user", (text,)),))) for text in texts]
    with torch.no_grad():
        together, alone = Session(made, prompts).last, [Session(made, [each]).last for each in prompts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_the_empty_prompt_is_as_long_as_the_caption_and_made_of_the_last_learnt_rows():
    made = captions(vocabulary=300, caption_tokens=20)
    asked = draw_prompt(made.contract, Sample("x", (Message("user", ("draw a dog",)),)))
    empty = without_prompt(made.contract, asked)
    assert len(empty) == len(asked)
    from chiasm.sequence import pack

    with torch.no_grad():
        values = made.language.embed_batch(pack([[empty]])[0])[0]
    torch.testing.assert_close(values, made.language.project(made.language.empty[-len(empty) :]))


def test_the_text_encoder_never_learns_and_no_word_has_a_loss():
    made = captions(vocabulary=300)
    made.train_only(["language", "heads.image"])
    assert not any(p.requires_grad for p in made.language.text_encoder.parameters())
    assert not made.language.text_encoder.training
    assert made.language.empty.requires_grad
    picture = PictureInMemory(_black())
    learnt = document(
        made.contract, Sample("x", (Message("user", ("a dog",)), Message("assistant", (picture,))))
    )
    assert set(learnt.labels) == {-100}


def test_a_caption_longer_than_the_table_is_refused():
    made = captions(vocabulary=300, caption_tokens=2)
    asked = draw_prompt(made.contract, Sample("x", (Message("user", ("draw a dog and a cat",)),)))
    with pytest.raises(DataError, match="at most 2 are known"):
        Session(made, [asked])


def _black():
    from PIL import Image

    return Image.new("RGB", (64, 64))
