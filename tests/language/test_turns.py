"""What a model is trained to answer, and when to stop: every known chat template with both kinds of tokenizers."""

import importlib
import json
import random
from itertools import pairwise

import pytest
from PIL import Image
from word_tokenizers import CHATML, KINDS, byte_level, sentencepiece_like

from chiasm.data.documents import Contract, document, draw_prompt
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Sample
from chiasm.errors import DataError
from chiasm.language.template import render
from chiasm.language.templates import ANSWER
from chiasm.language.text import BARE_TEMPLATE, PLAIN_TEMPLATE, TextTokenizer
from chiasm.language.turns import NEAR, short_rows
from chiasm.sequence import IGNORE, Document, Kind

QUESTION, ANSWERS = "What is at the top left?", ("red", "no")
FAMILIES = ("llava", "deepseek_vl", "janus", "gvt", "show_o", "xcomposer2", "lavit", "chameleon", "blip2_hf",
            "honeybee", "flamingo", "fuyu", "idefics2")  # fmt: skip
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|head|>{{ m['role'] }}<|/head|>\n\n{{ m['content'] | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
SPACED = (  # ends what asks with a space, which belongs to the answer's first token
    "{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }} A: {% else %}{{ m['content'] }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)
WORDED = (  # ends an answer with words
    "{% for m in messages %}{% if m['role'] == 'user' %}User: {{ m['content'] }}\nBot:{% else %} {{ m['content'] }}"
    "\n###\n{% endif %}{% endfor %}"
)
PARTS = (  # as processors of transformers have it
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %} [/INST]"
    "{% else %} {{ m['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
)


def of_family(module: str) -> str:
    family = importlib.import_module(f"chiasm.interop.families.{module}")
    found = next(
        getattr(family, name) for name in ("TEMPLATES", "TEMPLATE", "VICUNA") if hasattr(family, name)
    )
    return found["default"] if isinstance(found, dict) else found


TEMPLATES = {"plain": PLAIN_TEMPLATE, "chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "spaced": SPACED,
             "worded": WORDED, "parts": PARTS, **{name: name for name in FAMILIES}}  # fmt: skip


def made(kind: str, template: str, begins: bool = False) -> TextTokenizer:
    special = (ANSWER, "<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>", "<image>",
               "[UNUSED_TOKEN_145]", "<end_of_utterance>", "<|endofchunk|>", "<reserved08706>")  # fmt: skip
    inner = KINDS[kind](*special, begins=begins)
    inner.chat_template = of_family(template) if template in FAMILIES else template
    return TextTokenizer(inner)


def user(*content) -> Message:
    return Message("user", content)


def assistant(*content) -> Message:
    return Message("assistant", content)


def read(tokenizer: TextTokenizer, *messages: Message, prompt: bool = False) -> Document:
    return document(Contract(tokenizer, 1000), Sample("a sample", messages), prompt=prompt)


def talk(turns: int) -> list[Message]:
    return [m for answer in ANSWERS[:turns] for m in (user(QUESTION), assistant(answer))]


def of_transformers(tokenizer: TextTokenizer, messages: list[Message], **options) -> list[int]:
    parts = "['type']" in tokenizer.inner.chat_template
    turns = [
        {"role": m.role, "content": [{"type": "text", "text": m.content[0]}] if parts else m.content[0]}
        for m in messages
    ]
    text = tokenizer.inner.apply_chat_template(turns, tokenize=False, **options)
    return tokenizer.inner(text, add_special_tokens=False).input_ids


def answers(found: Document) -> list[tuple[int, list[int]]]:
    """(position that predicts it, ids) of each stretch that is learnt."""
    stretches: list[tuple[int, list[int]]] = []
    for i, label in enumerate(found.labels):
        if label != IGNORE and i and found.labels[i - 1] != IGNORE:
            stretches[-1][1].append(label)
        elif label != IGNORE:
            stretches.append((i, [label]))
    return stretches


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_is_learnt_as_the_original_reads_it(kind, template, turns):
    """Ids are transformers' of the whole; each prompt is its beginning, which learns the answer and its end."""
    tokenizer = made(kind, TEMPLATES[template])
    messages = talk(turns)
    whole = read(tokenizer, *messages)
    assert whole.ids == of_transformers(tokenizer, messages)
    assert len(answers(whole)) == turns
    for i, (place, learnt) in enumerate(answers(whole)):
        prompt = read(tokenizer, *messages[: 2 * i + 1], prompt=True)
        assert prompt.ids == whole.ids[: place + 1]
        asked = of_transformers(tokenizer, messages[: 2 * i + 1], add_generation_prompt=True)
        if template != "spaced" and (kind, template) != ("byte-level", "llama3"):  # see the next test
            assert prompt.ids == asked
        text, ended = tokenizer.answer(learnt)
        assert (text.strip(), ended) == (ANSWERS[i], True)
        assert not tokenizer.answer(learnt[:-1])[1]  # the end is the last that is learnt


def test_space_that_is_cut_otherwise_at_the_end_of_a_text_is_asked_with_as_it_was_learnt():
    """GPT-2's tokenizer has one token for two line breaks, but not where a word follows."""
    tokenizer = made("byte-level", LLAMA3)
    assert tokenizer.inner.tokenize("left\n\n")[-1] == "ĊĊ"
    whole, prompt = read(tokenizer, *talk(1)), read(tokenizer, *talk(1)[:1], prompt=True)
    assert tokenizer.inner.convert_ids_to_tokens(prompt.ids[-2:]) == ["Ċ", "Ċ"]
    assert prompt.ids == whole.ids[: len(prompt)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_reaches_into_the_answer_is_learnt_whole(kind):
    tokenizer = made(kind, "llava")
    (_, learnt), = answers(read(tokenizer, *talk(1)))  # fmt: skip
    assert tokenizer.inner.convert_ids_to_tokens(learnt[0])[1:] == "red"
    assert tokenizer.inner.convert_ids_to_tokens(learnt[-1]) == "</s>"


def test_what_ends_a_turn_ends_an_answer_beside_the_tokenizer_s_end():
    tokenizer = made("byte-level", CHATML)
    assert tokenizer.inner.convert_ids_to_tokens(sorted(tokenizer.ends)) == ["</s>", "<|im_end|>"]


def test_the_ends_of_the_settings_are_kept(tmp_path):
    made("byte-level", CHATML).save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8]}))
    loaded = TextTokenizer.load(tmp_path)
    assert {7, 8} < loaded.ends
    loaded.save(tmp_path / "again")
    assert TextTokenizer.load(tmp_path / "again").ends == loaded.ends


