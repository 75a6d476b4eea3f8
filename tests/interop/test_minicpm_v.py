"""MiniCPM-V: parity, and small public folders of its versions that chat and come back bit for bit."""

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
from chiasm.language.text import TextTokenizer
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.views import Size

PLACE = os.environ.get("CHIASM_PARITY")
WORDS = 330
MARKERS = ["<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>", "<用户>", "<AI>",
           "<|im_start|>", "<|im_end|>"]  # fmt: skip
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": WORDS, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "hidden_act": "silu", "rope_theta": 10000.0}  # fmt: skip
TIMM = {"img_size": 30, "patch_size": 7, "width": 16, "layers": 3, "heads": 2, "mlp_ratio": 2}
SIGLIP = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 7, "model_type": "siglip"}  # fmt: skip
SHARED = {"model_type": "minicpmv", "architectures": ["MiniCPMV"], "query_num": 4, "resampler_heads": 2,
          "image_size": 28, "patch_size": 7}  # fmt: skip
MINICPM = {**TEXT, **SHARED, "scale_emb": 12, "dim_model_base": 8, "scale_depth": 1.4, "attention_bias": False,
           "vision_encoder": "tiny", "tiny": TIMM, "drop_vision_last_layer": True, "mm_use_im_start_end": True,
           "pretraining_tp": 1}  # fmt: skip
NATIVE = {**TEXT, **SHARED, "vision_config": SIGLIP, "batch_vision_input": True, "slice_mode": True,
          "slice_config": {"max_slice_nums": 4, "patch_size": 7, "scale_resolution": 28, "model_type": "minicpmv"},
          "drop_vision_last_layer": False}  # fmt: skip
VERSIONS = {
    "1": MINICPM,
    "2.0": {**MINICPM, "slice_mode": True, "max_slice_nums": 4, "scale_resolution": 28},
    "2.5": {**NATIVE, "version": "2.5"},
    "2.6": {**NATIVE, "version": 2.6, "use_image_id": True, "vision_batch_size": 16, "use_sliding_window": False,
            "sliding_window": 131072, "max_window_layers": 28},
}  # fmt: skip
TOKENS = "????"
PROMPTS = {
    "1": f"<用户><image>{TOKENS}</image>\nWhere?<AI>",
    "2.0": f"<用户><image>{TOKENS}</image><slice><image>{TOKENS}</image><image>{TOKENS}</image></slice>"
    "\nWhere?<AI>",
    "2.5": f"<|im_start|>user\n<image>{TOKENS}</image><slice><image>{TOKENS}</image><image>{TOKENS}</image></slice>"
    "\nWhere?<|im_end|>\n<|im_start|>assistant\n",
    "2.6": f"<|im_start|>user\n<image_id>0</image_id><image>{TOKENS}</image><slice>{TOKENS}</slice>"
    f"<slice>{TOKENS}</slice>\nWhere?<|im_end|>\n<|im_start|>assistant\n",
}


def built(config):
    spec = find_family("minicpm-v").model(config)
    recipe = load_recipe({"name": "x", "about": "x", "model": spec, "data": {}, "stages": []})
    return build_model(recipe.model, None)


