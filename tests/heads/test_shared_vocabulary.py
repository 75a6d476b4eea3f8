"""Codes among the words of the language model: whose rows they are, and who may say them."""

from copy import deepcopy

import pytest
import torch
from PIL import Image
from torch.nn import functional

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.data.documents import document, draw_prompt, prompt_of
from chiasm.data.picture_reader import PictureReader
from chiasm.errors import ChiasmError, RecipeError
from chiasm.heads import Sampling
from chiasm.inference.answers import answers
from chiasm.inference.drawing import draw
from chiasm.inference.session import Session
from chiasm.model import Model
from chiasm.model.checkpoint import load_model, save_model
from chiasm.nn.generators import Generators
from chiasm.recipe import load_recipe
from chiasm.sequence import Kind, pack
from tiny_recipe import TINY

CODES = 16
HEADS = {
    "raster × own": {"type": "raster", "alphabet": {"type": "own"}},
    "raster × mlp": {"type": "raster", "alphabet": {"type": "mlp"}},
    "masked × own": {"type": "masked", "alphabet": {"type": "own"}},
    "raster × shared": {"type": "raster", "cells": False, "alphabet": {"type": "shared"}},
    "masked × shared": {"type": "masked", "cells": False, "alphabet": {"type": "shared"}},
}


def made(head, *, sees=True, unconditional=0.1, **alphabet):
    raw, spec = deepcopy(TINY), deepcopy(HEADS[head])
    spec["alphabet"] |= alphabet
    raw["model"]["heads"] = {"image": {**spec, "unconditional": unconditional}}
    if not sees:
        for slot in ("views", "encoder", "connector"):
            del raw["model"][slot]
        raw["stages"][1]["train"].pop("connector")
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    world = parts.build("data", recipe.data["world"])
    return recipe, model, [sample for i in range(2) for sample in world[i]]


def drawing(samples):
    return next(s for s in samples if s.truth["task"] == "draw")


def asking(samples):
    return next(s for s in samples if s.truth["task"] == "what")


