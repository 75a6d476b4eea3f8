"""What cannot be imported is refused in a sentence that says what it is, before anything large is allocated."""

import json

import pytest
import torch
from typer.testing import CliRunner

from chiasm.cli import app
from chiasm.errors import CheckpointError
from chiasm.interop import all_families, import_checkpoint, recognise
from chiasm.interop.convert import _numbers
from chiasm.interop.family import Folder

LLAMA = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 32000}


def folder_with(path, config, **files):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    return Folder(path)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "paligemma", "riddle"])
def test_a_family_that_is_not_known_is_named(tmp_path, kind):
    with pytest.raises(
        CheckpointError, match=f"this is {kind}, which Chiasm cannot import yet; `chiasm families`"
    ):
        recognise(folder_with(tmp_path, {"model_type": kind}))


@pytest.mark.parametrize("kind", ["llava", "internvl", "multi_modality"])
def test_a_family_that_is_known_is_named_with_what_its_folder_lacks(tmp_path, kind):
    folder = folder_with(tmp_path, {"model_type": kind})
    lacking = rf"this is {kind}, but lacks what it is recognised by: .*{kind}.* by config.json with"
    with pytest.raises(CheckpointError, match=lacking) as caught:
        recognise(folder)
    assert "cannot import" not in str(caught.value)
    assert "It holds no weights: no file *.safetensors, *.pth, *.pt, *.bin, *.ckpt" in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=lacking) as caught:
        recognise(folder)
    assert "no weights" not in str(caught.value)


def test_the_class_names_a_family_where_no_type_does(tmp_path):
    with pytest.raises(CheckpointError, match="this is Transfuser, which Chiasm cannot import yet"):
        recognise(folder_with(tmp_path, {"_class_name": "Transfuser"}))


@pytest.mark.parametrize(("kind", "part"), [
    ("llama", "language: {type: causal, "), ("dinov2", "encoder: {type: tr"),
    ("clip", "encoder: {type: transformers"),
])  # fmt: skip
def test_a_part_alone_is_taken_by_a_recipe_as_it_is(tmp_path, kind, part):
    with pytest.raises(CheckpointError, match=f"this is {kind}, a .*a recipe takes it as {part}"):
        recognise(folder_with(tmp_path, {"model_type": kind}))


def test_an_adapter_is_named_with_the_model_it_belongs_to(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    with pytest.raises(CheckpointError, match="holds an adapter alone; merge it into org/base first"):
        recognise(Folder(tmp_path))


def test_a_folder_of_our_own_needs_no_import(tmp_path):
    (tmp_path / "parts.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is a checkpoint of Chiasm's already"):
        recognise(Folder(tmp_path))


def test_one_command_lists_the_known_families():
    listed = CliRunner().invoke(app, ["families"]).output
    assert all(f"{name}  " in listed and each.looks_for in listed for name, each in all_families().items())


@pytest.fixture
def projector(tmp_path):
    """What LLaVA's first stage leaves, of a model of 7 B parameters: 26 GB that no test could allocate."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    tower = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
                             image_size=28, patch_size=14)  # fmt: skip
    CLIPVisionModel(tower).save_pretrained(tmp_path / "tower")
    config = {**LLAMA, "model_type": "llava_llama", "mm_projector_type": "linear", "mm_hidden_size": 8}
    folder = folder_with(tmp_path / "projector", {**config, "mm_vision_tower": str(tmp_path / "tower")}).path
    _numbers(8).save_pretrained(folder)
    torch.save({"model.mm_projector.weight": torch.zeros(4096, 8), "model.mm_projector.bias": torch.zeros(4096)},
               folder / "mm_projector.bin")  # fmt: skip
    return folder


def test_a_projector_alone_is_refused_from_names_and_shapes(projector, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a weight was allocated")

    monkeypatch.setattr("chiasm.interop.convert.load_named", refuse)
    with pytest.raises(
        CheckpointError, match=r"holds a projector alone, without .*: 291 tensors are missing: lm_head"
    ):
        import_checkpoint(projector, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_projector_alone_is_named_where_its_tower_is_not_at_hand(projector, tmp_path):
    config = json.loads((projector / "config.json").read_text()) | {"mm_vision_tower": "./nowhere"}
    (projector / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"holds a projector alone.*names a vision tower: .*nowhere"):
        import_checkpoint(projector, tmp_path / "out")
