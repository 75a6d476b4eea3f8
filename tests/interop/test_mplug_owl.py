"""UReader, DocOwl-1.5, mPLUG-Owl2: parity, and small folders that chat as theirs do and come back bit for bit."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

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
WORDS = 320
CROP, PATCH = 28, 7
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
          "image_size": CROP, "patch_size": PATCH, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-6,
          "attention_dropout": 0.0, "use_flash_attn": False, "projection_dim": 8, "num_channels": 3,
          "initializer_range": 0.02, "initializer_factor": 1.0, "model_type": "mplug_owl_vision_model"}  # fmt: skip
LLAMA = {"vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512, "hidden_act": "silu",
         "rms_norm_eps": 1e-5, "pretraining_tp": 1, "tie_word_embeddings": False}  # fmt: skip
UREADER = {
    "model_type": "mplug-owl",
    "architectures": ["MplugOwlForConditionalGeneration"],
    "vision_config": VISION,
    "visual_abstractor_config": {"hidden_size": 16, "encoder_hidden_size": 16, "num_hidden_layers": 2,
                                 "num_attention_heads": 2, "intermediate_size": 20, "layer_norm_eps": 1e-6,
                                 "attention_probs_dropout_prob": 0.1, "model_type": "mplug_owl_visual_abstract"},
    "text_config": {**LLAMA, "model_type": "llama"},
    "num_query_tokens": 4, "hidden_size": 16, "vocab_size": WORDS, "use_decoder_only_language_model": True,
}  # fmt: skip
DOCOWL = {
    **LLAMA,
    "model_type": "mplug_docowl",
    "architectures": ["MPLUGDocOwlLlamaForCausalLM"],
    "visual_config": {"visual_model": VISION,
                      "visual_hreducer": {"hidden_size": 16, "conv_shape": "1x4", "layer_norm_eps": 1e-6,
                                          "initializer_range": 0.02, "model_type": "mplug_docowl_hreducer"}},
    "freeze_vision_model": False, "tune_vision2text": True, "image_aspect_ratio": "square",
    "image_grid_pinpoints": None, "vision2text_lr": None,
}  # fmt: skip
OWL2 = {
    **{key: value for key, value in DOCOWL.items() if key != "tune_vision2text"},
    "model_type": "mplug_owl2",
    "architectures": ["MPLUGOwl2LlamaForCausalLM"],
    "visual_config": {"visual_model": VISION,
                      "visual_abstractor": {**UREADER["visual_abstractor_config"], "num_learnable_queries": 4,
                                            "grid_size": CROP // PATCH, "use_cls_token": True,
                                            "add_v2t_pos_emb": False}},
    "tune_visual_abstractor": True,
}  # fmt: skip
CONFIGS = {"ureader": UREADER, "docowl-1.5": DOCOWL, "mplug-owl2": OWL2}
VIEW = "?" * 5  # four visual tokens and the closing one
NAMED = f"<global_img>{VIEW}<crop_img_row0_col0>{VIEW}<crop_img_row0_col1>{VIEW}"
PROMPTS = {  # of two pages of two crops each
    "ureader": f"Human: {VIEW * 3}\nHuman: {VIEW * 3}\nHuman: Where?\nAI:",
    "docowl-1.5": f"USER:{NAMED}{NAMED}Where? ASSISTANT:",
    "mplug-owl2": f"USER: {VIEW}{VIEW}Where? ASSISTANT:",
}
PAGE = Image.new("RGB", (2 * CROP, CROP), "red")


def tensors_of(family, config):
    """Random tensors of every name that the family knows for a config."""
    torch.manual_seed(0)
    config = {**config, "cut_num": 15} if family == "ureader" else config
    recipe = load_recipe(
        {"name": "x", "about": "x", "model": find_family(family).model(config), "data": {}, "stages": []}
    )
    state = build_model(recipe.model, None).state_dict()
    ours = {key: torch.randn_like(tensor) * 0.1 for key, tensor in state.items() if key not in (
        "encoder.mean", "encoder.deviation"
    )}  # fmt: skip
    return find_family(family).names(config).to_theirs(ours, "here")


def public(folder, family, config=None):
    config = CONFIGS[family] if config is None else config
    folder.mkdir()
    unused = {"model.vision2text.ln_q.weight": torch.rand(16)} if family == "docowl-1.5" else {}
    tensors = tensors_of(family, config) | unused
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    words = TextTokenizer.train(["Where is the dog? At the left.", "How many? Two."], 300)
    words.inner.chat_template = None
    words.save(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": CROP, "width": CROP}, "do_center_crop": True, "resample": 3})
    )
    return tensors


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
@pytest.mark.parametrize(("system", "count"), [("ureader", 2), ("docowl15", 5)])
def test_every_case_agrees(system, count):
    results = verify([Path(PLACE or "") / system])
    assert len(results) == count
    assert not [str(each) for each in results if not each.agrees]


@pytest.mark.parametrize("family", CONFIGS)
def test_a_folder_chats_as_its_code_asks_and_comes_back_bit_for_bit_until_it_is_trained(tmp_path, family):
    tensors = public(tmp_path / "public", family)
    assert recognise(Folder(tmp_path / "public")).name == family
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    model.chat([{"role": "user", "content": [PAGE, PAGE, "Where?"]}], tokens=2)
    sample = Sample("one", (Message("user", (PictureInMemory(PAGE), PictureInMemory(PAGE), "Where?")),))
    assert rendered(model, document(model.contract, sample, prompt=True)) == PROMPTS[family]

    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    again = load_file(tmp_path / "theirs/model.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    assert json.loads((tmp_path / "theirs/config.json").read_text()) == CONFIGS[family]

    adaptive = family != "ureader"
    tune = ["connector", *(["routing"] if adaptive else [])]
    changed = {
        key for key, tensor in trained_on(tmp_path, tune).items() if not torch.equal(tensor, tensors[key])
    }
    assert any("vit_eos" in key for key in changed)
    assert any("multiway.1" in key for key in changed) == adaptive
    assert not any("vision_model" in key or "multiway.0" in key or "embed_tokens" in key for key in changed)


def trained_on(folder, slots):
    """The tensors of an export after two steps in which these slots learn."""
    world = {"type": "world", "scenes": 8, "emoji": 6, "grid": 2, "objects": [1, 2], "canvas": CROP,
             "tasks": {"what": 1}}  # fmt: skip
    stage = {"name": "tune", "train": dict.fromkeys(slots, 1e-2), "data": {"world": 1.0}, "steps": 2, "rows": 1,
             "length": 256}  # fmt: skip
    recipe = {
        "name": "on",
        "about": "x",
        "start": str(folder / "ours"),
        "data": {"world": world},
        "stages": [stage],
    }
    train(load_recipe(recipe), folder / "run", console=Console(quiet=True))
    export_checkpoint(folder / "run", folder / "tuned")
    return load_file(folder / "tuned/model.safetensors")


def rendered(model, written):
    """A document as it is read, with ? for a visual token."""
    inner, text = model.language.tokenizer.inner, ""
    for id, kind in zip(written.ids, written.kinds, strict=True):
        text += "?" if kind else inner.decode([id])
    return text.removeprefix(str(inner.bos_token))


@pytest.mark.parametrize(
    ("family", "path", "value", "words"),
    [
        ("ureader", "visual_abstractor_config.hidden_size", 24, "visual_abstractor_config.hidden_size is 24"),
        (
            "ureader",
            "visual_abstractor_config.add_v2t_pos_emb",
            True,
            "visual_abstractor_config.add_v2t_pos_emb",
        ),
        ("ureader", "args", {"patch_pos_embed_type": "pre"}, "args.patch_pos_embed_type is 'pre'"),
        ("docowl-1.5", "visual_config.visual_hreducer.conv_shape", "four", "conv_shape is 'four'"),
        ("docowl-1.5", "visual_config.visual_hreducer.depth", 2, "visual_config.visual_hreducer.depth"),
        ("mplug-owl2", "visual_config.visual_abstractor.use_cls_token", False, "use_cls_token is False"),
        ("docowl-1.5", "visual_config.visual_model.window", 2, "visual_config.visual_model.window"),
    ],
)
def test_an_option_that_no_part_has_is_refused_by_name(family, path, value, words):
    config = json.loads(json.dumps({**CONFIGS[family], **({"cut_num": 15} if family == "ureader" else {})}))
    *places, key = path.split(".")
    inner = config
    for place in places:
        inner = inner[place]
    inner[key] = value
    with pytest.raises(CheckpointError, match=words):
        find_family(family).plan(config, (), "here")


def test_low_rank_updates_of_the_training_script_are_added_to_the_weights(tmp_path):
    published = public(tmp_path / "public", "ureader")
    wrapped = {
        key.replace("language_model.", "language_model.base_model.model."): t for key, t in published.items()
    }
    layer = "language_model.base_model.model.model.layers.1.self_attn.q_proj"
    a, b = torch.randn(4, 16), torch.randn(16, 4)
    wrapped |= {f"{layer}.lora_A.default.weight": a, f"{layer}.lora_B.default.weight": b}
    save_file(
        {key: tensor.contiguous() for key, tensor in wrapped.items()}, tmp_path / "public/model.safetensors"
    )
    read = find_family("ureader").read(Folder(tmp_path / "public"))
    assert read.tensors.keys() == published.keys()
    own = "language_model.model.layers.1.self_attn.q_proj.weight"
    torch.testing.assert_close(read.tensors.pop(own), published.pop(own) + 32 / 4 * b @ a)
    assert all(torch.equal(read.tensors[key], published[key]) for key in published)
    del wrapped[f"{layer}.lora_B.default.weight"]
    save_file(
        {key: tensor.contiguous() for key, tensor in wrapped.items()}, tmp_path / "public/model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"update of .*q_proj is one factor without the other"):
        find_family("ureader").read(Folder(tmp_path / "public"))


def test_mplug_owl_without_positions_of_crops_is_refused(tmp_path):
    tensors = public(tmp_path / "public", "ureader")
    kept = {key: tensor.contiguous() for key, tensor in tensors.items() if "cut_patch_embedding" not in key}
    save_file(kept, tmp_path / "public/model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks abstractor\.cut_patch_embedding_h\.weight"):
        import_checkpoint(tmp_path / "public", tmp_path / "ours")
