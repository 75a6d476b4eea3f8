"""What is wrong with an argument is a sentence: short, printable, and named after the argument."""

import base64
from operator import getitem
from pathlib import Path

import pytest

import chiasm
from chiasm.conversation import chat
from chiasm.errors import (
    CheckpointError,
    ChiasmError,
    RecipeError,
    check_path,
    check_texts,
    excerpt,
    quoted,
    reason,
)
from chiasm.model import Model
from chiasm.studies.plan import load_study

LONG = 10**5000  # Python writes no number of so many digits


@pytest.mark.parametrize("value", [LONG, [LONG], {"a": -LONG}], ids=["number", "list", "mapping"])
def test_a_number_that_python_does_not_write_is_quoted_by_its_size(value):
    for text in (quoted(value), excerpt(value)):
        assert "16,610 bits" in text
        assert len(text) < 100


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda: [].items(), "a list"),
        (lambda: getitem(None, "a"), "null"),
        (lambda: getitem("a", "b"), "a text"),
        (lambda: getitem([1], "b"), "a list"),
        (lambda: dict(3), "a number"),
        (lambda: (3.5).keys(), "a number"),
    ],
)
def test_why_something_was_refused_is_not_said_in_terms_of_code(read, value):
    with pytest.raises((TypeError, AttributeError)) as caught:
        read()
    assert reason(caught.value) == f"{value} stands where something else is expected"


SECRET = base64.b64encode(bytes(range(97, 123)) * 10).decode()


@pytest.mark.parametrize(
    "value",
    [SECRET, f"data:image/png;base64,{SECRET[:80]}", [SECRET], {"data": SECRET}, SECRET.encode()],
    ids=["text", "URL", "list", "mapping", "bytes"],
)
def test_the_data_of_a_file_is_never_quoted(value):
    for text in (quoted(value), excerpt(value)):
        assert SECRET[:4] not in text
        assert SECRET[-4:] not in text
        assert "letters" in text or "bytes" in text
    assert SECRET[:4] not in excerpt(Path(SECRET))


@pytest.mark.parametrize("value", [None, 5, b"run", object(), ["run"], 1j])
def test_what_is_no_path_is_refused_by_the_name_of_its_argument(value):
    for call in (
        lambda: chiasm.load(value),
        lambda: chiasm.evaluate(value),
        lambda: check_path("folder", value),
    ):
        with pytest.raises(ChiasmError, match=r"^folder: it must be a path, not ") as caught:
            call()
        assert caught.value.field == "folder"


def test_what_no_file_can_be_called_is_a_sentence(tmp_path):
    name = tmp_path / ("n" * 300)
    for call in (
        lambda: chiasm.load(name),
        lambda: chiasm.evaluate(name),
        lambda: chiasm.train("quickstart", name),
        lambda: chiasm.load_recipe(name),
    ):
        with pytest.raises(ChiasmError, match="file name too long"):
            call()
    with pytest.raises(ChiasmError, match=r"^folder: it is empty"):
        chiasm.train("quickstart", "")
    with pytest.raises(ChiasmError, match="there is no folder") as caught:
        chiasm.load("a\ud800\0b")
    str(caught.value).encode()  # a terminal prints it
    assert check_path("folder", str(tmp_path)) == check_path("folder", tmp_path) == Path(tmp_path)


@pytest.mark.parametrize("value", [None, 5, "evaluation.samples=2", ["a=1", 2], {"a": 1}])
def test_overrides_that_are_no_list_of_texts_are_refused(value):
    for call in (
        lambda: chiasm.load_recipe("quickstart", value),
        lambda: chiasm.evaluate("run", value),
    ):
        with pytest.raises(ChiasmError, match=r"^overrides: it must be a list of dotted\.key=value, not "):
            call()
    assert check_texts("overrides", ["a=1"], "x") == ("a=1",)


@pytest.mark.parametrize("value", [5, None, ["quickstart"]])
def test_a_recipe_is_a_mapping_or_a_path(value):
    with pytest.raises(ChiasmError, match=r"^recipe: it must be a path"):
        chiasm.load_recipe(value)


def test_what_is_no_path_is_an_error_of_the_kind_that_is_promised(tmp_path):
    for kind, call in (
        (RecipeError, lambda: chiasm.load_recipe(5)),
        (RecipeError, lambda: load_study(5)),
        (CheckpointError, lambda: chiasm.load(5)),
        (CheckpointError, lambda: chiasm.evaluate(5)),
        (CheckpointError, lambda: chiasm.train("quickstart", 5)),
    ):
        with pytest.raises(kind, match="it must be a path"):
            call()


@pytest.mark.parametrize("value", [-1, 1.5, "2", 10**7, True])
def test_workers_are_a_number_of_processes(value, tmp_path):
    with pytest.raises(ChiasmError, match="workers must be a number of processes"):
        chiasm.train("quickstart", tmp_path, workers=value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Model.chat(None, "hi", tokns=1), "chat has no option 'tokns'; did you mean 'tokens'?"),
        (lambda: chat(None, "hi", foo=1), "chat has no option 'foo'; known: engine, "),
        (
            lambda: Model.generate(None, "x", size=64),
            "generate has no option 'size'; known: count, guidance, ",
        ),
        (lambda: Model.generate(None, "x", word_top_k=1), "generate has no option 'word_top_k'"),
        (lambda: Model.edit(None, "x.png", "x", masks=1), "edit has no option 'masks'; did you mean 'mask'?"),
        (lambda: Model.complete(None, [], guidance=2.0), "complete has no option 'guidance'"),
        (lambda: Model.synthesise(None, "m", "x", sed=1), "synthesise has no option 'sed'; did you mean"),
        (lambda: Model.zoom(None, "x", scale=1), "zoom has no option 'scale'"),
        (lambda: Model.zoom(None, "x", 3), "settings: it must be a chiasm.inference.zoom.Zoom, not 3"),
    ],
)
def test_an_option_that_a_call_has_not_is_named_before_anything_is_done(call, message):
    with pytest.raises(ChiasmError) as error:
        call()
    assert message in str(error.value)
