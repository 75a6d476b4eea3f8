"""Qwen-VL, Monkey and TextMonkey: parity, and small public folders that chat and come back bit for bit."""

import base64
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import build_model
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe

PLACE = os.environ.get("CHIASM_PARITY")
MERGED = [b"Wh", b"er", b"Wher", b" An", b"sw"]  # tokens of more bytes than one
IMAGE = 256 + len(MERGED) + 208 + 6  # the id of <img>, behind Qwen's special tokens and <ref>, <box>, <quad>
QWEN = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2,
        "kv_channels": 64, "vocab_size": IMAGE + 5, "max_position_embeddings": 8192, "seq_length": 2048,
        "rotary_emb_base": 10000, "rotary_pct": 1.0, "layer_norm_epsilon": 1e-6, "no_bias": True, "bf16": True,
        "fp16": False, "fp32": False, "use_dynamic_ntk": True, "use_logn_attn": True, "use_flash_attn": False,
        "attn_dropout_prob": 0.0, "emb_dropout_prob": 0.0, "initializer_range": 0.02, "onnx_safe": None,
        "scale_attn_weights": True, "tie_word_embeddings": False, "tokenizer_type": "QWenTokenizer",
        "torch_dtype": "bfloat16", "transformers_version": "4.32.0", "use_cache": False}  # fmt: skip
VISUAL = {"heads": 2, "image_start_id": IMAGE, "layers": 3, "mlp_ratio": 2.0, "output_dim": 128, "patch_size": 14,
          "width": 16}  # fmt: skip
PUBLIC = {
    "qwen-vl": {**QWEN, "model_type": "qwen", "architectures": ["QWenLMHeadModel"],
                "visual": {**VISUAL, "image_size": 448, "n_queries": 4}},
    "monkey": {**QWEN, "model_type": "monkey", "architectures": ["MonkeyLMHeadModel"],
               "visual": {**VISUAL, "image_size": 896, "lora_repeat_num": 4, "n_queries": 4}},
    "textmonkey": {**QWEN, "model_type": "monkey", "architectures": ["TextMonkeyLMHeadModel"],
                   "visual": {**VISUAL, "image_size": [896, 896], "lora_repeat_num": 0, "n_queries": 768,
                              "add_window": True, "use_global": True, "resampler": True, "r": 5}},
}  # fmt: skip
PROMPTS = {
    "qwen-vl": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "Picture 1: <img>????</img>\nWhere?<|im_end|>\n<|im_start|>assistant\n",
    "monkey": f"<img>{'????' * 5}</img> Where? Answer:",
    "textmonkey": f"<img>{'?' * (5 + 256)}</img> Where? Answer:",
}
UNUSED = "transformer.visual.transformer.window_attention.1.shift_attn.mlp.scale"  # before a block it has not


def public(folder, name):
    """A folder of random tensors of every name that the family knows for its config."""
    config, family = PUBLIC[name], find_family(name)
    folder.mkdir()
    recipe = load_recipe({"name": "x", "about": "x", "model": family.model(config), "data": {}, "stages": []})
    built = build_model(recipe.model, None).state_dict()
    ours = {
        key: torch.randn_like(tensor) * 0.1
        for key, tensor in built.items()
        if not key.endswith((".mean", ".deviation"))
    }
    tensors = family.names(config).to_theirs(ours, "here")
    tensors |= {UNUSED: torch.ones(1)} if name == "textmonkey" else {}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"chat_format": "chatml"}))
    lines = [base64.b64encode(token) for token in [*(bytes([byte]) for byte in range(256)), *MERGED]]
    ranks = b"".join(token + b" %d\n" % rank for rank, token in enumerate(lines))
    (folder / "qwen.tiktoken").write_bytes(ranks)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "QWenTokenizer"}))
    return tensors


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
@pytest.mark.parametrize(("system", "cases"), [("monkey", 2), ("textmonkey", 3)])
def test_every_case_agrees(system, cases):
    results = verify([Path(PLACE or "") / system])
    assert len(results) == cases
    assert not [str(each) for each in results if not each.agrees]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_folder_chats_as_its_code_does_and_comes_back_bit_for_bit(tmp_path, name):
    tensors = public(tmp_path / "public", name)
    assert recognise(Folder(tmp_path / "public")).name == name
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    image = Image.new("RGB", (300, 200), "red")
    model.chat([{"role": "user", "content": [image, "Where?"]}], tokens=2)
    sample = Sample("one", (Message("user", (PictureInMemory(image), "Where?")),))
    assert rendered(model, document(model.contract, sample, prompt=True)) == PROMPTS[name]
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    again = load_file(tmp_path / "theirs/model.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    assert json.loads((tmp_path / "theirs/config.json").read_text()) == PUBLIC[name]
    assert (tmp_path / "theirs/qwen.tiktoken").is_file()


def rendered(model, written):
    """A document as it is read, with ? for a visual token."""
    inner, [slot] = model.language.tokenizer.inner, written.slots
    end = slot.start + slot.length
    return inner.decode(written.ids[: slot.start]) + "?" * slot.length + inner.decode(written.ids[end:])


def changed(name, **changes):
    config = json.loads(json.dumps(PUBLIC[name]))
    for place, value in changes.items():
        (config["visual"] if place in {**config["visual"], "tilt_inside": 0} else config)[place] = value
    return config


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        *[(name, {"tilt": 3}, "tilt = 3") for name in PUBLIC],
        *[(name, {"tilt_inside": 3}, r"visual\.tilt_inside = 3") for name in PUBLIC],
        ("monkey", {"image_size": [896, 1344]}, "lora_repeat_num is 4, but .* have 6 windows"),
        ("monkey", {"patch_size": 16}, "patch_size is 16"),
        ("monkey", {"output_dim": 256}, "output_dim is 256, but the language model's hidden_size is 128"),
        ("textmonkey", {"image_size": [896, 1344]}, "896x1344, but attention across windows"),
        ("qwen-vl", {"no_bias": False}, "no_bias is False"),
        ("qwen-vl", {"chat_format": "xml"}, "chat_format is 'xml'"),
    ],
)
def test_what_has_no_part_is_refused_by_name(name, changes, words):
    with pytest.raises(CheckpointError, match=words):
        find_family(name).plan(changed(name, **changes), [], "the checkpoint")


def test_options_of_the_config_reach_the_parts():
    plan = find_family("textmonkey").plan(
        changed("textmonkey", lora_repeat_num=1, use_global=False), [], "here"
    )
    assert (plan.model["encoder"]["updates"], plan.model["encoder"]["overview"]) == (1, False)
    assert plan.model["connector"]["overview"] == 0
    plain = changed("textmonkey", add_window=False, resampler=False, image_size=[896, 448])
    plan = find_family("textmonkey").plan(plain, [], "here")
    assert plan.model["views"] == {"type": "stretched", "height": 896, "width": 448}
    assert plan.model["connector"] == {"type": "identity"}
    assert "crossings" not in plan.model["encoder"]


def test_words_reach_as_far_as_the_original_was_trained():
    """Behind seq_length its code scales angles and scores, which no part does."""
    language = find_family("monkey").plan(PUBLIC["monkey"], [], "here").model["language"]
    assert language["config"]["max_position_embeddings"] == 2048
