"""Words with named boxes: what they name and where, and what is none."""

import pytest

from chiasm.data.named_boxes import NamedBox, named_boxes, with_named_boxes
from chiasm.errors import DataError


def test_regions_are_taken_out_of_the_words():
    text = "a garden <region>a cat: 0,250,500,1000</region> in the rain <region>10:30 o'clock: 1, 2, 3, 4</region>"
    words, boxes = named_boxes(text, 1000)
    assert words == "a garden in the rain"
    assert boxes == [
        NamedBox("a cat", (0.0, 0.25, 0.5, 1.0)),
        NamedBox("10:30 o'clock", (0.001, 0.002, 0.003, 0.004)),
    ]


def test_words_without_regions_are_themselves():
    assert named_boxes("a cat", 8) == ("a cat", [])


def test_a_region_without_a_name_is_of_the_words():
    assert named_boxes("a red hat <region>0,0,4,8</region>", 8) == (
        "a red hat",
        [NamedBox("a red hat", (0.0, 0.0, 0.5, 1.0))],
    )


def test_what_is_written_is_read_again():
    boxes = [("a cat", (1, 2, 3, 4)), ("a dog", (0, 0, 8, 8))]
    words, read = named_boxes(with_named_boxes("a garden", boxes), 8)
    assert words == "a garden"
    assert [(name, tuple(int(8 * edge) for edge in box)) for name, box in read] == boxes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a cat <region>a cat: 1,2,3", "a <region> stands without its other half in"),
        ("a cat 1,2,3,4</region>", "a </region> stands without its other half"),
        ("<region>a <region>b: 1,2,3,4</region></region>", "stands without its other half"),
        (
            "a <region>a cat: 1,2,3</region>",
            "a region is 'a cat: 1,2,3'; it must be 'name: left,top,right,bottom'",
        ),
        ("a <region>a cat: 1,2,3,x</region>", "it must be 'name: left,top,right,bottom'"),
        ("a <region>a cat: 4,2,4,6</region>", "the region 4,2,4,6 has no area within an image of 8 by 8"),
        ("a <region>a cat: 1,2,3,9</region>", "has no area within an image of 8 by 8"),
        ("<region>1,2,3,4</region>", "a region is '1,2,3,4', but nothing says what shall be seen in it"),
    ],
)
def test_other_forms_are_sentences(text, sentence):
    with pytest.raises(DataError, match=sentence):
        named_boxes(text, 8)
