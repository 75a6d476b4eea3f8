"""What stands for a prompt where there is none: padding that keeps its places and that no image sees."""

import pytest
import torch

from chiasm.data.documents import draw_prompt, without_prompt
from chiasm.data.sample import Message, Sample
from chiasm.inference.session import Session
from chiasm.model import Model
from chiasm.recipe import load_recipe
from tiny_recipe import TINY

ASKED = Sample("a prompt", (Message("user", ("a dog at the left of a cat",)),))


@pytest.fixture(scope="module")
def model():
    language = {**TINY["model"]["language"], "empty_prompt": "hidden"}
    recipe = load_recipe({**TINY, "model": {**TINY["model"], "language": language}})
    return Model(recipe.model, texts=["a dog at the left of a cat"]).eval()


def test_a_hidden_prompt_keeps_its_first_token_and_all_places(model):
    prompt = draw_prompt(model.contract, ASKED)
    empty = without_prompt(model.contract, prompt)
    words = model.language.tokenizer
    assert empty.ids == [prompt.ids[0], *[words.pad] * (len(prompt) - 2), words.draw]
    assert empty.exposed == [True, *[False] * (len(prompt) - 2), True]


@torch.no_grad()
def test_what_follows_sees_nothing_of_hidden_padding_but_stands_as_far_behind(model):
    prompt = draw_prompt(model.contract, ASKED)
    empty = without_prompt(model.contract, prompt)
    changed = without_prompt(model.contract, prompt)
    changed.ids[1:-1] = [7] * (len(changed) - 2)
    last = Session(model, [empty]).last
    torch.testing.assert_close(Session(model, [changed]).last, last)
    fewer = without_prompt(model.contract, prompt)
    for column in ("ids", "labels", "kinds", "opens", "exposed"):
        del getattr(fewer, column)[1]
    assert not torch.allclose(Session(model, [fewer]).last, last)  # nearer to the first token
