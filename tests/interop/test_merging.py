"""What was trained with LoRA becomes a model without it: the same answers, also from transformers' hands."""

import pytest
import torch
import transformers

from chiasm.errors import CheckpointError
from chiasm.interop import export_checkpoint, import_checkpoint
from chiasm.interop.convert import _numbers
from chiasm.interop.merging import merge_checkpoint
from chiasm.model import Model
from chiasm.model.checkpoint import load_model, save_model
from chiasm.recipe import load_recipe
from chiasm.storage.integrity import check_seal

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def public(folder):
    vision = transformers.CLIPVisionConfig(**SMALL, image_size=16, patch_size=8)
    text = transformers.LlamaConfig(**SMALL, vocab_size=40, max_position_embeddings=64)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=39, image_seq_length=4
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    _numbers(40).save_pretrained(folder)
    return folder


@pytest.fixture
def trained(tmp_path):
    """A run that began with an imported LLaVA and has learnt updates."""
    imported = import_checkpoint(public(tmp_path / "public"), tmp_path / "imported")
    routing = {"routing": {"type": "lora", "rank": 2}}
    recipe = load_recipe({"name": "x", "start": str(imported), "model": routing, "data": {}, "stages": []})
    model = Model(recipe.model)
    base = load_model(imported, "cpu").state_dict()
    model.load_state_dict(base, strict=False)
    for parameter in model.routing.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_model(model, recipe, tmp_path / "run")
    return tmp_path / "run"


@torch.no_grad()
def text_logits(language, ids):
    from chiasm.sequence.layout import Layout

    return language.logits(language(language.embed(torch.tensor([ids])), Layout.causal(1, len(ids))))


@torch.no_grad()
def test_a_merged_model_says_the_same_and_transformers_loads_its_export(trained, tmp_path):
    ids = [3, 9, 14, 25]
    before = text_logits(load_model(trained, "cpu").language, ids)
    merged = merge_checkpoint(trained, tmp_path / "merged")
    model = load_model(merged, "cpu")
    assert model.routing.name == "shared"
    torch.testing.assert_close(text_logits(model.language, ids), before)
    export_checkpoint(merged, tmp_path / "back")
    theirs, info = transformers.LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(theirs.eval()(input_ids=torch.tensor([ids])).logits, before)


@pytest.mark.parametrize("name", ["imported", "merged"])
@pytest.mark.parametrize("file", ["model.safetensors", "origin/unused.safetensors", "parts.json"])
def test_imported_and_merged_checkpoints_notice_damage(trained, tmp_path, name, file):
    merge_checkpoint(trained, tmp_path / "merged")
    folder = tmp_path / name
    check_seal(folder, required=True)
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{file} is not as it was written"):
        check_seal(folder, required=True)


def test_updates_that_are_not_merged_are_not_exported(trained, tmp_path):
    with pytest.raises(CheckpointError, match="low-rank updates beside its weights; `chiasm merge"):
        export_checkpoint(trained, tmp_path / "back", "llava-hf")


def test_a_model_without_updates_has_nothing_to_merge(tmp_path):
    imported = import_checkpoint(public(tmp_path / "public"), tmp_path / "imported")
    with pytest.raises(CheckpointError, match="has the routing 'shared'; only 'lora' can be merged"):
        merge_checkpoint(imported, tmp_path / "merged")