def public(folder, config, **preprocessor):
    """A folder of random tensors of every name that the family knows for a config."""
    folder.mkdir()
    ours = {
        key: torch.randn_like(tensor) * 0.1
        for key, tensor in built(config).state_dict().items()
        if not key.endswith((".mean", ".deviation"))
    }
    tensors = find_family("minicpm-v").names(config).to_theirs(ours, "here")
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    words = TextTokenizer.train(["Where is the dog? At the left.", "How many? Two."], 300)
    words.inner.add_special_tokens({"extra_special_tokens": MARKERS}, replace_extra_special_tokens=False)
    words.inner.chat_template = None
    words.save(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return tensors


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "minicpm_v"])
    assert len(results) == 7
    assert not [str(each) for each in results if not each.agrees]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_folder_chats_as_its_version_does_and_comes_back_bit_for_bit(tmp_path, version):
    config = VERSIONS[version]
    slicing = {} if version == "1" else {"max_slice_nums": 4, "scale_resolution": 28}
    tensors = public(
        tmp_path / "public", config, image_processor_type="MiniCPMVImageProcessor", patch_size=7,
        norm_mean=[0.5] * 3, norm_std=[0.5] * 3, image_feature_size=4, im_start="<image>", unk="<unk>", **slicing,
    )  # fmt: skip
    assert recognise(Folder(tmp_path / "public")).name == "minicpm-v"
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    image = Image.new("RGB", (56, 28), "red")
    model.chat([{"role": "user", "content": [image, "Where?"]}], tokens=2)
    sample = Sample("one", (Message("user", (PictureInMemory(image), "Where?")),))
    assert rendered(model, document(model.contract, sample, prompt=True)) == PROMPTS[version]
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    again = load_file(tmp_path / "theirs/model.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    assert json.loads((tmp_path / "theirs/config.json").read_text()) == config


def rendered(model, written):
    """A document as it is read, with ? for a visual token."""
    inner, contract, text = model.language.tokenizer.inner, model.contract, ""
    begin = str(inner.bos_token)
    pieces = {slot.start: slot for slot in written.slots}
    position = 0
    while position < len(written.ids):
        if position not in pieces:
            text += inner.decode([written.ids[position]])
            position += 1
            continue
        slot = pieces[position]
        order = contract.read_order(slot.picture.size, "here")
        text += "".join("?" if i >= 0 else inner.decode([contract.view_words[-1 - i]]) for i in order)
        position += slot.length
    return text.removeprefix(begin)


@pytest.mark.parametrize(
    ("version", "changes", "words"),
    [
        ("2.0", {"vision_encoder": "vit_giant", "tiny": None}, "vit_giant"),
        ("2.6", {"audio_config": {"hidden_size": 8}}, "audio_config"),
        ("2.0", {"scale_width": 3}, "scale_width"),
    ],
)
def test_what_has_no_part_is_refused_by_name(tmp_path, version, changes, words):
    public(tmp_path / "public", VERSIONS[version])
    (tmp_path / "public/config.json").write_text(json.dumps({**VERSIONS[version], **changes}))
    with pytest.raises(CheckpointError, match=words):
        import_checkpoint(tmp_path / "public", tmp_path / "ours")


@pytest.mark.parametrize(
    ("prepared", "words"),
    [({"max_slice_nums": 9}, "max_slice_nums"), ({"norm_mean": [0.4] * 3, "norm_std": [0.5] * 3}, "norm_mean"),
     ({"tile": 3}, "tile")],
)  # fmt: skip
def test_a_preprocessor_that_prepares_otherwise_is_refused(tmp_path, prepared, words):
    public(tmp_path / "public", VERSIONS["2.0"], **prepared)
    with pytest.raises(CheckpointError, match=words):
        import_checkpoint(tmp_path / "public", tmp_path / "ours")


def test_its_tokenizers_code_does_no_more_than_to_name_tokens(tmp_path):
    """The tokenizer.json is read, the code beside it is not."""
    public(tmp_path / "public", VERSIONS["2.6"])
    path = tmp_path / "public/tokenizer_config.json"
    name = "tokenization_minicpmv_fast.MiniCPMVTokenizerFast"
    wrapped = {"tokenizer_class": "MiniCPMVTokenizerFast", "auto_map": {"AutoTokenizer": [name, name]}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrapped}))
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    assert "<image_id>" in load_model(tmp_path / "ours").language.tokenizer.inner.get_vocab()


def test_words_round_images_are_the_preprocessors(tmp_path):
    public(tmp_path / "public", VERSIONS["2.6"], slice_start="<box>", slice_end="</box>")
    family = find_family("minicpm-v")
    views = family.model(family.read(Folder(tmp_path / "public")).config)["views"]
    assert views["slice_words"] == ("<box>", "</box>")


def test_images_among_words_keep_their_size():
    """Words are scaled by 12; the residual branches and the logits as MiniCPM's config says."""
    model = built(VERSIONS["2.0"])
    table = model.language.inner.model.embed_tokens.weight
    torch.testing.assert_close(model.language.embed(torch.tensor([3])), 12 * table[3:4])
    assert model.language.inner.config.residual_multiplier == pytest.approx(1.4 / 2**0.5)
    hidden = torch.randn(2, 16)
    torch.testing.assert_close(
        model.language.logits(hidden), model.language.inner.lm_head(hidden) / 2, atol=1e-6, rtol=1e-5
    )
    model.language.grow(3)
    torch.testing.assert_close(model.language.embed(torch.tensor([3])), 12 * table[3:4])


def test_a_token_count_follows_from_a_size_alone():
    model = built(VERSIONS["2.6"])
    assert model.contract.read_tokens(Size(28, 28), "here") == 4 + 2
    assert model.contract.read_tokens(Size(56, 56), "here") > 5 * 4
