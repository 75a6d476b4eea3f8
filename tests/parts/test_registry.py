"""Parts, tasks, metrics, families and replays are found in one way; those of a user's file, where it is named."""

import pickle
from textwrap import dedent

import pytest
import yaml

import chiasm
from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.errors import CheckpointError, ChiasmError, RecipeError
from chiasm.evaluation import metrics
from chiasm.evaluation.tasks import tasks
from chiasm.interop import all_families, find_family
from chiasm.interop.parity.verify import _replays
from chiasm.model import Model
from chiasm.model.checkpoint import save_model
from chiasm.parts import plugins
from chiasm.parts.registry import Registry
from chiasm.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

OF_EACH_KIND = '''
from torch import nn

from chiasm.connectors.linear import Linear
from chiasm.evaluation.metrics import metric
from chiasm.evaluation.tasks import Outcome, Task
from chiasm.interop import Family, replays


class Mine(Linear, name="mine"):
    """A linear layer under a name of one's own."""


class Groups(Task, name="groups"):
    def run(self, exam):
        return Outcome({"groups": len(exam.source)}, {})


@metric("mine")
def right(answer, truths):
    return 1.0


class MyFamily(Family, name="mine"):
    looks_for = "mine.json"

    def recognises(self, folder):
        return (folder.path / "mine.json").is_file()


@replays("my project", "MyModel")
def replay(case):
    return {}
'''
KINDS = {
    "connector": ("mine", lambda name: parts.lookup("connector", name)),
    "task": ("groups", lambda name: parts.lookup("task", name)),
    "metric": ("mine", metrics.lookup),
    "checkpoint family": ("mine", find_family),
    "replay": ("my project/MyModel", _replays.lookup),
}


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OF_EACH_KIND)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_brings_what_is_of_any_kind(plugin, kind):
    name, look_up = KINDS[kind]
    with pytest.raises(ChiasmError, match=f"there is no {kind} "):
        look_up(name)
    chiasm.use(plugin)
    assert look_up(name)
    assert plugins.loaded() == [str(plugin)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_of_any_kind_means_one_definition(plugin, kind):
    """Whichever file comes later is refused, by both places; the same file may come again."""
    chiasm.use(plugin)
    chiasm.use(plugin.parent / ".." / plugin.parent.name / plugin.name)
    name, look_up = KINDS[kind]
    other = plugin.with_name("other.py")
    lines = OF_EACH_KIND.split("\n\n\n")
    alone = [line for line in lines[1:] if f'"{name.split("/")[0]}"' in line and _is_of(kind, line)]
    other.write_text("\n\n\n".join([lines[0], *alone]))
    first = look_up(name)
    with pytest.raises(ChiasmError, match=rf"{kind} '{name}' is defined twice: .*mine\.py and .*other\.py"):
        chiasm.use(other)
    if kind in ("connector", "task"):
        assert look_up(name) is first


def _is_of(kind, text):
    marks = {"connector": "Linear,", "task": "Task,", "metric": "@metric", "checkpoint family": "Family,",
             "replay": "@replays"}  # fmt: skip
    return marks[kind] in text


@pytest.mark.parametrize(
    ("look_up", "near", "word"),
    [
        (lambda name: parts.lookup("encoder", name), "vitt", "vit"),
        (lambda name: parts.lookup("task", name), "question", "questions"),
        (metrics.lookup, "exakt", "exact"),
        (find_family, "llava-hff", "llava-hf"),
    ],
)
def test_what_is_not_there_is_answered_with_the_nearest_name_or_with_the_way_to_bring_it(look_up, near, word):
    with pytest.raises(ChiasmError, match=f"did you mean '{word}'") as error:
        look_up(near)
    assert "--plugin" not in str(error.value)
    with pytest.raises(ChiasmError, match=rf"; known: .*{word}.*--plugin FILE or chiasm\.use\(FILE\)"):
        look_up("something else entirely")


def test_a_family_or_replay_that_has_no_name_is_an_error_of_checkpoints():
    with pytest.raises(CheckpointError, match="a checkpoint family has no name"):
        Registry.kinds["checkpoint family"].add(" ", all_families)


def test_an_edited_file_is_loaded_again_and_an_unchanged_one_is_not(plugin):
    chiasm.use(plugin)
    before = tasks()["groups"], parts.lookup("connector", "mine")
    chiasm.use(plugin)
    assert parts.lookup("connector", "mine") is before[1]
    plugin.write_text(OF_EACH_KIND.replace("return 1.0", "return 0.5"))
    chiasm.use(plugin)
    assert metrics.lookup("mine")("", [""]) == 0.5
    assert parts.lookup("connector", "mine") is not before[1]


def test_what_a_plugin_defines_can_be_handed_to_a_process_that_loads_it_too(plugin):
    chiasm.use(plugin)
    part = parts.build("connector", {"type": "mine"}, 2, 3)
    assert type(pickle.loads(pickle.dumps(part))) is parts.lookup("connector", "mine")
    assert type(part).__module__.startswith("chiasm_plugin_mine_")


@pytest.mark.parametrize(
    "text",
    ["raise ValueError('no')", "def broken(:", "import nothing_of_this_name", "import sys\nsys.exit(3)"],
)
def test_a_plugin_that_fails_is_named_and_may_be_mended(plugin, text):
    plugin.write_text(dedent(text))
    with pytest.raises(ChiasmError, match=r"the plugin .*mine\.py cannot be imported"):
        chiasm.use(plugin)
    assert plugins.loaded() == []
    plugin.write_text(OF_EACH_KIND)
    chiasm.use(plugin)
    assert "mine" in parts.names("connector")


def test_a_checkpoint_never_brings_code_of_its_own(plugin, tmp_path, tiny, monkeypatch):
    """Neither by lying beside its weights nor by any word of its recipe; the error says how it may come."""
    chiasm.use(plugin)
    tiny["model"]["connector"] = {"type": "mine"}
    recipe = load_recipe(tiny)
    folder = tmp_path / "checkpoint"
    save_model(Model(recipe.model, texts=corpus(recipe)), recipe, folder)
    Registry.kinds["connector"]._definitions.pop("mine")
    for name in ("mine.py", "connectors.py", "__init__.py", "sitecustomize.py"):
        (folder / name).write_text("raise SystemExit('ran')")
    monkeypatch.chdir(folder)
    with pytest.raises(RecipeError, match=r"there is no connector 'mine'.*--plugin FILE"):
        chiasm.load(folder)
    text = (folder / "recipe.yaml").read_text()
    for line in ("plugins: [mine.py]", "plugin: mine.py", "use: mine"):
        (folder / "recipe.yaml").write_text(f"{text}\n{line}\n")
        with pytest.raises(RecipeError, match=f"has no key '{line.split(':')[0]}'"):
            chiasm.load(folder)


def test_a_plugin_that_ends_the_program_says_so(plugin):
    plugin.write_text("raise SystemExit(3)")
    with pytest.raises(ChiasmError, match=r"cannot be imported: it ends the program \(sys\.exit\(3\)\)"):
        chiasm.use(plugin)


def test_commands_name_the_plugins_that_they_need(plugin, tmp_path):
    assert plugins.as_options() == ""
    spaced = tmp_path / "my own.py"
    spaced.write_text("")
    chiasm.use(plugin, spaced)
    assert plugins.as_options() == f" --plugin {plugin} --plugin '{spaced}'"


def test_a_part_that_is_not_there_names_the_plugins_of_the_run(tmp_path, tiny):
    tiny["model"]["connector"] = {"type": "averaged"}
    run = tmp_path / "run"
    for folder in (run, run / "final"):
        folder.mkdir()
        (folder / "recipe.yaml").write_text(yaml.safe_dump(tiny))
    (run / "run.json").write_text('{"plugins": ["averaged.py", "other.py"]}')
    for folder in (run, run / "final"):
        with pytest.raises(
            RecipeError, match=r"by its run\.json the run had --plugin averaged\.py --plugin other"
        ):
            load_recipe(folder)
    with pytest.raises(RecipeError, match=r"model has no slot 'nothing'; did you mean 'routing'\?$"):
        load_recipe(run, ["model.nothing={type: x}"])
    for record in ("[]", "{", '{"plugins": 3}', '{"plugins": [3]}', "{}"):
        (run / "run.json").write_text(record)
        with pytest.raises(RecipeError) as error:
            load_recipe(run)
        assert "run.json" not in str(error.value)
