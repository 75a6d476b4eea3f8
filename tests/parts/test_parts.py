import re
from typing import Annotated, Optional

import pytest
from pydantic import Field, PositiveInt

import chiasm
from chiasm import parts
from chiasm.connectors import Connector
from chiasm.connectors.mlp import MLP
from chiasm.encoders import Encoder
from chiasm.encoders.patches import Patches
from chiasm.errors import ChiasmError, RecipeError
from chiasm.parts import SLOTS, Part, lookup, names, options
from chiasm.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


class Whole(Connector):
    """Defines what a connector must, and nothing that a test is about."""

    def tokens(self, grid):
        return grid[0] * grid[1]

    def forward(self, grid):
        return grid.flatten(1, 2)


def refused(spec, slot="connector"):
    with pytest.raises(RecipeError) as caught:
        parts.check(slot, spec, f"model.{slot}")
    return str(caught.value)


def test_an_unknown_option_is_answered_with_the_nearest_one():
    said = refused({"type": "mlp", "dept": 3})
    assert said.startswith("connector 'mlp' has no option 'dept'; did you mean 'depth'?")


def test_an_unknown_part_is_answered_with_the_nearest_one():
    assert (
        refused({"type": "pixel_shufle"})
        == "there is no connector 'pixel_shufle'; did you mean 'pixel_shuffle'?"
    )


def test_a_wrong_value_is_named_with_its_place():
    assert "model.connector.depth is 'deep'" in refused({"type": "mlp", "depth": "deep"})
    said = refused({"type": "mlp", "depth": 0})
    assert "greater than or equal to 1" in said
    assert said.endswith("(expected int)")


@pytest.mark.parametrize("spec", [None, [], "mlp", {}, {"type": None}, {"type": 3}, {"type": ["mlp"]}])
def test_what_is_no_description_of_a_part_is_a_sentence(spec):
    assert "model.connector" in refused(spec)


def test_a_key_that_is_no_string_is_a_sentence():
    assert "has no option True" in refused({"type": "mlp", True: 1})


def test_check_spells_out_every_option():
    assert parts.check("connector", {"type": "mlp"}, "connector") == {
        "type": "mlp",
        "depth": 2,
        "bias": True,
        "activation": "gelu",
    }


def test_options_have_types_defaults_and_the_docstring_as_help():
    option = parts.options(parts.lookup("connector", "mlp"))["depth"]
    assert (option.type, option.default, option.help) == ("int", 2, "linear layers.")


@pytest.mark.parametrize("slot", ["views", "encoder", "connector", "routing"])
def test_every_option_of_a_part_is_explained(slot):
    for name in parts.names(slot):
        part = parts.lookup(slot, name)
        assert part.__doc__, f"{slot} {name} has no docstring"
        assert [o.name for o in parts.options(part).values() if not o.help] == [], f"{slot} {name}"


def test_an_option_is_explained_where_it_comes_from():
    class Gained(parts.lookup("connector", "mlp"), name="gained"):
        """With a gain.

        Args:
            depth: of this one.
            gain: factor on the tokens.
        """

        def __init__(
            self, in_width: int, out_width: int, *, depth: int, bias: bool = True, gain: float = 1.0
        ):
            super().__init__(in_width, out_width, depth=depth, bias=bias)

    told = {name: option.help for name, option in parts.options(Gained).items()}
    mlp = parts.options(parts.lookup("connector", "mlp"))
    assert told == {"depth": "of this one.", "bias": mlp["bias"].help, "gain": "factor on the tokens."}


def test_a_name_means_one_part_also_for_classes_of_equal_names():
    with pytest.raises(RecipeError, match=re.escape("connector 'mlp' is defined twice")):
        type("MLP", (Whole,), {"__module__": "elsewhere", "__qualname__": "MLP"}, name="mlp")


def test_a_class_that_is_defined_again_replaces_itself():
    for _ in range(2):
        type("Mine", (Whole,), {"__module__": "notebook", "__qualname__": "Mine"}, name="mine")
    assert "mine" in parts.names("connector")


