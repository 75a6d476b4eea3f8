"""What an earlier Chiasm wrote: refused by name, and brought up to date whole or not at all.

The older form is one that never was: parts, options, tensors and a slot that were called otherwise.
"""

import json
import shutil

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file
from toy import raw, toy

from chiasm.errors import CheckpointError, OutdatedError, RecipeError
from chiasm.model.checkpoint import load_model
from chiasm.recipe import forms, load_recipe
from chiasm.recipe.checkpoints import training_checkpoints
from chiasm.recipe.forms import MovedPart, MovedSlot
from chiasm.recipe.start import fingerprint
from chiasm.storage import safe_yaml
from chiasm.storage.integrity import check_seal, digest_of, seal
from chiasm.terminal import upgrade as upgrade_module
from chiasm.terminal.upgrade import upgrade
from chiasm.training import train
from chiasm.training.metrics import Metrics

OLDER = (
    MovedPart("connector", "projector", "mlp", {"layers": "depth"}, tensors={r"stack\.": "layers."}),
    MovedPart(
        "image_tokenizer", "vq", "vq", {"codes": "codebook_size"}, tensors={r"codebook\.": "quantizer."}
    ),
    MovedSlot("painter", "heads.image"),
)
RENAMED = (
    ("connector.stack.", "connector.layers."),
    ("image_tokenizer.codebook.", "image_tokenizer.quantizer."),
    ("painter.", "heads.image."),
)


@pytest.fixture(autouse=True)
def older(monkeypatch):
    monkeypatch.setattr(forms, "TABLE", OLDER)


def aged_name(name):
    for before, today in RENAMED:
        name = name.replace(today, before)
    return name


