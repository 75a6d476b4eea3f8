"""Structured calls: read, written, checked against the schema, and run by tools that can be swapped."""

import pytest
from PIL import Image

from chiasm.data.calls import Call, parse_call, run_call
from chiasm.errors import DataError

EDIT = "Sure. <module>C</module> <instruction>generation: a red hat</instruction> <region>8,0,40,24</region>"


def test_an_answer_is_what_it_says_and_what_it_calls_for():
    words, call = parse_call(EDIT)
    assert words == "Sure."
    assert call.module.name == "image editing"
    assert call.instruction == "a red hat"
    assert call.region == (8, 0, 40, 24)
    assert parse_call(str(call)) == ("", call)


def test_an_answer_without_tags_calls_for_nothing():
    assert parse_call("Two dogs < three dogs.") == ("Two dogs < three dogs.", None)


def test_a_module_with_two_instructions_needs_both():
    text = "<module>F</module><instruction>foreground: wings</instruction>"
    _, call = parse_call(text + " <instruction> background: keep </instruction> <region>None</region>")
    assert call.instructions == {"foreground": "wings", "background": "keep"}
    assert call.region is None
    with pytest.raises(DataError, match="lacks the instruction 'background: "):
        parse_call(text)
    with pytest.raises(DataError, match="say which one"):
        call.instruction  # noqa: B018


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "<module>Z</module><instruction>generation: x</instruction>",
            "names the module 'Z'; there are A, B",
        ),
        ("<instruction>generation: x</instruction>", "names no module"),
        ("<module>A</module><module>B</module>", "has 2 modules"),
        ("<module>A</module><instruction>generation: x", "<instruction> without its other half"),
        ("<module>A<region></module></region>", "without its other half"),
        ("<module>A</module><instruction>a dog</instruction>", "it must be 'generation: ...'"),
        ("<module>A</module><instruction>generation:</instruction>", "it must be 'generation: ...'"),
        ("<module>B</module><instruction>generation: x</instruction>", "it must be segmentation"),
        (
            "<module>A</module><instruction>generation: x</instruction><region>1,2,3,4</region>",
            "works on no image",
        ),
        (EDIT.replace("8,0,40,24", "8,0,40"), "left,top,right,bottom in whole pixels"),
        (EDIT.replace("8,0,40,24", "-8,0,40,24"), "left,top,right,bottom in whole pixels"),
        (EDIT.replace("8,0,40,24", "40,0,8,24"), "has no area"),
        (EDIT.replace("8,0,40,24", "8,0,40,65"), "has no area within an image of 64 x 64 pixels"),
    ],
)
def test_what_does_not_keep_to_the_schema_is_refused_by_name(text, problem):
    with pytest.raises(DataError, match=problem.replace("(", r"\(")):
        parse_call(text, (64, 64))


def test_the_tool_behind_a_name_is_swapped_by_giving_another():
    call, image = parse_call(EDIT)[1], Image.new("RGB", (64, 64))
    for answer in ("one", "other"):
        assert (
            run_call(call, {"image editing": lambda call, images, answer=answer: answer}, [image]) == answer
        )


def test_a_call_without_its_tool_or_its_image_is_refused():
    _, call = parse_call(EDIT)
    assert isinstance(call, Call)
    with pytest.raises(DataError, match="calls for image editing, for which there is no tool"):
        run_call(call, {})
    with pytest.raises(DataError, match="no image to work on"):
        run_call(call, {"image editing": lambda call, images: None})
    with pytest.raises(DataError, match="'image edit', which is no module; did you mean 'image editing'"):
        run_call(call, {"image edit": lambda call, images: None})
