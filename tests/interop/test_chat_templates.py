"""Chat templates through import and export."""

import json

import pytest
import torch
import transformers

import chiasm
from chiasm.data import Message, Sample
from chiasm.data.documents import document
from chiasm.errors import CheckpointError
from chiasm.interop import export_checkpoint, import_checkpoint
from chiasm.interop.families.llava import VICUNA
from chiasm.language.text import TextTokenizer
from chiasm.language.tokenizer_folder import folder_template

VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 7, "model_type": "clip_vision_model"}  # fmt: skip
PARTS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %} [/INST]"
    "{% else %} {{ m['content'][0]['text'] }}<|end|>{% endif %}{% endfor %}"
)


def public(folder, language, **template):
    """A LLaVA of transformers without a chat template but for that in `template`, a file's name and content."""
    inner = TextTokenizer.train(["Where is the dog? At the left. [INST] [/INST]"], 300).inner
    inner.add_special_tokens({"extra_special_tokens": ["<image>"]})
    inner.chat_template = None
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": len(inner), "model_type": language}  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=VISION, text_config=text, image_token_id=inner.convert_tokens_to_ids("<image>")
    )
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    inner.save_pretrained(folder)
    for name, content in template.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


@pytest.mark.parametrize("place", ["chat_template__json", "chat_template__jinja"])
def test_a_folder_s_own_template_is_read_as_its_processor_reads_it(tmp_path, place):
    content = json.dumps({"chat_template": PARTS}) if place.endswith("json") else PARTS
    folder = public(tmp_path / "public", "llama", **{place: content})
    model = chiasm.load(import_checkpoint(folder, tmp_path / "ours"))
    sample = Sample("a sample", (Message("user", ("What is red?",)), Message("assistant", ("red",))))
    read = document(model.contract, sample)
    words = model.language.tokenizer
    assert read.ids == list(words.encode("[INST] What is red? [/INST] red<|end|>"))
    assert words.decode([label for label in read.labels if label >= 0]) == " red"


def test_where_no_template_is_known_import_says_so(tmp_path):
    folder = public(tmp_path / "public", "mistral")
    with pytest.raises(CheckpointError, match=r"has no chat template.*chat_template.jinja.*--tokenizer"):
        import_checkpoint(folder, tmp_path / "ours")
    (tmp_path / "words").mkdir()
    TextTokenizer.load(folder).inner.save_pretrained(tmp_path / "words")
    (tmp_path / "words/chat_template.jinja").write_text(PARTS)
    ours = import_checkpoint(folder, tmp_path / "ours", tokenizer=tmp_path / "words")
    assert folder_template(ours / "tokenizer") == PARTS


def test_the_family_s_template_stands_in_where_the_folder_has_none_and_is_exported(tmp_path):
    folder = public(tmp_path / "public", "llama")
    ours = import_checkpoint(folder, tmp_path / "ours")
    assert chiasm.load(ours).language.tokenizer.inner.chat_template == VICUNA
    back = export_checkpoint(ours, tmp_path / "back")
    assert folder_template(back) == VICUNA == transformers.AutoTokenizer.from_pretrained(back).chat_template


def test_export_keeps_the_files_of_a_template_that_is_the_same(tmp_path):
    content = json.dumps({"chat_template": PARTS})
    folder = public(tmp_path / "public", "llama", chat_template__json=content)
    back = export_checkpoint(import_checkpoint(folder, tmp_path / "ours"), tmp_path / "back")
    assert (back / "chat_template.json").read_text() == content
    assert not (back / "chat_template.jinja").exists()
