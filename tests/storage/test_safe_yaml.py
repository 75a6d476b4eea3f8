"""YAML as data: what PyYAML takes for something else, and texts that want too much."""

import time

import pytest

from chiasm.errors import RecipeError
from chiasm.recipe import recipes
from chiasm.storage import safe_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        ("-2", -2),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("nan", "nan"),
        ("0x10", "0x10"),
        ("010", 10),
    ],
)
def test_scalars_are_those_of_the_core_schema(text, value):
    parsed = safe_yaml.parse(text, "it")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "1e-3",
        "no",
        "1:30",
        "true",
        "null",
        "",
        "~",
        "010",
        ".5",
        "- a",
        "a: b",
        "# a",
        "2024-01-01",
        "<<",
        "=",
        "a\x85b",
        " \u2028 '",
        "\u2029",
        "\ufeff",
        "天空 😀",
    ],
)
def test_what_is_written_is_read_back(value):
    for each in (value, {value: [value, 1.5e-7, 1, None, False]}):
        assert safe_yaml.parse(safe_yaml.write(each), "it") == each


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "the key 'a' stands there twice"),
        ("b: {c: 1, c: 1}", "the key 'c' stands there twice"),
        ("? [1, 2]\n: 3", "is not YAML"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("a: !!binary aGk=", "is not YAML"),
        ("a: !!timestamp 2024-01-01", "is not YAML"),
        ("a: !!set {b}", "is not YAML"),
        ("a: !!int x", "is not YAML"),
        ("a: .nan", "it: a is nan, which is not a finite number"),
        ("a: [1, -.inf]", "it: a: 1 is -inf, which is not a finite number"),
        ("&a [*a]", "nested too deeply, or holds itself"),
        ("[" * 100_000, "nested too deeply"),
        (BOMB, "values once its aliases are written out"),
        ("9" * 5000, "is not YAML"),
        ("a: b: c", "is not YAML"),
    ],
    ids=lambda text: text[:20],
)
def test_the_rest_is_a_sentence_within_seconds(text, reason):
    began = time.process_time()
    with pytest.raises(RecipeError, match=reason.replace("(", r"\(")) as caught:
        safe_yaml.parse(text, "it")
    assert time.process_time() - began < 20
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: [1, 2\nc: 3", "line 3, column 2"),
        ("a:\n  - 1\n b: 2", "line 3, column 2"),
        ("a: 1\n\tb: 2", "line 2, column 1"),
        ("a: 'x", "line 1, column 6"),
        ("x: &a 1\ny: *b", "line 2, column 4"),
        ("a: 1\na: 2", "line 2, column 1"),
        ("a: !!set {b}", "line 1, column 4"),
    ],
)
def test_what_is_no_yaml_is_one_line_with_its_place(text, place):
    with pytest.raises(RecipeError, match=f"^it is not YAML: {place}: ") as caught:
        safe_yaml.parse(text, "it")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["\x00", "a: \x07", "\ud800"])
def test_what_is_no_text_is_one_line(text):
    with pytest.raises(RecipeError, match=r"^it is not YAML: ") as caught:
        safe_yaml.parse(text, "it")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        recipes()["quickstart"].read_text(encoding="utf-8"),
        "a: &x {b: [1, .5, 010, no, 1e-3, ~]}\nc: *x",
        "'天空': \"\\u2028 😀\"\n'': |\n  two\n   lines\n",
    ],
    ids=["a recipe", "scalars", "texts"],
)
def test_values_are_the_same_where_pyyaml_was_built_without_libyaml(monkeypatch, text):
    value = safe_yaml.parse(text, "it")
    assert value
    monkeypatch.setattr(safe_yaml, "_FAST", {each: each for each in safe_yaml._FAST})
    assert repr(safe_yaml.parse(text, "it")) == repr(value)


def test_a_file_that_is_too_large(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("a: " + "x" * safe_yaml.MOST_BYTES)
    with pytest.raises(RecipeError, match="is larger than"):
        safe_yaml.read(path)
