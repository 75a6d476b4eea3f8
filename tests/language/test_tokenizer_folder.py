"""Text tokenizers in folders: templates wherever they stand, and nothing that runs."""

import json
import sys
from logging.handlers import BufferingHandler

import pytest
from transformers import AutoTokenizer
from transformers.utils import logging
from word_tokenizers import CHATML, byte_level

from chiasm.data.sample import Message
from chiasm.errors import CheckpointError, DataError
from chiasm.language.text import TextTokenizer
from chiasm.language.tokenizer_folder import folder_template, stop_ids, write_template

OTHER = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
PROCESSORS = ("chat_template.json", "processor_config.json")


@pytest.fixture
def folder(tmp_path):
    byte_level().save_pretrained(tmp_path)
    return tmp_path


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".json"):
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**known, "chat_template": content}))
    else:
        path.write_text(content)


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja", *PROCESSORS])
def test_a_template_is_read_from_wherever_a_folder_has_it(folder, place):
    put(folder, place, CHATML)
    assert TextTokenizer.load(folder).inner.chat_template == CHATML


def test_several_templates_are_known_by_name(folder):
    put(
        folder,
        "tokenizer_config.json",
        [{"name": "default", "template": CHATML}, {"name": "draw", "template": OTHER}],
    )
    assert folder_template(folder) == {"default": CHATML, "draw": OTHER}
    write_template(folder_template(folder), folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template == {"default": CHATML, "draw": OTHER}
    assert sorted(path.name for path in folder.rglob("*.jinja")) == ["chat_template.jinja", "draw.jinja"]
    assert folder_template(folder) == {"default": CHATML, "draw": OTHER}


@pytest.mark.parametrize("place", PROCESSORS)
def test_a_processor_s_template_comes_before_the_tokenizer_s(folder, place):
    put(folder, "tokenizer_config.json", OTHER)
    put(folder, "chat_template.jinja", OTHER)
    put(folder, place, CHATML)
    assert folder_template(folder) == CHATML
    write_template(OTHER, folder)
    assert folder_template(folder) == OTHER == AutoTokenizer.from_pretrained(folder).chat_template


def test_without_a_template_a_conversation_names_the_remedy(folder):
    tokenizer = TextTokenizer.load(folder)
    with pytest.raises(
        DataError, match=r"no chat template; put a chat_template.jinja into its folder, or name one"
    ):
        tokenizer.tokens([Message("user", ("What?",))], prompt=True)
    assert tokenizer.tokens([Message("document", ("What?",))])
    tokenizer.use_template("plain")
    assert [run.text for run in tokenizer.runs([Message("user", ("What?",))], prompt=True)] == [
        "<s>What?<|answer|>"
    ]
    with pytest.raises(CheckpointError, match="no chat template can be read from"):
        tokenizer.use_template(str(folder / "lacks.jinja"))


def test_code_of_a_folder_never_runs(folder, monkeypatch):
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {"AutoTokenizer": ["code.Own", "code.Own"]}
    config["tokenizer_class"] = "Own"
    path.write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Own: pass\n")
    monkeypatch.setattr(sys, "stdin", None)  # to ask would be an AttributeError
    with pytest.raises(CheckpointError, match=r"needs code of its own .auto_map., and Chiasm runs none"):
        TextTokenizer.load(folder)
    assert not (folder / "ran").exists()


def test_the_model_type_of_a_folder_is_no_concern_of_its_tokenizer(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "of nobody", "vocab_size": 9}))
    reports = BufferingHandler(capacity=100)
    logging.add_handler(reports)
    try:
        TextTokenizer.load(folder)
    finally:
        logging.remove_handler(reports)
    assert [record.getMessage() for record in reports.buffer] == []


def test_the_ids_that_end_an_answer_are_the_settings_or_the_config_s(folder):
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "text_config": {"eos_token_id": 9}})
    )
    assert 9 in TextTokenizer.load(folder).ends
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    assert TextTokenizer.load(folder).ends == {3, 4, TextTokenizer.load(folder).end}


@pytest.mark.parametrize(
    "content", [[1], 5, {"default": 5}, [{"name": "default"}], [{"name": [], "template": CHATML}]]
)
@pytest.mark.parametrize("place", PROCESSORS)
def test_a_template_of_another_form_is_a_sentence(folder, place, content):
    put(folder, place, content)
    with pytest.raises(CheckpointError, match=rf"{place}: chat_template must be"):
        folder_template(folder)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[1]"])
def test_settings_that_cannot_be_read_are_a_sentence(folder, content):
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        stop_ids(folder)


@pytest.mark.parametrize("place", ["chat_template.jinja", "additional_chat_templates/tools.jinja"])
def test_a_template_that_is_no_text_is_a_sentence(folder, place):
    path = folder / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"{{ messages }}\x89")
    with pytest.raises(CheckpointError, match=rf"{path.name} cannot be read: .*0x89"):
        folder_template(folder)
