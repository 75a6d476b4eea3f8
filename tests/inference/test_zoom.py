"""Two looks at an image: which questions are asked, what is cut out, and which answer stays."""

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Picture, Sample, Signal
from chiasm.errors import ChiasmError, DataError
from chiasm.inference import zoom as zooming
from chiasm.inference.likelihood import answer_losses
from chiasm.inference.zoom import Zoom, find_box, zoom
from chiasm.sequence import pack


@pytest.fixture(scope="module")
def picture():
    image = Image.new("RGB", (200, 100), "white")
    image.paste("red", (100, 0, 200, 100))
    return PictureInMemory(image)


def asked(picture, words="What colour is it?", history=()):
    return Sample("a question", (*history, Message("user", (picture, words))))


class Scripted:
    """Stands for a model: its answers and losses in order, and what it was asked."""

    def __init__(self, monkeypatch, answers, losses=()):
        self.answers, self.asked, self.compared = list(answers), [], []

        def answer(_, samples, **options):
            self.asked += samples
            return [self.answers.pop(0) for _ in samples]

        def compare(_, samples):
            self.compared += samples
            return torch.tensor(losses)

        monkeypatch.setattr(zooming, "answers", answer)
        monkeypatch.setattr(zooming, "answer_losses", compare)


def words(sample):
    return [[item if isinstance(item, str) else "image" for item in m.content] for m in sample.messages]


def run(picture, **options):
    return zoom(None, [asked(picture)], Zoom(**options), tokens=8)[0]


def test_the_second_look_has_the_box_the_crop_and_the_question(monkeypatch, picture):
    model = Scripted(monkeypatch, ["white", "[0.60,0.20,0.80,0.60]", "red"], [0.7, 0.2])
    answer = run(picture, margin=5)
    assert answer.text == "red"
    assert answer.focus.crop == (115, 15, 165, 65)
    assert answer.crop.getpixel((0, 0)) == (255, 0, 0)
    first, box, second = map(words, model.asked)
    assert first == [["image", "What colour is it?"]]
    assert box == [["image", Zoom.box_question.replace("{question}", "What colour is it?")]]
    assert second == [
        *box,
        ["[0.60,0.20,0.80,0.60]"],
        ["image", Zoom.focus_question.replace("{question}", "What colour is it?")],
    ]


@pytest.mark.parametrize(
    ("losses", "stays"), [([0.7, 0.2], "red"), ([0.2, 0.7], "white"), ([0.5, 0.5], "white")]
)
def test_the_answer_of_the_lower_perplexity_stays(monkeypatch, picture, losses, stays):
    model = Scripted(monkeypatch, ["white", "[0.6,0.2,0.8,0.6]", "red"], losses)
    assert run(picture).text == stays
    assert [sample.messages[-1].content for sample in model.compared] == [("white",), ("red",)]
    learnt = [[m.learnt for m in sample.messages if m.role == "assistant"] for sample in model.compared]
    assert learnt == [[False, True]] * 2  # the box is read, and only the answer judged


@pytest.mark.parametrize(
    ("first", "second", "stays"), [("", "red", "red"), ("white", "", "white"), ("red", "red", "red")]
)
def test_there_is_nothing_to_choose_where_one_answer_is_empty_or_both_agree(
    monkeypatch, picture, first, second, stays
):
    model = Scripted(monkeypatch, [first, "[0.6,0.2,0.8,0.6]", second])
    assert run(picture).text == stays
    assert not model.compared


@pytest.mark.parametrize("box", ["there", "[0.6,0.2,0.8]", "[0.8,0.2,0.6,0.6]", "[0.6,0.2,8,0.6]"])
def test_without_a_box_the_first_answer_stays_and_the_reason_is_named(monkeypatch, picture, box):
    Scripted(monkeypatch, ["white", box])
    answer = run(picture)
    assert answer.text == "white"
    assert box in answer.problem
    assert answer.answers == ("white", None)


def test_several_questions_keep_their_own_answers(monkeypatch, picture):
    Scripted(monkeypatch, ["a", "b", "nowhere", "[0,0,1,1]", "c"], [1.0, 0.5])
    answers = zoom(None, [asked(picture), asked(picture)], tokens=8)
    assert [answer.text for answer in answers] == ["a", "c"]


def test_an_image_shown_earlier_is_looked_at_and_not_shown_again(monkeypatch, picture):
    model = Scripted(monkeypatch, ["white", "[0.6,0.2,0.8,0.6]", "red"], [0.7, 0.2])
    history = (Message("user", (picture, "Hello")), Message("assistant", ("Hi",)))
    sample = Sample("a conversation", (*history, Message("user", ("And here?",))))
    assert zoom(None, [sample], tokens=8)[0].text == "red"
    assert [sum(isinstance(i, Picture) for m in s.messages for i in m.content) for s in model.asked] == [
        1,
        1,
        2,
    ]


def test_a_signal_beside_the_image_stays_in_the_question(monkeypatch, picture):
    class Heard(Signal):
        modality = key = "sound"

        def open(self):
            return np.zeros(1)

    model = Scripted(monkeypatch, ["white", "[0.6,0.2,0.8,0.6]", "red"], [0.7, 0.2])
    sample = Sample("a question", (Message("user", (picture, Heard(), "What is it?")),))
    zoom(None, [sample], tokens=8)
    signals = [sum(isinstance(i, Signal) for m in each.messages for i in m.content) for each in model.asked]
    assert signals == [1, 1, 1]


def test_boxes_are_read_as_models_write_them():
    assert find_box("[0.1, 0.2, 0.30, 0.4]") == (0.1, 0.2, 0.3, 0.4)
    assert find_box("It is at <box>(100,200),(300,400)</box>.", 1000) == (0.1, 0.2, 0.3, 0.4)
    assert find_box("[[100, 200, 300, 400]]", 1000) == (0.1, 0.2, 0.3, 0.4)
    assert find_box("<bbox>0,0,999,999</bbox>", 999) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"box_question": "Where?"}, "box_question"), ({"scale": 0}, "scale"), ({"margin": -1}, "margin")],
)
def test_settings_out_of_range_are_named(options, problem):
    with pytest.raises(ChiasmError, match=problem):
        Zoom(**options)


def test_words_alone_cannot_be_zoomed_into():
    with pytest.raises(DataError, match="no image to zoom into"):
        zoom(None, [Sample("words", (Message("user", ("Hello",)),))], tokens=8)


def test_the_loss_of_an_answer_is_that_of_training(tiny_model, picture):
    model = tiny_model[0]
    samples = [
        Sample(answer, (*asked(picture).messages, Message("assistant", (answer,))))
        for answer in ("red", "a long white house")
    ]
    batches = [pack([[document(model.contract, sample)]]) for sample in samples]
    reader = PictureReader(model.contract)
    with torch.no_grad():
        expected = [float(model.losses(reader.attach(batch, slots))["text"].mean) for batch, slots in batches]
    assert answer_losses(model, samples).tolist() == pytest.approx(expected, abs=1e-5)


def test_a_model_zooms(tiny_model, picture):
    model = tiny_model[0]
    image = picture.open()
    plain = model.chat([{"role": "user", "content": [image, "What?"]}], tokens=3, guidance=1).text
    answer = model.zoom([{"role": "user", "content": [image, "What?"]}], Zoom(scale=1000), tokens=3)
    assert answer.problem
    assert answer.text in (plain, answer.answers[0])