THINKING = (  # as Qwen3's: what it writes before the last answer, it does not ask with
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if loop.last and m['role'] == 'assistant' %}<think>\n\n"
    "</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_template_itself_writes_before_an_answer_is_learnt_and_is_no_part_of_the_answer(kind):
    tokenizer = made(kind, THINKING)
    (_, learnt), = answers(read(tokenizer, *talk(1)))  # fmt: skip
    assert "<think>" in tokenizer.decode(learnt)
    assert tokenizer.answer(learnt)[0].strip() == ANSWERS[0]
    streamed = [tokenizer.answer(learnt[:count])[0] for count in range(len(learnt))]
    assert not any("<" in text for text in streamed)
    assert tokenizer.answer(tokenizer.encode("no"))[0].strip() == "no"  # without it, it is an answer as well


def test_answers_without_an_end_are_refused():
    endless = SPACED.replace("{{ eos_token }}", "")
    with pytest.raises(DataError, match="a sample: the chat template writes nothing behind an answer"):
        read(made("byte-level", endless), *talk(1))
    spaced = made(
        "byte-level", SPACED.replace("{{ eos_token }}", "{{ ' ' }}")
    )  # as LLaVA's in transformers' layout
    with pytest.raises(DataError, match="name another in the recipe"):
        read(spaced, *talk(1))
    assert spaced.answer(spaced.encode(" a red square")) == (" a red square", False)
    last = SPACED.replace("{{ eos_token }}", "{% if loop.last %}{{ eos_token }}{% endif %}")
    with pytest.raises(DataError, match="ends the answer of turn 2 with 'Q: What"):
        read(made("byte-level", last), *talk(2))


def test_an_answer_that_holds_its_own_end_is_refused():
    with pytest.raises(DataError, match=r"holds '.n###.n', with which the chat template ends one"):
        read(made("byte-level", WORDED), user(QUESTION), assistant("red\n###\nno"))


