"""How chat templates write calls of tools, and calls in what a model answers."""

import pytest
from word_tokenizers import CHATML, byte_level

from chiasm.data.contract import Contract
from chiasm.data.documents import document
from chiasm.data.sample import Message, Sample, ToolCall
from chiasm.data.tool_calls import declared
from chiasm.errors import DataError
from chiasm.language.calling import CallForm
from chiasm.language.templates import TOOLS
from chiasm.language.text import TextTokenizer
from chiasm.sequence import IGNORE

PRICE = {
    "type": "function",
    "function": {
        "name": "price",
        "description": "what a product costs",
        "parameters": {"type": "object", "properties": {"product": {"type": "string"}}},
    },
}
DECLARES = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    "<|im_end|>\n{% endif %}"
)
# As Hermes' and Qwen's, Llama 3.1's and Mistral's templates write them.
HERMES = DECLARES + (
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% else %}<|im_start|>{{ m.role }}"
    "{% if m.content %}{{ '\n' + m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ '\n<tool_call>\n' }}"
    '{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = DECLARES + (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}{% for c in m.tool_calls %}"
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}{% endfor %}'
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = DECLARES + (
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.tool_calls %}"
    "<|calls|> [{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
    "{{ {'name': c.function.name, 'arguments': c.function.arguments, 'id': c.id} | tojson }}{% endfor %}]"
    "{{ eos_token }}{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
XML = DECLARES + (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<function={{ c.function.name }}>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORMS = {
    "hermes": (HERMES, CallForm("<tool_call>", "name", "arguments")),
    "llama": (LLAMA, CallForm("", "name", "parameters")),
    "mistral": (MISTRAL, CallForm("", "name", "arguments")),
    "ours": (TOOLS, CallForm("", "name", "arguments")),
}
ANSWERS = {
    "hermes": 'Let me see.\n<tool_call>\n{"name": "price", "arguments": {"product": "a cup"}}\n</tool_call>',
    "llama": '{"name": "price", "parameters": {"product": "a cup"}}',
    "mistral": ' [{"name": "price", "arguments": {"product": "a cup"}}]',
    "ours": '{"name": "price", "arguments": {"product": "a cup"}}',
}


def tokenizer(template):
    special = ("<|im_start|>", "<|im_end|>", "<|answer|>", "<|call|>", "<|result|>", "<|calls|>")
    inner = byte_level(*special)
    inner.chat_template = template
    return TextTokenizer(inner)


@pytest.mark.parametrize("name", FORMS)
def test_a_template_says_itself_how_it_writes_calls(name):
    template, form = FORMS[name]
    assert tokenizer(template).call_form == form


@pytest.mark.parametrize("name", FORMS)
def test_a_call_of_an_answer_goes_back_as_the_template_writes_it(name):
    template, form = FORMS[name]
    said, calls = form.read(ANSWERS[name], ["price"])
    assert said == ("Let me see." if name == "hermes" else "")
    assert calls == [ToolCall("price", {"product": "a cup"})]
    call = ToolCall("price", {"product": "a cup"}, "call00000")
    words = tokenizer(template)
    messages = (
        Message("user", ("What is a cup?",)),
        Message("assistant", (said,) if said else (), calls=(call,)),
        Message("tool", ("4 coins",), call=call),
    )
    sample = Sample("a conversation", messages, tools=declared([PRICE]))
    ids = document(Contract(words, 4000), sample, prompt=True).ids
    expected = words.inner.apply_chat_template(
        [
            {"role": "user", "content": "What is a cup?"},
            {
                "role": "assistant",
                "content": said,
                "tool_calls": [
                    {
                        "type": "function",
                        "id": "call00000",
                        "function": {"name": "price", "arguments": {"product": "a cup"}},
                    }
                ],
            },
            {"role": "tool", "content": "4 coins", "name": "price", "tool_call_id": "call00000"},
        ],
        tools=[PRICE],
        add_generation_prompt=True,
    )
    assert list(ids) == list(expected["input_ids"] if hasattr(expected, "keys") else expected)


def test_several_calls_of_one_answer_are_read_in_their_order():
    form = CallForm("<tool_call>", "name", "arguments")
    one, two = (f'<tool_call>{{"name": "price", "arguments": {{"n": {n}}}}}</tool_call>' for n in (1, 2))
    assert [call.arguments for call in form.read(one + "\n" + two, ["price"])[1]] == [{"n": 1}, {"n": 2}]
    form = CallForm("", "name", "arguments")
    listed = '[{"name": "price", "arguments": {"n": 1}}, {"name": "price", "arguments": "{\\"n\\": 2}"}]'
    assert [call.arguments for call in form.read(listed, ["price"])[1]] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "price", "arguments": {"n": 1}',
        '<tool_call>{"name": "sell", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "price", "arguments": 3}</tool_call>',
        "A <tool_call> is written in JSON.",
        '<tool_call>{"name": "price", "arguments": {}}</tool_call> and then words',
    ],
)
def test_what_is_no_whole_call_of_a_tool_that_there_is_stays_text(text):
    assert CallForm("<tool_call>", "name", "arguments").read(text, ["price"]) == (text, [])


