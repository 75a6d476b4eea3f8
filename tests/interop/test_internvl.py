"""InternVL: parity, and small public folders of both layouts that chat and come back bit for bit."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from chiasm.data.sample import Message
from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import build_model
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents
from chiasm.interop.shapes.conversations import INTERNVL
from chiasm.language.text import TextTokenizer
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.views import Size

PLACE = os.environ.get("CHIASM_PARITY")
WORDS = 320
MARKERS = ["<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>"]
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 7}  # fmt: skip
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": WORDS, "max_position_embeddings": 512}  # fmt: skip
NORMAL = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
CONVERSATION = """
raise RuntimeError("this file is read and never run")
register_conv_template(Conversation(name="internlm2-chat", system_message="Be {kind}.",
    system_template="<|im_start|>system\\n{system_message}",
    roles=("<|im_start|>user\\n", "<|im_start|>assistant\\n"),
    sep_style=SeparatorStyle.MPT, sep="<|im_end|>", messages=list()))
"""


def original(**changes):
    """A config of the original's layout."""
    return {
        "model_type": "internvl_chat", "template": "internlm2-chat", "select_layer": -1, "ps_version": "v2",
        "downsample_ratio": 0.5, "dynamic_image_size": True, "use_thumbnail": True, "max_dynamic_patch": 6,
        "force_image_size": 28, "use_backbone_lora": 0, "use_llm_lora": 0, "pad2square": False,
        "vision_config": {**VISION, "qk_normalization": False, "qkv_bias": True, "norm_type": "layer_norm",
                          "drop_path_rate": 0.1, "use_flash_attn": True, "model_type": "intern_vit_6b"},
        "llm_config": {**TEXT, "architectures": ["InternLM2ForCausalLM"], "bias": False, "rms_norm_eps": 1e-5,
                       "attn_implementation": "eager", "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        **changes,
    }  # fmt: skip


def built(config):
    """The model of a config of the original's layout."""
    spec = find_family("internvl").model(config)
    recipe = load_recipe({"name": "x", "about": "x", "model": spec, "data": {}, "stages": []})
    return build_model(recipe.model, None)


def random_like(config):
    """Random tensors of every name that the family knows for a config."""
    ours = {
        key: torch.randn_like(tensor)
        for key, tensor in built(config).state_dict().items()
        if not key.endswith((".mean", ".deviation"))
    }
    return find_family("internvl").names(config).to_theirs(ours, "here")


def with_files(folder, **preprocessor):
    words = TextTokenizer.train(["Where is the dog? At the left.", "How many? Two."], 300)
    words.inner.add_special_tokens({"extra_special_tokens": MARKERS}, replace_extra_special_tokens=False)
    words.save(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**NORMAL, **preprocessor}))
    return folder


def originals_folder(folder, config, conversation=CONVERSATION):
    folder.mkdir()
    tensors = random_like(config)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    if conversation:
        (folder / "conversation.py").write_text(conversation)
    return with_files(folder, size=28, crop_size=28, do_center_crop=True, resample=3), tensors


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "internvl"])
    assert len(results) == 5
    assert not [str(each) for each in results if not each.agrees]


