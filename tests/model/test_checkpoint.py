"""A model's folder: bit-equal when loaded, strict, complete, and written whole or not at all."""

import errno
import json
import os
import resource
import signal
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import load_file, save_file

import chiasm.storage.folders
from chiasm.errors import CheckpointError
from chiasm.model.checkpoint import load_model, save_model
from chiasm.recipe import load_recipe


@pytest.fixture
def saved(tiny, tmp_path):
    tiny["model"]["language"]["config"]["tie_word_embeddings"] = True
    from chiasm.model import Model

    recipe = load_recipe(tiny)
    model = Model(recipe.model, texts=["some words to learn"]).eval()
    return model, recipe, save_model(model, recipe, tmp_path / "model")


def test_saved_and_loaded_is_bit_equal(saved):
    model, recipe, folder = saved
    loaded = load_model(folder)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert loaded.sampling == recipe.sampling
    text = "a picture of 世界"
    assert loaded.language.tokenizer.encode(text) == model.language.tokenizer.encode(text)
    assert loaded.language.tokenizer.draw == model.language.tokenizer.draw
    ids = torch.arange(20)[None]
    assert torch.equal(loaded.language.embed(ids), model.language.embed(ids))


def test_tied_tensors_are_stored_once_and_tied_again(saved):
    _, _, folder = saved
    tied = json.loads((folder / "parts.json").read_text())["tied"]
    assert tied == {"language.inner.lm_head.weight": "language.inner.model.embed_tokens.weight"}
    assert not set(tied) & set(load_file(folder / "model.safetensors"))
    inner = load_model(folder).language.inner
    assert inner.lm_head.weight is inner.model.embed_tokens.weight


def test_a_folder_that_was_moved_and_saved_again_is_the_same(saved, tmp_path):
    _, recipe, folder = saved
    moved = folder.rename(tmp_path / "elsewhere")
    again = save_model(load_model(moved), recipe, tmp_path / "again")
    names = ("model.safetensors", "parts.json", "recipe.yaml", "tokenizer/tokenizer.json")
    for name in names:
        assert (moved / name).read_bytes() == (again / name).read_bytes(), name


BIAS = "connector.layers.0.bias"