def test_a_required_option_is_asked_for():
    class Needy(Whole, name="needy"):
        def __init__(self, in_width: int, out_width: int, *, rank: PositiveInt):
            super().__init__()

    assert refused({"type": "needy"}) == "connector 'needy' needs the option 'rank' (int) at model.connector"


def test_an_option_may_be_a_part_or_several():
    class Nested(Whole, name="nested"):
        def __init__(self, in_width: int, out_width: int, *, one: Optional[Encoder], many: list[Encoder]):  # noqa: UP045
            super().__init__()
            self.one, self.many = one, many

    patches = {"type": "patches", "patch_size": 4}
    part = parts.build("connector", {"type": "nested", "one": patches, "many": [patches, patches]}, 1, 2)
    assert [encoder.patch_size for encoder in (part.one, *part.many)] == [4, 4, 4]
    assert parts.build("connector", {"type": "nested", "one": None, "many": []}, 1, 2).one is None
    assert "model.connector.many.0" in refused(
        {"type": "nested", "one": None, "many": [{"type": "patches", "patch_size": -1}]}
    )


def test_a_list_of_parts_may_be_bounded():
    class Bounded(Whole, name="bounded"):
        """A part."""

        def __init__(
            self,
            *,
            several: Annotated[list[Encoder], Field(min_length=2)],
            few: Annotated[list[Encoder], Field(max_length=1)] | None = None,
        ):
            self.several = several

    patches = {"type": "patches"}
    checked = parts.check("connector", {"type": "bounded", "several": [patches] * 2}, "here")
    assert checked["several"][1]["patch_size"] == parts.options(Patches)["patch_size"].default
    with pytest.raises(RecipeError, match=r"here\.several is .*at least 2 items"):
        parts.check("connector", {"type": "bounded", "several": [patches]}, "here")
    many = {"type": "bounded", "several": [patches] * 2, "few": [patches] * 2}
    with pytest.raises(RecipeError, match=r"here\.few is .*at most 1 item"):
        parts.check("connector", many, "here")
    with pytest.raises(RecipeError, match=r"here\.several must be a list of parts of the slot encoder"):
        parts.check("connector", {"type": "bounded", "several": patches}, "here")


def test_an_option_takes_the_kinds_of_part_that_it_names_alone():
    class Picky(Whole, name="picky"):
        """A part."""

        def __init__(self, *, one: MLP | None = None, many: list[Patches]):
            self.one, self.many = one, many

    mlp, patches = {"type": "mlp"}, {"type": "patches"}
    parts.check("connector", {"type": "picky", "one": mlp, "many": []}, "here")
    with pytest.raises(
        RecipeError,
        match=r"connector 'picky' takes no connector 'linear': use connector .*'mlp'.* \(at here\.one\)",
    ):
        parts.check("connector", {"type": "picky", "one": {"type": "linear"}, "many": []}, "here")
    with pytest.raises(
        RecipeError, match=r"takes no encoder 'vit': use encoder 'patches'.* \(at here\.many\.1\)"
    ):
        parts.check("connector", {"type": "picky", "many": [patches, {"type": "vit"}]}, "here")


def test_positional_arguments_are_wiring_and_no_options():
    assert "in_width" not in parts.options(parts.lookup("connector", "mlp"))
    assert issubclass(parts.lookup("connector", "mlp"), Part)


@pytest.mark.parametrize(
    "override",
    [
        "model.connector.factor=10000000",
        "model.language.vocabulary=-1",
        "model.language.vocabulary=1000000000",
        "model.views.size=10000000",
        "model.heads.image.unconditional=-.inf",
        "model.heads.image.unconditional=1.5",
        "model.heads.image.unconditional=.nan",
    ],
)
def test_an_option_out_of_bounds_is_named(override):
    with pytest.raises(RecipeError, match=override.split("=")[0]):
        load_recipe("quickstart", [override])


