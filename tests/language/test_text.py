"""Text tokenizers and chat templates."""

from datetime import datetime

import pytest
from PIL import Image
from transformers import PreTrainedTokenizerFast

from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message
from chiasm.errors import CheckpointError, DataError
from chiasm.language.text import TextTokenizer
from chiasm.language.trained import trained
from tokenizers import Tokenizer, models, pre_tokenizers

TEXTS = ["What is at the top left?", "Where is the dog?", "a dog at the top left", "yes", "no"] * 20


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(TEXTS, 400)


def said(role: str, *content) -> Message:
    return Message(role, content)


def test_any_text_survives_a_round_trip(tokenizer):
    for text in ("Where is the dog?", "  two  spaces\n", "你好,世界", "émoji 🐶", "<|draft|>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_only_answers_and_their_end_are_learnt(tokenizer):
    runs = tokenizer.runs(
        [said("user", "Where?"), said("assistant", "left"), said("user", "So?"), said("assistant", "no")]
    )
    assert [(run.text, run.learn) for run in runs] == [
        ("<|begin|>Where?<|answer|>", False),
        ("left<|end|>", True),
        ("So?<|answer|>", False),
        ("no<|end|>", True),
    ]


def test_continued_an_answer_stands_directly_behind_what_asks(tokenizer):
    tokenizer.use_template("continued")
    turns = [said("user", "the dog"), said("assistant", " left"), said("user", "a"), said("assistant", " no")]
    assert [(run.text, run.learn) for run in tokenizer.runs(turns)] == [
        ("<|begin|>the dog", False),
        (" left<|end|>", True),
        ("a", False),
        (" no<|end|>", True),
    ]
    (prompt,) = tokenizer.runs(turns[:3], prompt=True)
    assert (prompt.text, prompt.learn) == ("<|begin|>the dog left<|end|>a", False)


@pytest.mark.parametrize("model", ["BPE", "Unigram", "WordLevel"])
def test_a_letter_without_a_token_is_not_learnt_in_silence(model):
    letters = ["<unk>", "<s>", *"abcdefghijklmnopqrstuvwxyz ?"]
    ids = {letter: id for id, letter in enumerate(letters)}
    inner = Tokenizer({
        "BPE": lambda: models.BPE(ids, [], unk_token="<unk>", fuse_unk=True),
        "Unigram": lambda: models.Unigram([(letter, -1.0) for letter in letters], unk_id=0),
        "WordLevel": lambda: models.WordLevel(ids, unk_token="<unk>"),
    }[model]())  # fmt: skip
    if model == "WordLevel":
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<s>")
    tokenizer = TextTokenizer(fast)
    tokenizer.use_template("plain")
    turns = [said("user", "颜色 ?"), said("assistant", "a 红色 b")]
    with pytest.raises(
        DataError, match="the text tokenizer has no token for '红色', which is to be"
    ) as caught:
        tokenizer.tokens(turns)
    assert caught.value.kind == "unknown characters"
    with pytest.raises(DataError, match="has no token for '红色'"):
        tokenizer.tokens([said("document", "a 红色")])
    for fine in (
        [*turns[:1], said("assistant", "a")],
        [turns[0], Message("assistant", ("红色",), learnt=False)],
    ):
        tokenizer.tokens(fine)
    tokenizer.tokens([*turns, said("user", "a")], prompt=True)


def test_an_end_that_is_also_the_sign_of_the_unknown_is_learnt():
    inner = PreTrainedTokenizerFast(
        tokenizer_object=trained(TEXTS, 400), bos_token="<|end|>", eos_token="<|end|>", unk_token="<|end|>"
    )
    tokenizer = TextTokenizer(inner)
    tokenizer.use_template("plain")
    tokens = tokenizer.tokens([said("user", "Where?"), said("assistant", "left")])
    assert tokens[-1].learn
    assert tokens[-1].ids[-1] == tokenizer.end


def test_an_answer_that_is_not_to_be_learnt_is_read_like_a_question(tokenizer):
    turns = [said("user", "Where?"), Message("assistant", ("left",), learnt=False)]
    turns += [said("user", "So?"), said("assistant", "no")]
    learnt = [run.text for run in tokenizer.runs(turns) if run.learn]
    assert learnt == ["no<|end|>"]


def test_pictures_stand_where_they_were_put(tokenizer):
    picture = PictureInMemory(Image.new("RGB", (2, 2)))
    runs = tokenizer.runs([said("user", "before ", picture, " after"), said("assistant", picture)])
    assert [(run.text, run.media is not None, run.learn) for run in runs] == [
        ("<|begin|>before ", False, False),
        ("", True, False),
        (" after<|answer|>", False, False),
        ("", True, True),
        ("<|end|>", False, True),
    ]


def test_a_prompt_is_the_beginning_of_the_whole(tokenizer):
    question, answer = said("user", "Where?"), said("assistant", "left")
    prompt = tokenizer.runs([question], prompt=True)
    assert prompt == tokenizer.runs([question, answer])[: len(prompt)]


def test_of_a_document_all_text_is_learnt(tokenizer):
    runs = tokenizer.runs([said("document", "plain words")])
    assert [(run.text, run.learn) for run in runs] == [("<|begin|>", False), ("plain words<|end|>", True)]
    with pytest.raises(DataError, match="must stand alone"):
        tokenizer.runs([said("document", "a"), said("document", "b")])


def test_special_markers_are_one_token_each(tokenizer):
    assert tokenizer.before_picture == tokenizer.behind_picture == ()
    tokenizer.mark_pictures()
    assert len(tokenizer.encode("<|begin|>")) == 1
    assert tokenizer.draw == len(tokenizer) - 1


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.mark_pictures("<|begin|>", "<|drawn|>")
    tokenizer.save(tmp_path)
    again = TextTokenizer.load(tmp_path)
    assert (again.draw, len(again)) == (None, len(tokenizer))
    again.mark_pictures("<|begin|>", "<|drawn|>")
    assert (again.begin, again.end, again.draw, again.drawn, len(again)) == (
        tokenizer.begin, tokenizer.end, tokenizer.begin, tokenizer.drawn, len(tokenizer))  # fmt: skip
    assert again.runs([said("user", "Where?")], prompt=True) == tokenizer.runs(
        [said("user", "Where?")], prompt=True
    )


def test_a_folder_without_a_tokenizer_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer can be read from"):
        TextTokenizer.load(tmp_path)


def test_a_chat_template_of_a_pretrained_model_gives_its_very_ids(tokenizer):
    """With ChatML, the pieces put together equal what transformers renders, with and without a system turn."""
    tokenizer.inner.chat_template = (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.inner.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.inner.eos_token = "<|im_end|>"
    tokenizer = TextTokenizer(tokenizer.inner)
    messages = [said("user", "Where?"), said("assistant", "left")]
    runs = tokenizer.runs(messages)
    turns = [{"role": m.role, "content": m.content[0]} for m in messages]
    assert "".join(run.text for run in runs) == tokenizer.inner.apply_chat_template(turns, tokenize=False)
    assert [run.text for run in runs if run.learn] == ["left<|im_end|>"]


def test_a_template_prints_the_day_that_it_is_given(tmp_path):
    path = tmp_path / "dated.jinja"
    path.write_text(
        "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}{% endif %}"
    )
    dated = TextTokenizer.train(["a dog at the top 0123456789"], 400)
    dated.use_template(str(path))
    messages = [said("user", "a dog"), said("assistant", "a cat")]
    for day in (datetime(2024, 7, 26), datetime(2031, 1, 2)):
        dated.date(day)
        assert dated.runs(messages)[0].text.startswith(f"{day:%d %b %Y}a dog")
