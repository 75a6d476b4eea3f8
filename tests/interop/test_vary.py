"""Vary and Vary-tiny: parity, and small public folders that chat, are trained on and come back bit for bit."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from chiasm import parts
from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import build_model
from chiasm.language.text import TextTokenizer
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.training.train import train

PLACE = os.environ.get("CHIASM_PARITY")
WORDS = 330
CLIP = {"model_type": "clip_vision_model", "hidden_size": 128, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
SAM = {"img_size": 64, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0,
       "out_chans": 8, "window_size": 3, "global_attn_indexes": [1], "c2": 12, "c3": 16}  # fmt: skip
QWEN = {"model_type": "vary", "architectures": ["varyQwenForCausalLM"], "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "kv_channels": 16,
        "vocab_size": WORDS, "max_position_embeddings": 512, "seq_length": 256, "layer_norm_epsilon": 1e-6,
        "rotary_emb_base": 10000, "rotary_pct": 1.0, "no_bias": True, "use_dynamic_ntk": True,
        "use_logn_attn": True, "use_flash_attn": "auto", "emb_dropout_prob": 0.0, "attn_dropout_prob": 0.0,
        "bf16": True, "fp16": False, "fp32": False, "scale_attn_weights": True, "tie_word_embeddings": False,
        "onnx_safe": None, "tokenizer_type": "QWenTokenizer"}  # fmt: skip
CONFIG = {**QWEN, "vision_tower": "/cache/vit-large-patch14/", "image_token_len": 4, "use_im_start_end": True,
          "vision_select_layer": -2, "freeze_vision_tower": False}  # fmt: skip
OPT = {"model_type": "vary", "architectures": ["varyOPTForCausalLM"], "vocab_size": WORDS, "hidden_size": 32,
       "word_embed_proj_dim": 32, "ffn_dim": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
       "max_position_embeddings": 128, "do_layer_norm_before": True, "activation_function": "relu", "dropout": 0.1,
       "attention_dropout": 0.0, "layerdrop": 0.0, "image_token_len": 4, "use_im_start_end": True,
       "vision_tower": "x", "vision_select_layer": -2, "freeze_vision_tower": False}  # fmt: skip
FAMILY = {**CONFIG, "towers": {"clip": CLIP, "sam": SAM}}
PROMPT = (
    "<|im_start|>system\nYou should follow the instructions carefully and explain your answers in detail."
    "<|im_end|><|im_start|>user\n<img>????</img>Where?<|im_end|><|im_start|>assistant\n"
)


def random_tensors(name, config):
    """Random tensors of every name that a family knows for a config."""
    family = find_family(name)
    spec = family.model(config)
    recipe = load_recipe({"name": "x", "about": "x", "model": spec, "data": {}, "stages": []})
    ours = {
        key: torch.randn_like(tensor) * 0.1
        for key, tensor in build_model(recipe.model, None).state_dict().items()
        if not key.endswith((".mean", ".deviation"))
    }
    return {key: each.contiguous() for key, each in family.names(config).to_theirs(ours, "here").items()}


def with_words(folder, config):
    """A tokenizer with the tokens of both layouts; the ids of those round images stand in the config."""
    words = TextTokenizer.train(["Where is the dog? At the left.", "How many? Two."], 300)
    tokens = ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>"]
    words.inner.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
    words.inner.chat_template = None
    words.save(folder)
    ids = words.inner.convert_tokens_to_ids(tokens[2:])
    ids = dict(zip(("im_start_token", "im_end_token", "im_patch_token"), ids, strict=True))
    (folder / "config.json").write_text(json.dumps(config | ids))
    return folder


@pytest.fixture
def public(tmp_path):
    folder = with_words(tmp_path / "public", CONFIG)
    save_file(random_tensors("vary", FAMILY), folder / "model.safetensors")
    return folder


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "vary"])
    assert len(results) == 2
    assert not [str(each) for each in results if not each.agrees]


def test_a_folder_chats_is_trained_on_and_comes_back_bit_for_bit(public, tmp_path):
    assert recognise(Folder(public)).name == "vary"
    imported = import_checkpoint(public, tmp_path / "ours")
    model = load_model(imported)
    sam = model.encoder.encoders[1].spec
    assert all(
        sam[key] == value
        for key, value in {"size": 64, "heads": 2, "window": 3, "global_layers": [1], "hidden": 32}.items()
    )
    image = Image.new("RGB", (40, 20), "red")
    sample = Sample("one", (Message("user", (PictureInMemory(image), "Where?")),))
    assert rendered(model, document(model.contract, sample, prompt=True)) == PROMPT
    model.chat([{"role": "user", "content": [image, "Where?"]}], tokens=2)
    export_checkpoint(imported, tmp_path / "theirs")
    again, tensors = (load_file(each / "model.safetensors") for each in (tmp_path / "theirs", public))
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    configs = [json.loads((each / "config.json").read_text()) for each in (tmp_path / "theirs", public)]
    assert configs[0] == configs[1]
    data = {"type": "world", "scenes": 4, "emoji": 6, "grid": 2, "objects": [1, 2], "canvas": 32}
    rates = {"connector": 1e-3, "language": 1e-3}
    stage = {"name": "tune", "train": rates, "data": {"world": 1.0}, "steps": 1, "rows": 1, "length": 256}
    recipe = {"name": "on", "start": str(imported), "data": {"world": data}, "stages": [stage]}
    train(load_recipe(recipe), tmp_path / "run", console=Console(quiet=True))
    after = load_model(tmp_path / "run")
    assert not torch.equal(after.connector.shares[1].weight, model.connector.shares[1].weight)


def rendered(model, written):
    """A document as it is read, with ? for a visual token."""
    inner, (slot,) = model.language.tokenizer.inner, written.slots
    before, behind = written.ids[: slot.start], written.ids[slot.start + slot.length :]
    return inner.decode(before) + "?" * slot.length + inner.decode(behind)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rotary_pct": 0.5}, "rotary_pct"),
        ({"no_bias": False}, "no_bias"),
        ({"kv_channels": 8}, "kv_channels"),
        ({"image_token_len": 256}, "image_token_len"),
        ({"tilt": 3}, "tilt"),
        ({"towers": {"clip": CLIP, "sam": {**SAM, "tilt": 3}}}, "towers.sam.tilt"),
        ({"towers": {"clip": {**CLIP, "tilt": 3}, "sam": SAM}}, "tilt"),
    ],
)
def test_what_has_no_part_is_refused_by_name(change, words):
    with pytest.raises(CheckpointError, match=words):
        find_family("vary").plan({**FAMILY, **change}, [], "the checkpoint")


def test_a_context_ends_where_qwen_answers_by_other_angles():
    language = find_family("vary").model(FAMILY)["language"]["config"]
    assert language["max_position_embeddings"] == 256
    plain = {**FAMILY, "use_dynamic_ntk": False, "use_logn_attn": False}
    assert find_family("vary").model(plain)["language"]["config"]["max_position_embeddings"] == 512


def test_a_tokenizer_with_other_ids_for_the_words_round_images_is_refused(public):
    config = json.loads((public / "config.json").read_text())
    (public / "config.json").write_text(json.dumps({**config, "im_start_token": 5}))
    with pytest.raises(CheckpointError, match="<img>"):
        import_checkpoint(public, public.parent / "ours")


def test_vary_tiny_reads_pages_and_its_tower_can_stand_in_another_model(tmp_path):
    folder = with_words(tmp_path / "tiny", OPT)
    tensors = random_tensors("vary-tiny", {**OPT, "towers": {"sam": SAM}})
    tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"].clone()  # OPT's are one
    save_file(tensors, folder / "model.safetensors")
    assert recognise(Folder(folder)).name == "vary-tiny"
    model = load_model(import_checkpoint(folder, tmp_path / "ours"))
    image = Image.new("RGB", (40, 20), "red")
    sample = Sample("one", (Message("user", (PictureInMemory(image),)),))
    begin = model.language.tokenizer.inner.bos_token
    assert rendered(model, document(model.contract, sample, prompt=True)) == f"{begin}<img>????</img>\n"
    model.chat([{"role": "user", "content": [image]}], tokens=2)
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    again = load_file(tmp_path / "theirs/model.safetensors")
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    tower = parts.build("encoder", {**model.encoder.spec, "checkpoint": str(folder)})
    for key, tensor in model.encoder.state_dict().items():
        assert torch.equal(tower.state_dict()[key], tensor), key