def changed(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("connector.layers.0.bias"), r"1 missing: connector\.layers\.0\.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 left over: extra"),
        (
            lambda t: t.update({"connector.layers.0.bias": torch.zeros(3)}),
            r"another shape: .*\(3,\) instead of",
        ),
        (
            lambda t: t.update({BIAS: t[BIAS].long()}),
            rf"1 of another kind: {BIAS} integer instead of floating",
        ),
        (lambda t: t.update({BIAS: t[BIAS] > 0}), rf"1 of another kind: {BIAS} bool instead of floating"),
        (
            lambda t: t.update({BIAS: t[BIAS].cfloat()}),
            rf"1 of another kind: {BIAS} complex instead of floating",
        ),
        (lambda t: t[BIAS][-1:].fill_(float("nan")), f"1 not finite: {BIAS}"),
        (lambda t: t[BIAS][:1].fill_(-float("inf")), f"1 not finite: {BIAS}"),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, change, message):
    folder = saved[2]
    changed(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_what_is_refused_is_named_before_the_checksums_and_all_at_once(saved):
    folder = saved[2]

    def worsen(tensors):
        tensors[BIAS] = tensors[BIAS].long()
        tensors["connector.layers.0.weight"][0, 0] = float("nan")
        tensors["extra"] = torch.zeros(1)

    changed(folder, worsen)
    with pytest.raises(CheckpointError, match=r"1 left over: extra; 1 of another kind: .*; 1 not finite: "):
        load_model(folder)


def test_weights_in_another_precision_are_of_the_same_kind(saved):
    model, _, folder = saved
    changed(folder, lambda tensors: tensors.update({BIAS: tensors[BIAS].bfloat16()}))
    (folder / "checksums.json").unlink()  # the change is meant
    loaded = load_model(folder).state_dict()[BIAS]
    torch.testing.assert_close(loaded.float(), model.state_dict()[BIAS], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.connector.depth=3", r"connector\.depth is 2 in parts\.json, but 3 in recipe\.yaml"),
        ("model.encoder.patch_size=16", r"encoder\.patch_size is 8 in parts\.json, but 16 in recipe\.yaml"),
        ("model.language.config.hidden_size=64", r"recipe\.yaml is not as it was written"),
        (
            "model.image_tokenizer.codebook_size=32",
            r"image_tokenizer\.codebook_size is 16 .*, but 32 in recipe",
        ),
    ],
)
def test_sizes_other_than_the_recipe_says_are_refused_by_the_option(saved, tiny, override, message):
    folder = saved[2]
    load_recipe(tiny, [override]).save(folder / "recipe.yaml")
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"model": []},
        {"model": {"encoder": {"type": 3}}, "tied": {}},
        {"model": {"encoder": {"type": "patches"}}, "tied": {"a": 1}},
        {"model": {"encoder": {"type": "patches"}}, "tied": {}, "frozen": {"encoder": 3}},
        {"model": {"encoder": {"type": "patches"}}, "tied": {}, "frozen": [1]},
        {
            "model": {"encoder": {"type": "patches"}},
            "tied": {},
            "frozen": {"encoder": {"hash": 1, "file": "f"}},
        },
    ],
)
def test_parts_of_the_wrong_type_describe_no_model(saved, content):
    folder = saved[2]
    (folder / "parts.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"parts\.json (does not describe a model|holds no object)"):
        load_model(folder)


def test_what_is_no_checkpoint_is_said(saved, tmp_path):
    folder = saved[2]
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_model(tmp_path)
    (folder / "recipe.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"lacks recipe\.yaml"):
        load_model(folder)


def test_a_broken_file_is_said(saved):
    folder = saved[2]
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(folder)


def test_two_checkpoints_mixed_are_told_apart(saved, tiny):
    folder = saved[2]
    load_recipe(tiny, ["model.connector={type: linear}"]).save(folder / "recipe.yaml")
    with pytest.raises(CheckpointError, match="mixes two checkpoints"):
        load_model(folder)


@pytest.mark.parametrize("call", ["save_file", "fsync", "rename", "second rename"])
def test_a_full_disk_leaves_what_was_there(saved, monkeypatch, call):
    model, recipe, folder = saved
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    rename, renamed = os.rename, []

    def second(*paths):
        renamed.append(paths)
        if len(renamed) == 2:
            full()
        rename(*paths)

    places = {
        "save_file": (chiasm.storage.folders.safetensors.torch, "save_file", full),
        "fsync": (os, "fsync", full),
        "rename": (os, "rename", full),
        "second rename": (os, "rename", second),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*places[call])
        with pytest.raises(CheckpointError, match="disk is full"):
            save_model(model, recipe, folder)
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".model")] == []


def test_a_real_write_that_fails_leaves_what_was_there(saved, tmp_path):
    """The library's own writing meets a limit of the operating system, in a process of its own."""
    model, recipe, folder = saved

    def save():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            save_model(model, recipe, folder)
        except Exception as error:
            (tmp_path / "error").write_text(type(error).__name__)

    process = get_context("fork").Process(target=save)
    process.start()
    process.join()
    assert (tmp_path / "error").read_text() == "CheckpointError"
    load_model(folder)
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".model")] == []


@pytest.mark.parametrize("name", ["parts.json", "checksums.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000])
def test_what_is_nested_without_end_is_a_sentence(saved, name, content):
    folder = saved[-1]
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read: it is nested too deeply"):
        load_model(folder)


@pytest.mark.parametrize("name", ["parts.json", "checksums.json"])
@pytest.mark.parametrize("content", ["[1]", "null", '"text"', "3"])
def test_json_of_another_shape_is_a_sentence_of_the_field(saved, name, content):
    folder = saved[-1]
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{name} .*holds no object \(\{{\.\.\.\}}\) but ") as caught:
        load_model(folder)
    assert "attribute" not in str(caught.value)