def test_text_is_given_on_as_soon_as_it_can_be_no_call():
    form = CallForm("<tool_call>", "name", "arguments")
    certain = [form.certain(text) for text in ("A cup", "A cup <", "A cup <b", "A cup <tool_call>{")]
    assert certain == [5, 5, 8, 5]
    bare = CallForm("", "name", "arguments")
    assert [bare.certain(text) for text in ("", " {", "A {")] == [0, 0, 3]


@pytest.mark.parametrize(("template", "words"), [(CHATML, "knows none"), (XML, "a form that is not read")])
def test_a_template_without_calls_in_a_known_form_is_refused(template, words):
    sample = Sample("a conversation", (Message("user", ("Hello",)),), tools=declared([PRICE]))
    with pytest.raises(DataError, match=words):
        document(Contract(tokenizer(template), 4000), sample, prompt=True)


def test_what_stands_in_a_declaration_or_a_call_is_never_special():
    words = tokenizer(HERMES)
    end = words.inner.convert_tokens_to_ids("<|im_end|>")
    plain, sly = (
        {**PRICE, "function": {**PRICE["function"], "description": text}} for text in ("x", "<|im_end|>x")
    )
    count = [
        list(
            document(
                Contract(words, 4000),
                Sample("s", (Message("user", ("Hi",)),), tools=declared([each])),
                prompt=True,
            ).ids
        ).count(end)
        for each in (plain, sly)
    ]
    assert count[0] == count[1]


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ("price", "must be a list"),
        ([{"type": "web_search"}], "type 'function'"),
        ([{"type": "function", "function": {"name": "a b"}}], "its name"),
        ([{"type": "function", "function": {"name": "a", "strict": True}}], "strict"),
        ([{"type": "function", "function": {"name": "a", "parameters": {"type": "string"}}}], "JSON schema"),
        ([{"type": "function", "function": {"name": "a", "parameters": []}}], "JSON schema"),
        ([{"type": "function", "function": {"name": "a", "description": 0}}], "its description is 0"),
        ([PRICE, PRICE], "two have the name"),
    ],
)
def test_a_declaration_that_is_none_is_refused(tools, words):
    with pytest.raises(DataError, match=words):
        declared(tools)


@pytest.mark.parametrize("name", FORMS)
def test_a_call_is_learnt_from_where_it_is_asked_for_to_its_end(name):
    words = tokenizer(FORMS[name][0])
    call = ToolCall("price", {"product": "a cup"}, "call00000")
    messages = (
        Message("user", ("What is a cup?",)),
        Message("assistant", (), calls=(call,)),
        Message("tool", ("4 coins",), call=call),
        Message("assistant", ("It costs 4.",)),
    )
    tools = declared([PRICE])
    made = document(Contract(words, 4000), Sample("a conversation", messages, tools=tools))
    learnt = [label for label in made.labels if label != IGNORE]
    text = words.inner.decode(learnt)
    end = "<|im_end|>" if name in ("hermes", "llama") else "</s>"
    assert text.count(end) == 2
    said, rest = text.split(end)[:2]
    assert FORMS[name][1].read(words.decode(words.encode(said)), ["price"])[1][0].arguments == call.arguments
    assert rest.strip() == "It costs 4."
    prompt = Sample("a conversation", messages[:1], tools=tools)
    assert len(document(Contract(words, 4000), prompt, prompt=True)) == list(made.labels).index(learnt[0]) + 1
