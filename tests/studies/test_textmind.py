"""What it depends on that the lists of the study `textmind` are learnt, and that its arms can be compared."""

import pytest

from chiasm.data.corpus import corpus
from chiasm.data.documents import document
from chiasm.sequence import IGNORE
from chiasm.studies.design import recipe_of
from chiasm.studies.plan import load_study
from chiasm.training.train import build_model, build_sources

STUDY = load_study("textmind")
REPLAYED = ("words", "behind")  # lists in words, of which half of each arm's further samples are


@pytest.fixture(scope="module")
def recipe():
    return recipe_of(STUDY, "image", None)


@pytest.fixture(scope="module")
def model(recipe):
    return build_model(recipe)


def test_a_word_is_a_token_and_an_item_stands_directly_behind_its_key(recipe, model):
    sample = build_sources(recipe)["words"][0][0]
    read = document(model.contract, sample)
    tokenizer = model.language.tokenizer
    words = [word for message in sample.messages for item in message.content for word in item.split()]
    tokens = [tokenizer.decode([id]).strip() for id in read.ids if id not in (tokenizer.begin, tokenizer.end)]
    assert tokens == words


def test_labels_are_answers_and_their_ends_alone(recipe, model):
    sample = build_sources(recipe)["words"][0][0]
    read = document(model.contract, sample)
    answers = [message.content[0] for message in sample.messages if message.role == "assistant"]
    end = model.language.tokenizer.end
    labels = [label for label in read.labels if label != IGNORE]
    assert labels == [id for answer in answers for id in (*model.language.tokenizer.encode(answer), end)]


def test_all_arms_have_one_tokenizer_and_the_same_lists():
    recipes = [recipe_of(STUDY, arm, None) for arm in STUDY.arms]
    assert len({corpus(recipe).fingerprint for recipe in recipes}) == 1
    branches = [{k: v for k, v in recipe.stages[2].data.items() if v} for recipe in recipes]
    assert all(sum(shares.values()) == 1 for shares in branches)
    assert len({tuple(shares) for shares in branches}) == len(branches)  # no two arms train on the same
    seeds = {recipes[0].data[name]["seed"] for shares in branches for name in shares if name not in REPLAYED}
    assert seeds == {3}


def test_half_of_each_arms_further_samples_are_the_words_that_it_has_read():
    for arm in STUDY.arms:
        read, branch = (stage.data for stage in recipe_of(STUDY, arm, None).stages[1:])
        assert {name: branch[name] for name in REPLAYED} == {name: read[name] / 2 for name in REPLAYED}
