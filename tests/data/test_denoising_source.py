"""The mixture of denoisers: what was damaged can be restored from the answer, and nothing else is changed."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from chiasm import parts
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Picture
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from tiny_recipe import TINY

WORLD = {"type": "world", "scenes": 40, "emoji": 12, "canvas": 32, "drawn_canvas": 32, "phrasings": "plain"}


def source(tasks, **options):
    return parts.build("data", {"type": "denoising", "of": {**WORLD, "tasks": tasks}, **options})


def texts(sample):
    user, assistant = sample.messages
    return user.content[0], assistant.content[0]


def original(index, of):
    (sample,) = of[index]
    return " ".join(item for message in sample.messages for item in message.content if isinstance(item, str))


@pytest.mark.parametrize("kind", ["R", "X"])
def test_each_sentinel_stands_for_what_the_answer_has_behind_it(kind):
    damaged = source({"words": 1}, text={kind: 1.0})
    shares = []
    for index, sample in [(i, each) for i in range(len(damaged)) for each in damaged[i]]:
        given, lost = texts(sample)
        assert given.startswith(f"[Text] [{kind}] ")
        pieces = re.split(r"(<extra_id_\d+>) ?", lost)[1:]
        names, spans = pieces[::2], [each.strip() for each in pieces[1::2]]
        assert names == [f"<extra_id_{number}>" for number in range(len(names))]
        restored = given.removeprefix(f"[Text] [{kind}] ")
        for name, span in zip(names, spans, strict=True):
            assert restored.count(name) == 1
            restored = restored.replace(name, span)
        whole = original(index, damaged.of)
        assert restored.split() == whole.split()
        shares.append(sum(len(span.split()) for span in spans) / len(whole.split()))
    expected = {"R": 0.15, "X": (3 * 0.5 + 0.15) / 4}[kind]
    assert np.mean(shares) == pytest.approx(expected, abs=0.08)


def test_a_text_that_ends_somewhere_goes_on_in_the_answer():
    damaged = source({"words": 1}, text={"S": 1.0})
    for index in range(10):
        (sample,) = damaged[index]
        given, lost = texts(sample)
        assert f"{given} {lost}" == f"[Text] [S] {original(index, damaged.of)}"
        assert lost


def test_grey_patches_are_as_many_as_asked_and_the_answer_is_the_image():
    damaged = source({"draw": 1}, text={}, image={"R": 1.0}, patches=4, hidden=0.25)
    (sample,) = damaged[3]
    shown, prompt = sample.messages[0].content
    (image,) = sample.messages[1].content
    assert prompt == "[Image] [R]"
    one, other = (np.asarray(each.open()) for each in (shown, image))
    grey = (one == 127).all(-1).reshape(4, 8, 4, 8).all((1, 3))
    assert grey.sum() == 4
    seen = ~np.kron(grey, np.ones((8, 8), bool))
    assert np.array_equal(one[seen], other[seen])
    assert shown.key != image.key


def test_an_image_is_drawn_after_the_words_of_its_sample():
    (sample,) = source({"draw": 1}, text={}, image={"S": 1.0})[2]
    (shown,), (image,) = (message.content for message in sample.messages)
    assert shown.startswith("[Image] [S] Draw: ")
    assert isinstance(image, Picture)


def test_kinds_come_in_their_shares_and_depend_on_the_seed_alone():
    kinds = Counter(
        s.truth["kind"] for i in range(40) for s in source({"words": 3}, text={"R": 3.0, "S": 1.0})[i]
    )
    assert set(kinds) == {"text, R", "text, S"}
    assert 0.6 < kinds["text, R"] / kinds.total() < 0.9
    first, again, other = (source({"words": 1}, seed=seed) for seed in (0, 0, 1))
    assert [texts(*first[i]) for i in range(9)] == [texts(*again[i]) for i in range(9)]
    assert [texts(*first[i]) for i in range(9)] != [texts(*other[i]) for i in range(9)]
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_texts_that_could_be_taken_for_special_tokens_are_left_out_where_sentinels_are_some(tmp_path):
    records = [
        {
            "messages": [
                {"role": "user", "content": "one two"},
                {"role": "assistant", "content": f"three {last}"},
            ]
        }
        for last in ("four", "<s>")
    ]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, records)))
    spec = {"type": "chat", "path": str(tmp_path / "text.jsonl")}
    for special, left in ((True, [1, 0]), (False, [1, 1])):
        damaged = parts.build("data", {"type": "denoising", "of": spec, "special_tokens": special})
        assert [len(damaged[i]) for i in range(2)] == left
        assert damaged.foreign
        assert all(message.special_tokens == special for message in damaged[0][0].messages)


def test_a_model_learns_from_it_as_from_any_other_source():
    damaged = source({"draw": 1, "what": 1})
    recipe = load_recipe(TINY)
    model = Model(recipe.model, texts=["a cat"])
    batch, slots = pack([[document(model.contract, sample)] for sample in damaged[0]])
    losses = model.losses(PictureReader(model.contract).attach(batch, slots))
    assert set(losses) == {"text", "image"}


def test_what_cannot_be_damaged_is_a_sentence():
    with pytest.raises(RecipeError, match="has no kinds of texts and none of images"):
        source({"words": 1}, text={"R": 0.0}, image={})
    with pytest.raises(RecipeError, match="some must be hidden, and some seen"):
        source({"draw": 1}, hidden=0.01)
    with pytest.raises(RecipeError, match="'Q'"):
        source({"words": 1}, text={"Q": 1.0})
