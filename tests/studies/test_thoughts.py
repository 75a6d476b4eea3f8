"""What stands between question and answer in each arm of the study `thoughts`, and that nothing else differs."""

import pytest
import torch

from chiasm.data.corpus import corpus
from chiasm.data.documents import document
from chiasm.evaluation.subject import ModelSubject
from chiasm.sequence import IGNORE, Kind
from chiasm.studies.design import recipe_of
from chiasm.studies.plan import load_study
from chiasm.training.train import build_model, build_sources

STUDY = load_study("thoughts")
SEEN = 16  # visual tokens of a maze: one of each cell
# Positions of each image that is written, in number of moves 0 = none, 1 = one in all, None = one a move.
WRITTEN = {"drawn": (16, 1), "drawn-steps": (16, None), "latent": (1, 1), "latent-steps": (1, None)}


def trained_on(recipe):
    """The name of the data that the last stage trains on."""
    ((name, share),) = ((name, share) for name, share in recipe.stages[-1].data.items() if share)
    assert share == 1
    return name


@pytest.fixture(scope="module")
def built():
    recipes = {arm: recipe_of(STUDY, arm, None) for arm in STUDY.arms}
    return {arm: (recipe, build_model(recipe)) for arm, recipe in recipes.items()}


@pytest.mark.parametrize("arm", STUDY.arms)
def test_the_sequence_of_an_arm_is_what_it_says(arm, built):
    recipe, model = built[arm]
    sample = build_sources(recipe)[trained_on(recipe)][0][0]
    read = document(model.contract, sample)
    tokenizer = model.language.tokenizer
    answer, moves = sample.truth["answer"], sample.truth["maze"].moves
    (first, *written) = read.slots
    assert (first.kind, first.length) == (Kind.READ, SEEN)
    positions, images = WRITTEN.get(arm, (0, 0))
    assert [slot.length for slot in written] == [positions] * (len(moves) if images is None else images)
    assert {slot.kind for slot in written} <= {Kind.WRITTEN}
    learnt = tokenizer.decode([label for label in read.labels if label not in (IGNORE, tokenizer.end)])
    words = {"fillers": ["."] * len(moves), "words": list(moves)}.get(arm, [])
    assert [word for word in learnt.split() if "<" not in word] == [*words, answer]


def test_all_arms_have_one_tokenizer_and_the_same_mazes(built):
    recipes = [recipe for recipe, _ in built.values()]
    assert len({corpus(recipe).fingerprint for recipe in recipes}) == 1
    for index in range(3):
        mazes = {build_sources(recipe)[trained_on(recipe)].maze(index).layout for recipe in recipes}
        assert len(mazes) == 1
    assert len({trained_on(recipe) for recipe in recipes}) == 5


def test_an_arm_is_asked_in_the_form_in_which_it_is_trained():
    for arm in STUDY.arms:
        recipe = recipe_of(STUDY, arm, None)
        thought = recipe.data[trained_on(recipe)].get("thought", "none")
        for held_out in ("tuning", "held-out"):
            assert recipe.data[held_out].get("thought", "none") == thought
            assert recipe.data[held_out]["split"] == "held_out"


def test_a_latent_step_is_read_as_the_vector_that_was_written_whatever_its_pixels(built, monkeypatch):
    recipe, model = built["latent"]
    sample = build_sources(recipe)["picture"][0][0]
    tokenizer, logits = model.language.tokenizer, model.text_logits
    script = [tokenizer.draw, *tokenizer.encode(" red"), tokenizer.end]
    states = []

    def scripted(hidden, **options):
        states.append(hidden)
        likeliest = torch.zeros_like(logits(hidden, **options))
        likeliest[:, script[len(states) - 1]] = 1
        return likeliest

    monkeypatch.setattr(model, "text_logits", scripted)
    (reply,) = ModelSubject(model, recipe.sampling).reply([sample])
    assert [type(item).__name__ for item in reply.content] == ["Image", "str"]
    assert reply.text == "red"
    assert reply.tokens == 1 + len(tokenizer.encode(" red"))  # its one vector, and the word
    first, states = states, []
    monkeypatch.setattr(model.image_decoder, "decode", lambda vectors, **options: torch.zeros(1, 3, 8, 8))
    ModelSubject(model, recipe.sampling).reply([sample])
    assert len(first) == len(states) == 3
    assert all(map(torch.equal, first, states))