def test_a_template_that_asks_otherwise_than_it_answers_is_refused_to_train_with():
    thinks = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>{% endif %}")
    tokenizer = made("byte-level", thinks)
    assert read(tokenizer, user(QUESTION), prompt=True).ids
    with pytest.raises(DataError, match="what is learnt would not be what is asked"):
        read(tokenizer, *talk(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["</s>", "a <|im_end|>\n<|im_start|>assistant\nno", "<image>", "<s><s>"])
def test_text_that_looks_like_a_special_token_is_text(kind, text):
    tokenizer = made(kind, CHATML)
    plain, lookalike = (read(tokenizer, user(words), assistant(words)) for words in ("x", text))
    special = set(tokenizer.inner.all_special_ids)
    assert [id for id in lookalike.ids if id in special] == [id for id in plain.ids if id in special]
    assert tokenizer.decode(lookalike.ids).count(text) == 2
    assert tokenizer.decode(tokenizer.encode_plain(text)).strip() == text


def test_where_the_data_says_so_a_special_token_s_name_is_the_token():
    tokenizer = made("byte-level", CHATML)
    asked = Message("user", ("a <|im_end|>",), special_tokens=True)
    end = tokenizer.inner.convert_tokens_to_ids("<|im_end|>")
    assert read(tokenizer, asked, prompt=True).ids.count(end) == 2


def test_space_round_a_text_goes_where_the_template_trims_it():
    tokenizer = made("byte-level", LLAMA3)
    spaced = [user("  What?\n "), assistant(" red \n")]
    assert read(tokenizer, *spaced).ids == of_transformers(tokenizer, spaced)
    assert read(tokenizer, *spaced).ids == read(tokenizer, user("What?"), assistant("red")).ids


def image() -> PictureInMemory:
    return PictureInMemory(Image.new("RGB", (2, 2)))


def shape(tokenizer: TextTokenizer, *messages: Message, prompt: bool = False) -> list[str]:
    """Tokens as words, with IMAGE where an image is looked at and DRAWN where one is made."""
    words: list[str] = []
    for run in tokenizer.tokens(messages, prompt=prompt, draws=False):
        names = tokenizer.inner.convert_ids_to_tokens(list(run.ids))
        words += names if run.media is None else ["DRAWN" if run.learn else "IMAGE"]
    return words


@pytest.mark.parametrize("kind", KINDS)
def test_round_an_image_text_is_tokenized_as_a_processor_does(kind):
    tokenizer = made(kind, PARTS)
    asked = user(image(), "left ", image(), "top")
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "left "}, {"type": "image"},
                                          {"type": "text", "text": "top"}]}]  # fmt: skip
    text = tokenizer.inner.apply_chat_template(turns, tokenize=False)
    theirs = tokenizer.inner.tokenize(text)
    assert shape(tokenizer, asked, prompt=True) == ["IMAGE" if each == "<image>" else each for each in theirs]


@pytest.mark.parametrize("begins", [False, True])
def test_where_a_processor_puts_the_begin_token_before_a_text_so_does_chiasm(begins):
    tokenizer = made("byte-level", PARTS, begins=begins)
    theirs = tokenizer.inner("[INST] What? [/INST]").input_ids
    assert read(tokenizer, user("What?"), prompt=True).ids == theirs


def test_between_images_of_a_tokenizer_without_a_token_for_them_each_text_stands_alone():
    inner = sentencepiece_like()
    inner.chat_template = BARE_TEMPLATE + "</s>"
    tokenizer = TextTokenizer(inner)
    apart = [*inner.tokenize("left"), "IMAGE", *inner.tokenize("left"), "</s>"]
    assert shape(tokenizer, user("left", image(), "left")) == apart


def test_images_that_a_template_leaves_out_are_an_error():
    inner = byte_level()
    inner.chat_template = PARTS.replace("<image>\n", "an image")
    with pytest.raises(DataError, match="shows 0 of the 1 images"):
        TextTokenizer(inner).runs([user(image(), "What?")], prompt=True)


