"""`chiasm chat` with images: where those of `-p` stand in a message, and a file that is broken."""

import pytest

from chiasm.errors import DataError
from chiasm.terminal import chat
from chiasm.terminal.questions import question
from coloured import COLOURS, named, write_coloured


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    write_coloured(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(message, *images):
    (asked,) = question(message, images)
    return named(asked.content)


def test_a_marker_stands_for_an_image_of_its_own_else_they_come_first(folder):
    both = (folder / "a.png", folder / "b.png")
    assert content("Is <image> like <image>?", *both) == ["Is ", "a.png", " like ", "b.png", "?"]
    assert content("What are they?", *both) == ["a.png", "b.png", "What are they?"]
    assert content("Is <image> like b.png ?", folder / "a.png") == ["Is ", "a.png", " like", "b.png", "?"]


@pytest.mark.parametrize(
    ("message", "images"), [("<image>", ()), ("<image>", COLOURS), ("<image><image>", ["a.png"])]
)
def test_markers_without_their_images_are_a_sentence_that_says_what_to_do(message, images):
    markers = message.count("<image>")
    counts = f"the message has {markers} <image> markers but {len(images)} images come with it (-p)"
    with pytest.raises(DataError) as error:
        question(message, list(images))
    assert counts in str(error.value)
    assert "without markers they stand before the message" in str(error.value)


class Failing:
    """An answer whose image turns out to be broken."""

    calls, cut = (), False

    def __init__(self, *_, **__):
        pass

    def __iter__(self):
        raise DataError("image a.png is corrupt")


def test_an_error_is_no_answer_of_the_model(monkeypatch, folder, capsys):
    monkeypatch.setattr(chat, "load_model", lambda *_: None)
    monkeypatch.setattr(chat, "Turn", Failing)
    with pytest.raises(DataError, match="is corrupt"):
        chat.converse(folder, message="What?", images=[folder / "a.png"], save=folder, seed=0)
    assert capsys.readouterr().out == ""