def test_every_size_among_the_options_of_a_models_parts_has_an_upper_bound():
    unbounded = {
        f"{slot} {name}.{option.name}"
        for slot in SLOTS
        if slot != "data"
        for name in names(slot)
        for option in options(lookup(slot, name)).values()
        if option.name in ("width", "depth", "heads", "size", "hidden", "queries", "context", "vocabulary")
        and "le=" not in repr(option.annotation).lower()
    }
    assert not unbounded


@pytest.mark.parametrize("value", [[{"type": "own"}], [], 5, None])
def test_one_part_is_no_list_and_no_nothing(value):
    spec = {"type": "raster", "alphabet": value}
    with pytest.raises(RecipeError, match=r"model\.heads\.image\.alphabet must be a mapping with a 'type'"):
        parts.check("order", spec, "model.heads.image")


@pytest.mark.parametrize("value", [{"type": "patches"}, None])
def test_a_list_of_parts_is_no_single_one(value):
    spec = {**parts.lookup("encoder", "hybrid").example(), "type": "hybrid", "encoders": value}
    with pytest.raises(RecipeError, match="must be a list of parts of the slot encoder"):
        parts.check("encoder", spec, "model.encoder")


def test_a_list_of_fixed_length_says_how_many_items_it_has():
    class Twice(Whole, name="twice"):
        def __init__(self, in_width: int, out_width: int, *, sides: tuple[int, int] = (1, 2), free=None):
            super().__init__()

    assert "sides is [3]: it must have 2 items, not 1" in refused({"type": "twice", "sides": [3]})
    assert "sides is []: it must have 2 items, not 0" in refused({"type": "twice", "sides": []})
    assert "it must have at most 2 items, not 3" in refused({"type": "twice", "sides": [1, 2, 3]})


def test_an_option_without_an_annotation_takes_anything():
    class Free(Whole, name="free"):
        def __init__(self, in_width: int, out_width: int, *, what):
            super().__init__()

    assert refused({"type": "free"}) == "connector 'free' needs the option 'what' (Any) at model.connector"
    assert parts.check("connector", {"type": "free", "what": [1, {"a": 2}]}, "c")["what"] == [1, {"a": 2}]


def test_a_part_defines_what_its_slot_asks_of_each():
    with pytest.raises(
        RecipeError, match=r"connector 'half' does not define forward: .*Half in .*test_parts"
    ):

        class Half(Connector, name="half"):
            def tokens(self, grid):
                return 1

    assert "half" not in parts.names("connector")


@pytest.mark.parametrize("slot", SLOTS)
def test_an_empty_part_of_any_slot_is_refused_if_there_is_anything_to_define(slot):
    names(slot)  # imports the slot's package
    interface = next(each for each in Part.__subclasses__() if each.slot == slot)
    asked = [key for key, each in vars(interface).items() if getattr(each, "__isabstractmethod__", False)]
    if asked:
        with pytest.raises(RecipeError, match=rf"{slot} 'empty' does not define {asked[0]}"):
            type("Empty", (interface,), {}, name="empty")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("raise SystemExit(3)", "it ends the program")],
)
def test_a_part_whose_constructor_fails_is_named_with_its_file_and_line(tmp_path, statement, reason):
    file = tmp_path / "own.py"
    file.write_text(
        "from chiasm.connectors.linear import Linear\n\n\n"
        f"class Failing(Linear, name='failing'):\n    def __init__(self, *widths):\n        {statement}\n"
    )
    chiasm.use(file)
    with pytest.raises(
        ChiasmError, match=rf"connector 'failing' cannot be built: line 6 of {file}: .*{reason}"
    ):
        parts.build("connector", {"type": "failing"}, 2, 3)


def test_a_part_that_takes_no_wiring_is_named_with_its_place():
    class Alone(Whole, name="alone"):
        def __init__(self):
            super().__init__()

    with pytest.raises(
        ChiasmError, match=r"'alone' cannot be built: .*Alone in line \d+ of .*positional arg"
    ):
        parts.build("connector", {"type": "alone"}, 2, 3)
