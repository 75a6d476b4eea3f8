"""The pictures with words that an objective is shown."""

import json

import pytest
import torch
from PIL import Image
from rich.console import Console
from small import raw

from chiasm import parts
from chiasm.data.chat import Chat
from chiasm.data.corpus import corpus
from chiasm.data.sample import Message, Sample
from chiasm.errors import DataError
from chiasm.model import Model
from chiasm.objectives import Described
from chiasm.objectives.names import named
from chiasm.recipe import load_recipe
from chiasm.terminal.check import check
from chiasm.training import train
from chiasm.training.batches import DescribedBatches, describe
from chiasm.training.metrics import read_metrics


def batches(**changes):
    recipe = raw("contrastive")
    recipe["model"] |= changes
    recipe["data"]["world"] |= {"tasks": {"name": 1, "caption": 1}}
    recipe = load_recipe(recipe)
    model = Model(recipe.model, texts=corpus(recipe))
    sources = {"world": parts.build("data", recipe.data["world"])}
    return DescribedBatches(model.contract, sources, recipe.stages[0], seed=0), sources["world"]


def test_a_sample_describes_its_picture_in_words_and_by_labels():
    _, world = batches()
    name, caption = (describe(sample) for sample in world[0])
    assert len(name.labels) == 1
    assert all(label in caption.text for label in caption.labels)


def turn(role, text, **options):
    return {"role": role, "content": text, **options}


ASKED, SAID = turn("user", "<image>What?"), turn("assistant", "a dog")
# what is wrong with a record for an objective: its turns, its kind and what the error says
WRONG = {
    "two images": ([turn("user", "<image><image>What?"), SAID], "not one image", "shows 2 images"),
    "no image": ([turn("user", "What?"), SAID], "not one image", "shows 0 images"),
    "two answers": ([ASKED, SAID, turn("user", "Sure?"), SAID], "not one answer", "has 2 answers"),
    "a document": ([turn("document", "<image>")], "not one answer", "has 0 answers"),
    "an image as answer": ([ASKED, turn("assistant", "<image>")], "image as answer", "answers with an image"),
    "words and an image": (
        [ASKED, turn("assistant", "so: <image>")],
        "image as answer",
        "answers with an image",
    ),
}


@pytest.fixture
def records(tmp_path):
    """A source of one good record, one with these turns, and another good one."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")

    def source(turns, broken):
        path = tmp_path / "pairs.jsonl"
        each = ([ASKED, SAID], turns, [ASKED, turn("assistant", "a cat")])
        lines = [{"messages": turns, "images": ["a.png"] * str(turns).count("<image>")} for turns in each]
        path.write_text("\n".join(map(json.dumps, lines)))
        return Chat(path=str(path), broken=broken)

    return source


def of_records(source):
    recipe = load_recipe(raw("contrastive"))
    model = Model(recipe.model, texts=["a dog"])
    return DescribedBatches(model.contract, {"world": source}, recipe.stages[0], seed=0)


@pytest.mark.parametrize("case", WRONG)
def test_a_record_that_describes_no_single_picture_is_an_error_or_left_out_and_counted(case, records):
    turns, kind, message = WRONG[case]
    with pytest.raises(
        DataError, match=rf"sample 2 of .*pairs\.jsonl: .*one image and one answer.*{message}"
    ):
        of_records(records(turns, "error")).check()
    made = of_records(records(turns, "skip"))
    assert made.check() == {"world": {"1:0": kind}}
    assert made.labels() == ["a cat", "a dog"]
    assert set(made.next().texts) == {"a cat", "a dog"}
    assert made.state()["left_out"] == {"world": {"1:0": kind}}


def test_check_prints_what_an_objective_is_shown_and_what_it_skips(records, capsys):
    recipe = raw("contrastive")
    source = records(WRONG["two answers"][0], "skip")
    recipe["data"]["world"] = {"type": "chat", "path": str(source.path), "broken": "skip"}
    check(load_recipe(recipe), 3, every=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert "objective contrastive reads an image, 'a cat', labels: a cat" in printed
    assert "objective contrastive skips it: sample 2 of pairs.jsonl" in printed
    assert "1 records skipped (1 not one answer)" in printed


def test_an_answer_that_is_not_to_be_learnt_describes_nothing():
    picture = describe(batches()[1][0][0]).picture
    sample = Sample("s", (Message("user", (picture,)), Message("assistant", ("a dog",), learnt=False)))
    with pytest.raises(DataError, match="is not to be learnt"):
        describe(sample)


@pytest.mark.parametrize(
    ("objective", "read"),
    [("contrastive", 6), ("sigmoid", 6), ("qformer_stage1", 6), ("masked_data", 4)],
)
def test_texts_that_are_cut_are_counted(objective, read, tmp_path):
    """read: how many of a batch's six texts the objective reads."""
    recipe = raw(objective)
    recipe["stages"][0] |= {"steps": 1}
    context = recipe["stages"][0]["objective"]
    for name, room, cut in (("short", 4, read), ("long", 200, 0)):
        context["context"] = room
        train(load_recipe(recipe), tmp_path / name, console=Console(quiet=True))
        (line,) = read_metrics(tmp_path / name)
        assert line["health"].get("cut_texts", 0) == cut


def test_a_batch_is_what_the_encoder_sees_and_can_be_found_again():
    made, _ = batches()
    made.next()
    state = made.state()
    batch = made.next()
    assert batch.pixels.shape == (6, 3, 32, 32)
    assert len(batch) == len(batch.texts) == len(batch.labels) == 6
    made.restore(state)
    again = made.next()
    assert torch.equal(again.pixels, batch.pixels)
    assert again.texts == batch.texts


def test_all_labels_of_the_data_are_found():
    made, world = batches()
    assert set(made.labels()) <= {emoji.english for emoji in world.emoji}
    assert made.labels() == sorted(set(made.labels()))


def test_views_of_several_sizes_are_refused():
    made, world = batches()
    picture = describe(world[0][0]).picture
    made.size = type(made.size)(64, 64)
    with pytest.raises(DataError, match="an objective needs views of one size"):
        made._view(picture)


def test_an_image_without_labels_has_none():
    batch = Described(torch.zeros(2, 3, 8, 8), ("a", "b"), (("cat", "dog"), ()))
    assert named(batch, {"cat": 0, "dog": 1}).tolist() == [[True, True], [False, False]]
