"""VideoPoet's tasks on moving scenes: what each shows of a clip, and what it asks for."""

import numpy as np
import pytest

from chiasm import parts
from chiasm.data.clip import ClipSheet
from chiasm.data.world.films import GREY
from chiasm.errors import DataError

FRAMES, SIDE = 5, 16
OF = {"type": "moving_world", "canvas": SIDE, "frames": FRAMES, "emoji": 8, "objects": [1, 2], "clips": 4}


@pytest.fixture
def films():
    return parts.build("data", {"type": "films", "of": OF})


def cells(picture):
    """The frames on a sheet."""
    sheet = np.asarray(picture.open())
    return [
        sheet[r : r + SIDE, c : c + SIDE] for r in range(0, 3 * SIDE, SIDE) for c in range(0, 3 * SIDE, SIDE)
    ]


def test_every_clip_is_asked_for_in_all_ways_by_its_token_and_words(films):
    samples = films[0]
    clip = films.of[0][0]
    assert [each.truth["task"] for each in samples] == ["t2v", "i2v", "fp", "inpaint", "outpaint"]
    for each in samples:
        user, assistant = each.messages
        assert user.special_tokens
        assert user.content[:2] == (f"<{each.truth['task']}> ", *clip.messages[0].content)
        (answer,) = assistant.content
        true = [np.asarray(frame) for frame in clip.messages[1].content[0].frames()]
        assert all(np.array_equal(*pair) for pair in zip(cells(answer), true))
        assert all((cell == 255).all() for cell in cells(answer)[FRAMES:]), "what is over is white"
    assert len({picture.key for each in samples for m in each.messages for picture in m.content
                if isinstance(picture, ClipSheet)}) == 5  # fmt: skip


def test_what_each_task_shows(films):
    true = [np.asarray(frame) for frame in films.of[0][0].messages[1].content[0].frames()]
    shown = {each.truth["task"]: each.messages[0].content[2:] for each in films[0]}
    assert shown.pop("t2v") == ()
    seen = {task: np.stack(cells(picture)[:FRAMES]) for task, (picture,) in shown.items()}
    inside = np.zeros((SIDE, SIDE), dtype=bool)
    inside[SIDE // 4 : SIDE * 3 // 4, SIDE // 4 : SIDE * 3 // 4] = True
    for i, frame in enumerate(true):
        assert np.array_equal(seen["i2v"][i], true[0])
        assert np.array_equal(seen["fp"][i], frame if i < 3 else np.full_like(frame, GREY))
        assert np.array_equal(seen["inpaint"][i][~inside], frame[~inside])
        assert (seen["inpaint"][i][inside] == GREY).all()
        assert np.array_equal(seen["outpaint"][i][inside], frame[inside])
        assert (seen["outpaint"][i][~inside] == GREY).all()


def test_what_has_no_clips_is_refused_by_name():
    films = parts.build("data", {"type": "films", "of": {"type": "world", "scenes": 4, "emoji": 9}})
    with pytest.raises(DataError, match="'films' needs words that are answered with one clip"):
        films[0]


def test_what_is_wrong_with_its_data_is_told_as_of_that_data(films):
    films.of.broken, films.of.foreign = "skip", True
    again = type(films)(of=films.of)
    assert (again.broken, again.foreign) == ("skip", True)
    assert again.skipped == films.of.skipped
    assert list(again.image_files()) == list(films.of.image_files())
