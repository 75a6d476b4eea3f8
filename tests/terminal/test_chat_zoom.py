"""`chiasm chat --zoom`: two looks where there is an image, one where there is none."""

import pytest
from PIL import Image

from chiasm.errors import ChiasmError
from chiasm.inference.answers import Answer
from chiasm.inference.zoom import ZoomedAnswer
from chiasm.terminal import chat
from chiasm.views import Size
from chiasm.views.focus import Focus

OPTIONS = {"tokens": 5, "word_top_k": 3, "guidance": None, "temperature": None, "top_k": None, "top_p": None}


@pytest.fixture
def talk(monkeypatch, tmp_path):
    """Chats once; the options of each answer in two looks are in `talk.looks`."""
    Image.new("RGB", (100, 100), "red").save(tmp_path / "cat.png")
    focus = Focus.of(Size(100, 100), (0.2, 0.2, 0.4, 0.4), margin=5)
    looks = []

    def look_twice(model, messages, **options):
        looks.append(options)
        return ZoomedAnswer(("cat", Answer.of("dog", cut=True)), (2.0, 1.0), focus)

    class OneLook(list):
        calls, cut = (), False

    monkeypatch.setattr(chat, "load_model", lambda *_: None)
    monkeypatch.setattr(chat, "look_twice", look_twice)
    monkeypatch.setattr(chat, "Turn", lambda model, messages, **options: OneLook(["one look"]))

    def run(message, images=(), **sampling):
        chat.converse(tmp_path, message=message, images=images, save=tmp_path, seed=3,
                      sampling={**OPTIONS, **sampling}, zoom=True)  # fmt: skip

    run.looks, run.cat = looks, tmp_path / "cat.png"
    return run


def test_the_answer_and_where_it_looked_are_printed(talk, capsys):
    talk("What is this?", [talk.cat])
    printed = capsys.readouterr().out
    assert "dog" in printed
    assert "looked at [15, 15, 45, 45]; that answer stays" in printed
    assert "cut off" in printed
    assert talk.looks == [{"seed": 3, "tokens": 5, "word_top_k": 3}]


def test_words_alone_are_answered_in_one_look(talk, capsys):
    talk("Hello")
    printed = capsys.readouterr().out
    assert "no image to zoom into" in printed
    assert "one look" in printed
    assert "cut off" not in printed
    assert not talk.looks


def test_options_of_drawn_images_are_refused(talk):
    with pytest.raises(ChiasmError, match="guidance is of images that are drawn"):
        talk("What is this?", [talk.cat], guidance=2.0)