@pytest.mark.parametrize(("head", "more"), [("raster × shared", 0), ("masked × shared", 1)])
def test_the_vocabulary_grows_by_the_codes_and_the_mask(head, more):
    _, model, _ = made(head)
    words = len(model.language.tokenizer)
    assert model.image_head.reserved == range(words, words + CODES + more)
    assert model.language.vocabulary_size == words + CODES + more
    assert not list(model.image_head.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_text_never_holds_a_code(head):
    _, model, samples = made(head)
    with torch.no_grad():
        model.language.head.weight[list(model.image_head.reserved)] *= (
            100  # codes would be by far the likeliest
        )
    asked = prompt_of(asking(samples))
    logits = model.text_logits(Session(model, [document(model.contract, asked, prompt=True)]).last)
    assert bool((logits[:, list(model.image_head.reserved)] == -torch.inf).all())
    assert all(isinstance(text, str) for text in answers(model, [asked] * 2, tokens=3))


@pytest.mark.parametrize("head", HEADS)
def test_a_picture_never_holds_a_word(head):
    _, model, samples = made(head)
    with torch.no_grad():
        model.language.head.weight[: len(model.language.tokenizer)] *= (
            100  # words would be by far the likeliest
        )
    prompts = [draw_prompt(model.contract, prompt_of(drawing(samples)))] * 2
    source = Generators([1, 2])
    codes = draw(model, prompts, Sampling(guidance=2.0), generators=source)
    assert codes.shape == (2, *model.image_tokenizer.grid)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < CODES


@pytest.mark.parametrize("head", HEADS)
def test_an_answer_may_hold_several_pictures(head, monkeypatch):
    _, model, _ = made(head)
    said = []

    def script(hidden, images=True):  # a word and a picture in turn
        said.append(model.language.tokenizer.draw if len(said) % 2 else 40)
        wanted = torch.full(hidden.shape[:-1], said[-1])
        return functional.one_hot(wanted, model.language.vocabulary_size).float()

    monkeypatch.setattr(model, "text_logits", script)
    kinds = [type(item) for item in model.chat("Draw.", tokens=5).content]
    assert kinds == [str, Image.Image, str, Image.Image, str]


@pytest.mark.parametrize("head", [head for head in HEADS if "mlp" not in head])
def test_without_an_encoder_pictures_are_read_as_their_codes(head):
    _, model, samples = made(head, sees=False)
    assert model.sees
    asked = document(model.contract, prompt_of(asking(samples)), prompt=True)
    (slot,) = asked.slots
    assert slot.kind == Kind.READ
    assert slot.length == model.image_tokenizer.grid[0] * model.image_tokenizer.grid[1]
    batch, slots = pack([[asked]])
    batch = PictureReader(model.contract).attach(batch, slots)
    with torch.no_grad():
        embeddings = model.embed(batch).embeddings
        codes = model.image_tokenizer.encode(PictureReader(model.contract).target(slot.picture)[None])
        expected = model.image_head.embed_read(codes)[0]
    assert torch.equal(embeddings[0, slot.start : slot.start + slot.length], expected)
    blind = document(model.contract, prompt_of(asking(samples)), prompt=True, blind=True)
    assert not blind.slots


def test_one_mean_over_words_and_codes():
    _, model, samples = made("raster × shared", counted_as="text")
    _, apart, _ = made("raster × shared")
    documents = [document(model.contract, sample) for sample in samples]
    batch, slots = pack([documents])
    batch = PictureReader(model.contract).attach(batch, slots)
    with torch.no_grad():
        one, two = model.losses(batch), apart.losses(batch)
    assert set(one) == {"text"}
    assert torch.allclose(one["text"].sum, two["text"].sum + two["image"].sum)
    assert one["text"].count == two["text"].count + two["image"].count


def test_codes_may_be_told_from_codes_alone():
    _, model, samples = made("raster × shared", against="codes")
    _, whole, _ = made("raster × shared")
    batch, slots = pack([[document(model.contract, drawing(samples))]])
    batch = PictureReader(model.contract).attach(batch, slots)
    with torch.no_grad():
        assert model.losses(batch)["image"].sum < whole.losses(batch)["image"].sum


def test_codes_may_be_scattered_over_the_vocabulary(tmp_path):
    table = [300 + 2 * code for code in range(CODES)][::-1]
    recipe, model, _ = made("raster × shared", table=table)
    assert list(model.image_head.reserved) == table
    codes = torch.tensor([[[3, 0], [1, 2]]])
    assert torch.equal(
        model.image_head.prepare(codes).embeddings[0],
        model.language.embed(torch.tensor([table[code] for code in (3, 0, 1, 2)])),
    )
    hidden = torch.randn(2, model.language.width)
    assert torch.equal(model.image_head.alphabet.logits(hidden), model.language.logits(hidden)[:, table])
    save_model(model, recipe, tmp_path / "saved")
    assert list(load_model(tmp_path / "saved").image_head.reserved) == table


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"first": 10_000},
            r"codes stand at the ids 10000 to 10015, but the language model has the ids 0 to \d+",
        ),
        ({"table": [1, 2]}, "the table has 2 different ids, but there are 16 codes"),
        ({"table": list(range(16)), "first": 3}, "give either 'first' or 'table', not both"),
    ],
)
def test_ids_that_do_not_fit_are_refused(options, error):
    with pytest.raises(RecipeError, match=error):
        made("raster × shared", **options)


def test_a_language_model_that_cannot_grow_says_so():
    raw = deepcopy(TINY)
    raw["model"]["heads"] = {"image": HEADS["raster × shared"]}
    raw["model"]["language"] = {
        "type": "beit3",
        "width": 32,
        "depth": 1,
        "heads": 4,
        "hidden": 48,
        "context": 256,
    }
    recipe = load_recipe(raw)
    with pytest.raises(RecipeError, match="the vocabulary of language 'beit3' cannot grow"):
        Model(recipe.model, texts=corpus(recipe))


@pytest.mark.parametrize("head", HEADS)
def test_guidance_without_an_unconditional_branch_is_refused(head):
    _, model, _ = made(head, unconditional=0.0)
    with pytest.raises(ChiasmError, match="'unconditional' is 0"):
        model.generate("a cat", guidance=2.0)
    assert len(model.generate("a cat", guidance=1.0)) == 1


@pytest.mark.parametrize("head", HEADS)
def test_codes_of_another_tokenizer_are_refused(head):
    _, model, _ = made(head)
    with pytest.raises(
        ChiasmError, match=r"codes from 0 to 16 given to an image head of 16 codes \(0 to 15\)"
    ):
        model.image_head.prepare(torch.tensor([[[0, 16], [1, 1]]]))
    with pytest.raises(
        ChiasmError, match=r"codes of shape \(1, 3, 1\) given to an image head of grid \(2, 2\)"
    ):
        model.image_head.prepare(torch.zeros(1, 3, 1, dtype=torch.long))
