"""Mazes: what the picture shows, solved from its pixels alone, is what the answer and every thought say."""

import numpy as np
import pytest
from PIL import Image

from chiasm import parts
from chiasm.data.sample import Picture
from chiasm.data.world.glyphs import COLOURS
from chiasm.data.world.maze import FILLER, MazeSource
from chiasm.data.world.maze_picture import BALL, TRAIL, WALL, MazePicture, ball_of
from chiasm.errors import DataError, RecipeError

CELL = 8
AROUND = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
SIDES = {"up": (0, 4), "down": (7, 4), "left": (4, 0), "right": (4, 7)}  # a pixel of each side of a cell
OPTIONS = [{}, {"side": 5, "steps": (3, 6), "dead_ends": 0.7}, {"side": 6, "ways": 5, "dead_ends": 1.0}]


def cells_of(picture):
    """The pixels of each cell by its place."""
    pixels = np.asarray(picture.open())
    side = len(pixels) // CELL
    cut = pixels.reshape(side, CELL, side, CELL, 3).swapaxes(1, 2)
    return {(row, column): cut[row, column] for row in range(side) for column in range(side)}


def solved(picture):
    """Where the ball is, the cells that it can come to, and the colours of those with a mark."""
    cells = cells_of(picture)
    (ball,) = (place for place, pixels in cells.items() if (pixels[1, 1] == BALL).all())
    reached, doors, waiting = {ball}, 0, [ball]
    while waiting:
        place = waiting.pop()
        for move, (row, column) in AROUND.items():
            if (cells[place][SIDES[move]] == WALL).all():
                continue
            other = place[0] + row, place[1] + column
            doors += 1
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    colours = {value: name for name, value in COLOURS.items()}
    marks = {place: colours.get(tuple(map(int, cells[place][4, 4]))) for place in reached}
    return ball, reached, doors, {place: name for place, name in marks.items() if name is not None}


def content_of(sample):
    (image, _), (*thought, answer) = (message.content for message in sample.messages)
    return image, thought, answer.strip()


@pytest.mark.parametrize("options", OPTIONS)
def test_the_ball_can_reach_one_mark_by_one_way_and_that_is_the_answer(options):
    source = MazeSource(**options)
    answers = set()
    for index in range(60):
        image, _, answer = content_of(source[index][0])
        _, reached, doors, marks = solved(image)
        assert list(marks.values()) == [answer]
        assert doors == 2 * (len(reached) - 1)  # a tree: seen from both sides, each door but no second way
        answers.add(answer)
    assert len(answers) == source.options["ways"]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_words_lead_the_ball_from_cell_to_cell_to_its_mark(options):
    source = MazeSource(thought="words", **options)
    low, high = source.steps
    for index in range(60):
        image, (words,), _ = content_of(source[index][0])
        cells = cells_of(image)
        place, _, _, marks = solved(image)
        met = [place]
        for move in words.split():
            assert (cells[place][SIDES[move]] != WALL).any()
            place = place[0] + AROUND[move][0], place[1] + AROUND[move][1]
            met.append(place)
        assert {place} == marks.keys()
        assert len(set(met)) == len(met)
        assert low <= len(met) - 1 <= high


def test_pictures_follow_the_moves_and_the_last_of_them_stands_alone_in_picture():
    steps, last = (MazeSource(thought=thought) for thought in ("pictures", "picture"))
    for index in range(20):
        image, pictures, _ = content_of(steps[index][0])
        way = steps.maze(index).way
        assert len(pictures) == len(way) - 1
        for moved, picture in enumerate(pictures, 1):
            cells = cells_of(picture)
            assert solved(picture)[0] == ball_of(picture.open(), 4) == way[moved]
            trail = {place for place, pixels in cells.items() if (pixels[2, 2] == TRAIL).all()}
            assert trail == set(way[:moved])
        assert [each.key for each in content_of(last[index][0])[1]] == [pictures[-1].key]
        assert len({image.key, *(each.key for each in pictures)}) == len(pictures) + 1