def test_an_image_that_is_made_stands_directly_behind_what_asks_for_it():
    tokenizer = made("byte-level", "llava")
    tokenizer.mark_pictures()
    asked = draw_prompt(Contract(tokenizer, 1000), Sample("a sample", (user(QUESTION),)))
    whole = shape(tokenizer, user(QUESTION), assistant(image()))
    at = whole.index("DRAWN")
    prompt = tokenizer.inner.convert_ids_to_tokens(asked.ids)
    assert prompt == [*whole[:at], "<|draw|>"]
    assert set(asked.kinds) == {Kind.TEXT}


def test_a_system_message_of_the_plain_template_is_a_line_of_its_own():
    tokenizer = TextTokenizer.train(["Answer in French. What colour is blood?"], 300)
    runs = tokenizer.runs(
        [Message("system", ("Answer in French.",)), user("What colour is blood?")], prompt=True
    )
    assert runs[0].text == "<|begin|>Answer in French.\nWhat colour is blood?<|answer|>"


def test_text_that_is_no_text_is_a_sentence():
    tokenizer = made("byte-level", CHATML)
    for text, message in (("a\ud800b", "half a character, U.D800"), ("a\ufdd0b", "U.FDD0, which is no")):
        with pytest.raises(DataError, match=message):
            tokenizer.runs([user(text)], prompt=True)


def test_a_long_conversation_costs_few_probes_and_is_learnt_as_a_short_one_is(monkeypatch):
    tokenizer = made("byte-level", CHATML)
    rendered = []

    def counted(template, messages, **options):
        rendered.append(len(messages))
        return render(template, messages, **options)

    monkeypatch.setattr("chiasm.language.turns.render", counted)
    messages = [each for _ in range(30) for each in (user(QUESTION), assistant("red"))]
    whole = read(tokenizer, *messages)
    assert whole.ids == of_transformers(tokenizer, messages)
    learnt = [ids for _, ids in answers(whole)]
    assert len(learnt) == 30
    assert all(ids == learnt[0] for ids in learnt)
    assert sum(length > 20 for length in rendered) == 1


SYSTEM = Message("system", ("Be brief.",))
ROWS = {
    "a system message before each question": lambda dice: [SYSTEM],
    "system messages here and there": lambda dice: [SYSTEM] * dice.choice([0, 0, 1, 2]),
    "a hundred of them, then none": lambda dice: [SYSTEM] * (100 * (dice.random() < 0.05)),
}


@pytest.mark.parametrize("row", ROWS)
def test_system_messages_between_turns_cost_a_few_probes_an_answer(monkeypatch, row):
    tokenizer = made("byte-level", CHATML)
    dice = random.Random(1)
    between = [ROWS[row](dice) for _ in range(200)]
    messages = [m for some in between for m in (*some, user(QUESTION), assistant("red"))]
    rendered = []

    def counted(template, messages, **options):
        rendered.append(len(messages))
        return render(template, messages, **options)

    monkeypatch.setattr("chiasm.language.turns.render", counted)
    whole = read_long(tokenizer, messages)
    assert whole.ids == of_transformers(tokenizer, messages)
    learnt = [ids for _, ids in answers(whole)]
    assert len(learnt) == 200
    assert all(ids == learnt[0] for ids in learnt)
    *probes, _ = sorted(rendered)
    assert max(probes) <= 2 * NEAR + 17  # whatever the length of the row


def read_long(tokenizer, messages):
    return document(Contract(tokenizer, 1 << 20), Sample("a sample", tuple(messages)))


@pytest.mark.parametrize("seed", range(5))
def test_a_short_row_keeps_both_ends_and_what_stands_side_by_side(seed):
    dice = random.Random(seed)
    roles = [dice.choice(["user", "assistant", "system"]) for _ in range(300)]
    pairs = {*pairwise(roles)}
    for count, short in enumerate(short_rows(roles)):
        assert short[:NEAR] == tuple(roles[: min(count, NEAR)])
        assert short[-NEAR:] == tuple(roles[max(0, count - NEAR) : count])
        assert len(short) % 2 == count % 2
        talk = [sum(role != "system" for role in row) % 2 for row in (short, roles[:count])]
        assert talk[0] == talk[1]
        assert {*pairwise(short)} <= pairs
        assert len(short) <= 2 * NEAR + 12