def aged_tensors(path):
    tensors = {aged_name(name): tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()
    return tensors


def aged_model(model):
    connector, codes = model["connector"], model["image_tokenizer"]
    connector |= {"type": "projector", "layers": connector.pop("depth", 2)}
    codes["codes"] = codes.pop("codebook_size")
    model["painter"] = model.pop("heads")["image"]
    return model


def aged_recipe(recipe):
    aged_model(recipe["model"])
    for stage in recipe["stages"]:
        stage["train"] = {aged_name(f"{slot}.")[:-1]: rate for slot, rate in stage["train"].items()}
    return recipe


def aged(folder):
    """A run or a checkpoint as the earlier Chiasm would have left it."""
    for path in folder.rglob("recipe.yaml"):
        path.write_text(safe_yaml.write(aged_recipe(safe_yaml.read(path))))
    for path in folder.rglob("parts.json"):
        record = json.loads(path.read_text())
        aged_model(record["model"])
        for slot, reference in list(record.get("frozen", {}).items()):
            kept = folder / "frozen" / f"{reference['hash']}.safetensors"
            tensors = aged_tensors(kept) if kept.exists() else load_file(folder / "frozen" / f"{slot}.tmp")
            save_file(tensors, folder / "frozen" / f"{slot}.tmp")
            reference["hash"] = digest_of(tensors)
            reference["file"] = str(folder / "frozen" / f"{reference['hash']}.safetensors")
            save_file(tensors, reference["file"])
        path.write_text(json.dumps(record))
        for name in ("model.safetensors", "state.safetensors"):
            if (path.parent / name).is_file():
                save_file(aged_tensors(path.parent / name), path.parent / name)
        seal(path.parent)
    for path in folder.glob("frozen/*.tmp"):
        path.unlink()
    return folder


def run(folder, learn=4):
    steps = ("stages.codes.steps=2", f"stages.learn.steps={learn}", "checkpoints.every=2")
    return train(toy(*steps), folder, console=Console(quiet=True), device="cpu")


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A run that was stopped between its checkpoints, and the same run finished."""
    folder = tmp_path_factory.mktemp("runs")
    write = Metrics.write

    def fail(self, step, line):
        if step == 6:
            raise ZeroDivisionError
        write(self, step, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIASM_CACHE", str(folder / "cache"))
        patch.setattr(Metrics, "write", fail)
        with pytest.raises(ZeroDivisionError):
            run(folder / "stopped")
        patch.undo()
        shutil.copytree(folder / "stopped", folder / "whole")
        run(folder / "whole")
    return folder


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_was_upgraded_goes_on_as_if_it_had_always_been_of_todays_form(halfway, tmp_path):
    folder = aged(shutil.copytree(halfway / "stopped", tmp_path / "run"))
    with pytest.raises(OutdatedError, match=rf"older form .*: chiasm upgrade {folder}$"):
        run(folder)
    changes = upgrade(folder)
    assert "model.connector: projector -> mlp, layers -> depth" in changes
    assert "train.painter -> train.heads.image" in changes
    assert any("tensors have other names" in line for line in changes)
    run(folder)
    final = "final/model.safetensors"
    assert (folder / final).read_bytes() == (halfway / "whole" / final).read_bytes()
    assert upgrade(folder) == []


def test_all_of_a_run_is_upgraded_and_nothing_of_the_older_form_is_left(halfway, tmp_path):
    folder = aged(shutil.copytree(halfway / "whole", tmp_path / "run"))
    before = {path.name for path in folder.rglob("*")}
    upgrade(folder)
    assert {path.name for path in folder.rglob("*") if path.suffix != ".safetensors"} <= before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".run")] == []
    for place in (*training_checkpoints(folder), folder / "final"):
        check_seal(place)
        theirs = load_model(halfway / "whole" / place.relative_to(folder)).state_dict()
        for name, tensor in load_model(place).state_dict().items():
            assert tensor.equal(theirs[name]), name
    files = {path.stem for path in (folder / "frozen").iterdir()}
    assert files == {path.stem for path in (halfway / "whole" / "frozen").iterdir()}


def test_nothing_changes_where_the_upgrade_fails(halfway, tmp_path, monkeypatch):
    folder = aged(shutil.copytree(halfway / "whole", tmp_path / "run"))
    before = content(folder)

    def full(path, *rest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upgrade_module, "write_tensors", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        upgrade(folder)
    assert content(folder) == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_damaged_checkpoint_is_not_upgraded(halfway, tmp_path):
    folder = aged(shutil.copytree(halfway / "whole", tmp_path / "run"))
    (folder / "final" / "tokenizer" / "tokenizer.json").write_text("{}")
    before = content(folder)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not as it was written"):
        upgrade(folder)
    assert content(folder) == before


def test_a_checkpoint_of_a_run_is_upgraded_with_it(halfway, tmp_path):
    folder = aged(shutil.copytree(halfway / "whole", tmp_path / "run"))
    with pytest.raises(CheckpointError, match=rf"upgrade all of it: chiasm upgrade {folder}$"):
        upgrade(folder / "final")
    moved = shutil.copytree(training_checkpoints(folder)[-1], tmp_path / "moved")
    with pytest.raises(OutdatedError, match=rf": chiasm upgrade {moved}$"):
        load_model(moved)
    upgrade(moved)
    references = json.loads((moved / "parts.json").read_text())["frozen"]
    assert list(references) == ["encoder"]  # what else it held by reference it now holds itself
    assert load_model(moved).connector.name == "mlp"


def test_a_run_that_began_with_a_checkpoint_still_knows_it_after_its_upgrade(halfway, tmp_path):
    model = shutil.copytree(halfway / "whole" / "final", tmp_path / "model")
    for name in ("model.safetensors", "parts.json"):
        assert (model / name).is_file()
    aged(model)
    with pytest.raises(OutdatedError, match=rf": chiasm upgrade {model}$"):
        load_recipe({**raw(), "start": str(model)})
    forms.TABLE = ()
    before = fingerprint(model)
    forms.TABLE = OLDER
    upgrade(model)
    assert fingerprint(model) == before
    assert load_recipe({**raw(), "start": str(model)}).start.fingerprint == before


WRITTEN = """\
# a recipe by hand
name: mine
about: ''
model:
  connector:  # between
    type: projector
    layers: 3   # deep
  image_tokenizer: {type: vq, size: 16, downsample: 8, codes: 64}
  painter: {type: raster, alphabet: {type: own}}

  # what all share
  views: {type: whole, size: 16}
  encoder: {type: patches, patch_size: 8}
  language: {type: causal, vocabulary: 400, config: {model_type: llama, hidden_size: 32, num_hidden_layers: 1,
             num_attention_heads: 2, intermediate_size: 32}}
data:
  squares: {type: test_squares}
stages:
  - {name: all, train: {connector: 1.0e-3, painter: 1.0e-3}, data: {squares: 1.0}, steps: 2}  # short
tiny:
  model: {image_tokenizer: {codes: 32}}
"""


def test_a_recipe_keeps_its_comments(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(WRITTEN)
    with pytest.raises(OutdatedError, match=rf"{path} is of an older form .*: chiasm upgrade {path}$"):
        load_recipe(path)
    changes = upgrade(path)
    assert "tiny.model.image_tokenizer: codes -> codebook_size" in changes
    text = path.read_text()
    for comment in ("# a recipe by hand", "# between", "# what all share", "# short"):
        assert comment in text
    assert load_recipe(path).model["connector"]["depth"] == 3
    assert load_recipe(path, tiny=True).model["image_tokenizer"]["codebook_size"] == 32
    assert list(load_recipe(path).stages[0].train) == ["connector", "heads.image"]
    assert upgrade(path) == []
    assert path.read_text() == text


def test_a_recipe_is_upgraded_with_what_it_is_laid_over(tmp_path):
    (tmp_path / "mine.yaml").write_text(WRITTEN)
    path = tmp_path / "larger.yaml"
    path.write_text("base: mine.yaml\nname: larger\nmodel:\n  image_tokenizer: {codes: 128}  # more\n")
    assert upgrade(path)[-1] == "model.image_tokenizer: codes -> codebook_size"
    assert path.read_text().endswith("  image_tokenizer: {codebook_size: 128}  # more\n")
    assert load_recipe(path).model["image_tokenizer"]["codebook_size"] == 128
    path.write_text("base: mine.yaml\nname: larger\nmodel: {connector: {layers: 4}}\n")
    with pytest.raises(OutdatedError, match=f"chiasm upgrade {path}"):
        load_recipe(path)  # the base alone is of today's form
    upgrade(path)
    assert load_recipe(path).model["connector"]["depth"] == 4


def test_a_recipe_given_as_a_mapping_is_refused_too():
    with pytest.raises(OutdatedError, match="the recipe is of an older form"):
        load_recipe(aged_recipe(raw()))


def test_what_is_neither_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no recipe's file, and no folder of a run or a checkpoint"):
        upgrade(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RecipeError, match=r"does not end in \.yaml"):
        upgrade(tmp_path / "notes.txt")


def test_values_that_went_without_saying_are_spelled_out():
    row = MovedPart(
        "image_tokenizer", "old", "new", {"bits": "quantizer.bits"},
        {"quantizer.type": "lfq", "levels": lambda spec: spec.get("bits", 4) + 1, "width": 8},
    )  # fmt: skip
    recipe = {"model": {"image_tokenizer": {"type": "old", "bits": 5, "width": 16}}}
    assert row.rewrite(recipe, {}) == ["model.image_tokenizer: old -> new, bits -> quantizer.bits"]
    expected = {"type": "new", "quantizer": {"type": "lfq", "bits": 5}, "width": 16, "levels": 6}
    assert recipe["model"]["image_tokenizer"] == expected
    assert row.rewrite(recipe, {}) == []