def test_the_maze_and_its_answer_are_the_same_whatever_stands_between():
    sources = [MazeSource(thought=each) for each in ("none", "fillers", "words", "picture", "pictures")]
    for index in range(20):
        contents = [content_of(source[index][0]) for source in sources]
        assert len({(image.key, answer) for image, _, answer in contents}) == 1
        none, (fillers,), (words,), picture, pictures = (thought for _, thought, _ in contents)
        assert none == []
        assert fillers.split() == [FILLER] * len(words.split())
        assert all(isinstance(each, Picture) for each in [*picture, *pictures])


@pytest.mark.parametrize(("share", "joined"), [(0.0, 0), (0.5, 6), (1.0, 13)])
def test_dead_ends_are_the_share_of_the_cells_off_all_ways_that_have_a_door(share, joined):
    source = MazeSource(side=5, ways=3, steps=(3, 3), dead_ends=share)
    for index in range(20):
        maze = source.maze(index)
        assert len(maze.doors) == 3 * 3 + joined  # of 25 cells 12 are on ways
        assert len({cell for door in maze.doors for cell in door}) == 12 + joined


def test_layouts_that_are_held_out_never_occur_in_training():
    train, held_out = (
        {source.maze(index).layout for index in range(600)}
        for source in (
            MazeSource(side=3, ways=2, steps=(2, 3)),
            MazeSource(side=3, ways=2, steps=(2, 3), split="held_out"),
        )
    )
    assert len(held_out) < 600  # so few there are that training would have met some
    assert not train & held_out


def test_the_ball_is_found_in_a_picture_of_one_pixel_in_eight():
    source = MazeSource(side=4)
    for index in range(50):
        maze = source.maze(index)
        for moved in range(len(maze.way)):
            small = MazePicture(maze, CELL, moved).open().resize((8, 8))
            assert ball_of(small, 4) == maze.way[moved]


@pytest.mark.parametrize("line", [2, 3, 12, 13])
@pytest.mark.parametrize("turned", [False, True])
def test_the_ball_is_where_the_whole_ring_is_dark_and_nothing_else_counts(line, turned):
    """One cell is dark all over but for one line of the ring; in the other the ring alone is dark."""
    cells = np.zeros((2, 16, 2, 16, 3), dtype=np.uint8)
    cells[0, :, 0][line, 2:14] = 255
    cells[1, :, 1] = 255
    cells[1, 2:14, 1, 2:14] = 0
    cells[1, 4:12, 1, 4:12] = 255
    cells[1, :, 0] = cells[0, :, 1] = 255
    image = Image.fromarray(cells.reshape(32, 32, 3))
    assert ball_of(image.transpose(Image.Transpose.TRANSPOSE) if turned else image, 2) == (1, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": 17}, "data.side is 17: input should be less than or equal to 16"),
        ({"cell": 12}, "data.cell is 12: input should be a multiple of 8"),
        ({"ways": 9}, "data.ways is 9: input should be less than or equal to 8"),
        ({"steps": [4, 2]}, "steps is .*two numbers, the first not above the second"),
        ({"dead_ends": 1.5}, "data.dead_ends is 1.5: input should be less than or equal to 1"),
        ({"side": 3, "ways": 3, "steps": [3, 3]}, "3 ways of 3 steps have 12 cells, but 3 x 3 are 9"),
    ],
)
def test_what_cannot_be_is_a_sentence(options, words):
    with pytest.raises(RecipeError, match=words):
        parts.build("data", {"type": "maze", **options})


def test_ways_for_which_no_place_is_found_are_a_sentence(monkeypatch):
    monkeypatch.setattr("chiasm.data.world.mazes.ATTEMPTS", 0)
    with pytest.raises(DataError, match="3 ways of up to 4 steps do not fit 4 x 4 cells; raise side"):
        MazeSource().maze(0)


def test_mazes_of_which_none_is_held_out_are_refused_at_once():
    smallest = {"side": 2, "ways": 2, "steps": (1, 1)}
    assert len(MazeSource(**smallest)[0]) == 1
    with pytest.raises(DataError, match="none is of the split 'held_out'; raise side, ways or steps"):
        MazeSource(**smallest, split="held_out")