def test_the_originals_folder_chats_by_its_conversation_and_comes_back_bit_for_bit(tmp_path):
    folder, tensors = originals_folder(tmp_path / "public", original())
    assert recognise(Folder(folder)).name == "internvl"
    import_checkpoint(folder, tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    image = Image.new("RGB", (56, 28), "red")
    message = {"role": "user", "content": [image, "\nWhere is the dog?"]}
    assert str(model.chat([message], tokens=3)) == str(model.chat([message], tokens=3))
    torch.testing.assert_close(model.encoder.mean.flatten(), torch.tensor(NORMAL["image_mean"]))
    assert (
        model.contract.read_tokens(Size(28, 56), "here") == 3 * 4
    )  # two tiles and the whole, 2 x 2 tokens each
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    again = load_file(tmp_path / "theirs/model.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    assert json.loads((tmp_path / "theirs/config.json").read_text()) == original()


@pytest.mark.parametrize(
    ("conversation", "system"),
    [(CONVERSATION, "Be {kind}."), (None, INTERNVL)],
    ids=["its own", "the known one"],
)
def test_conversations_are_the_originals(tmp_path, conversation, system):
    folder, _ = originals_folder(tmp_path / "public", original(), conversation)
    import_checkpoint(folder, tmp_path / "ours")
    image = CasePicture("0", Size(28, 28), torch.rand(1, 3, 28, 28))
    for question in ("Who?", "\nWho?"):
        messages = [
            Message("user", ("Hello",)),
            Message("assistant", ("Hi",)),
            Message("user", (image, question)),
        ]
        runs = load_model(tmp_path / "ours").language.tokenizer.runs(messages, prompt=True)
        assert "".join("#" if run.media else run.text for run in runs) == (
            f"<|im_start|>system\n{system}<|im_end|><|im_start|>user\nHello<|im_end|>"
            "<|im_start|>assistant\nHi<|im_end|><|im_start|>user\n#\nWho?<|im_end|><|im_start|>assistant\n"
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"template": "internlm3"}, "conversation that neither"),
        ({"use_llm_lora": 16}, "use_llm_lora is 16"),
        ({"ps_version": "v3"}, "ps_version is 'v3'"),
        ({"downsample_ratio": 0.4}, "downsample_ratio is 0.4"),
        ({"pad2square": True}, "pad2square"),
        ({"token_compression": 2}, "token_compression"),
        ({"llm_config": {**TEXT, "architectures": ["MambaForCausalLM"]}}, "MambaForCausalLM"),
        ({"vision_config": {**VISION, "use_moe": True}}, "use_moe"),
        ({"vision_config": {**VISION, "layer_norm_eps": 1e-5}}, "layer_norm_eps"),
    ],
)
def test_what_has_no_part_is_refused_by_name(tmp_path, changes, words):
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(original(**changes)))
    save_file({"mlp1.0.weight": torch.zeros(64)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=words):
        import_checkpoint(with_files(folder), tmp_path / "ours")


@pytest.mark.parametrize(
    ("config", "views"),
    [
        ({"dynamic_image_size": False}, {"type": "whole", "size": 28, "fit": "stretch"}),
        ({"force_image_size": 56, "min_dynamic_patch": 2},
         {"type": "ratio_tiles", "size": 56, "tiles": 6, "fewest": 2, "thumbnail": True}),
        ({"dynamic_image_size": False, "pad2square": True},
         {"type": "whole", "size": 28, "fit": "pad", "padding": (123, 116, 103)}),
    ],
)  # fmt: skip
def test_images_are_cut_as_the_config_says(config, views):
    assert find_family("internvl").model(original(**config))["views"] == views


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_tokens_of_the_first_version_go_down_the_columns(version):
    """ps_version v1 leaves the map transposed."""
    model = built(original(ps_version=version))
    grid = torch.arange(16.0).view(1, 4, 4, 1).expand(-1, -1, -1, 16)
    model.connector.norm = nn.Identity()
    model.connector.layers = nn.Identity()
    first = model.connector(grid)[0, :, 0].tolist()
    assert first == ([0, 8, 2, 10] if version == "v1" else [0, 2, 8, 10])


LANGUAGES = {
    "qwen2": {"model_type": "qwen2"},
    "llama": {"model_type": "llama"},
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "vision", [{}, {"use_qk_norm": True, "norm_type": "rms_norm"}, {"use_mean_pooling": False}], ids=str
)
def test_transformers_folder_agrees_and_comes_back_bit_for_bit(tmp_path, language, vision):
    torch.manual_seed(0)
    config = transformers.InternVLConfig(
        vision_config={**VISION, **vision}, text_config={**TEXT, **LANGUAGES[language]}, image_token_id=WORDS - 1,
        tie_word_embeddings=False, image_seq_length=4,
    )  # fmt: skip
    theirs = transformers.InternVLForConditionalGeneration(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.1)
    theirs.save_pretrained(tmp_path / "public")
    with_files(tmp_path / "public", size={"height": 28, "width": 28}, crop_to_patches=False, min_patches=1,
               max_patches=5)  # fmt: skip
    assert recognise(Folder(tmp_path / "public")).name == "internvl-hf"
    (tmp_path / "public/chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}"
        "<IMG_CONTEXT>\n{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    assert model.views.tiles == 5
    pixels = torch.rand(1, 3, 28, 28)
    ids = torch.cat([torch.randint(3, 200, (4,)), torch.full((4,), WORDS - 1), torch.randint(3, 200, (3,))])
    document = case_document(model, ids, [CasePicture("0", Size(28, 28), pixels)], WORDS - 1, repeated=True)
    with torch.no_grad():
        normal = (pixels - model.encoder.mean) / model.encoder.deviation
        expected = theirs(input_ids=ids[None], pixel_values=normal).logits
        torch.testing.assert_close(read_documents(model, [document]).logits, expected, atol=2e-5, rtol=1e-4)
    message = {"role": "user", "content": [Image.new("RGB", (56, 28), "red"), "Where?"]}
    model.chat([message], tokens=2)
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    before, after = (load_file(tmp_path / each / "model.safetensors") for each in ("public", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
