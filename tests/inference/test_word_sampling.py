"""Which word comes next, and where a text ends."""

import re
from copy import deepcopy

import pytest
import torch

from chiasm.conversation import Turn
from chiasm.data.documents import document
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, quoted
from chiasm.inference.text import WordSampling, choose_words, words_of

LOGITS = torch.tensor([[1.0, 4.0, 3.0, -2.0]])


def drawn(sampling, count=400):
    """How often each word is chosen, over seeds."""
    ids = choose_words(LOGITS.expand(count, -1), sampling, range(count), 0, [])
    return torch.bincount(torch.tensor(ids), minlength=4).tolist()


def test_the_likeliest_word_is_chosen_unless_the_options_say_otherwise():
    assert drawn(WordSampling()) == [0, 400, 0, 0]


def test_words_are_drawn_with_their_chances_at_a_temperature():
    counts = torch.tensor(drawn(WordSampling(temperature=2.0), 4000)) / 4000
    torch.testing.assert_close(counts, (LOGITS[0] / 2).softmax(-1), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("options", "possible"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {1, 2}),
        ({"top_p": 0.4}, {1}),  # their chances are 0.17, 0.45, 0.32 and 0.06
        ({"top_p": 0.7}, {1, 2}),
        ({"top_p": 0.9}, {0, 1, 2}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_only_the_likeliest_are_drawn_among(options, possible):
    counts = drawn(WordSampling(temperature=3.0, **options))
    assert {id for id, count in enumerate(counts) if count} == possible


def test_a_word_depends_on_seed_and_place_alone():
    sampling, flat = WordSampling(temperature=1.0), torch.zeros(3, 1000)
    one, other, again = choose_words(flat, sampling, [5, 6, 5], 0, [])
    assert one == again != other
    assert choose_words(flat[:1], sampling, [6], 0, []) == [other]
    assert choose_words(flat[:1], sampling, [5], 1, []) != [one]


def test_a_word_that_stands_there_already_is_less_likely():
    """Its logit is divided, or multiplied where it is negative; those of other rows stay."""
    sampling = WordSampling(repetition_penalty=2.0)
    assert choose_words(LOGITS.expand(2, -1), sampling, [0, 0], 0, [[1, 1], []]) == [2, 1]
    below = LOGITS - 4.5
    assert choose_words(below, sampling, [0], 0, [[1]]) == [1]  # -1 is still more than -1.5
    assert choose_words(below, WordSampling(repetition_penalty=4.0), [0], 0, [[1]]) == [2]


def test_no_marker_counts_as_a_word_that_was_said(tiny_model):
    model, _ = tiny_model
    asked = document(model.contract, Sample("s", (Message("user", ("a dog",)),)), prompt=True)
    tokenizer = model.language.tokenizer
    asked.add_text([*tokenizer.before_picture, tokenizer.end], learn=False)
    said = words_of(asked, tokenizer)
    assert set(tokenizer.encode("a dog")) <= set(said)
    assert not {tokenizer.draw, tokenizer.end} & set(said)


@pytest.fixture
def says(tiny_model):
    """A model that says the letters of a text, one a token, and then its end."""
    model = deepcopy(tiny_model[0])
    tokenizer = model.language.tokenizer

    def of(text):
        ids = [tokenizer.encode(letter)[0] for letter in text] + [tokenizer.end]
        chosen = iter(ids)
        model.text_logits = lambda hidden, images=True: torch.nn.functional.one_hot(
            torch.tensor([next(chosen)]), model.language.vocabulary_size
        ).float()
        return model

    return of


@pytest.mark.parametrize(
    ("stop", "expected"),
    [("xyz", "abcabd"), ("abd", "abc"), (["bd", "ca"], "ab"), ("a", ""), (["abcabd"], ""), ("d", "abcab")],
)
def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(says, stop, expected):
    model = says("abcabd")
    assert model.chat("x", tokens=20, stop=stop).text == expected


def test_an_answer_says_whether_a_limit_cut_it_off(says):
    assert says("abcabd").chat("x", tokens=3).cut
    assert not says("abcabd").chat("x", tokens=20).cut
    assert not says("abcabd").chat("x", tokens=20, stop="c").cut


@pytest.mark.parametrize("stop", ["abd", "bc", "q"])
def test_nothing_is_given_out_that_a_stop_text_takes_back(says, stop):
    given = "".join(Turn(says("abcabd"), "x", tokens=20, stop=stop))
    assert given == "abcabd".partition(stop)[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("word_temperature", -1), ("word_temperature", float("nan")), ("word_temperature", "hot"),
        ("word_top_k", -1), ("word_top_k", 1.5), ("word_top_k", True),
        ("word_top_p", 0), ("word_top_p", 1.1), ("word_top_p", float("nan")),
        ("repetition_penalty", 0), ("repetition_penalty", float("inf")),
        ("stop", ""), ("stop", [""]), ("stop", 3), ("stop", ["a", 3]), ("stop", {"a": 1}),
    ],
)  # fmt: skip
def test_an_option_of_words_out_of_range_is_named(tiny_model, option, value):
    with pytest.raises(ChiasmError, match=rf"^{option}: .*{re.escape(quoted(value))}"):
        tiny_model[0].chat("a dog", **{option: value})


def test_the_defaults_are_the_recipes(says):
    model = says("abcabd")
    model.sampling = model.sampling.model_copy(update={"stop": ("c",)})
    assert model.chat("x", tokens=20).text == "ab"


def test_images_are_drawn_among_the_likeliest_codes_wherever_that_is_asked(tiny_model):
    model = tiny_model[0]
    narrow = model.generate("a dog", seed=1, top_p=1e-6)[0].tobytes()
    assert narrow == model.generate("a dog", seed=1, temperature=0.0)[0].tobytes()
    assert narrow == model.generate("a dog", seed=2, top_p=1e-6)[0].tobytes()
    assert narrow != model.generate("a dog", seed=1)[0].tobytes()
    with pytest.raises(ChiasmError, match="top_p"):
        model.generate("a dog", top_p=0.0)
