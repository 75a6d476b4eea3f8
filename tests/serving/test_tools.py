"""Tools as a client of the server uses them: the model calls, the client answers, the model goes on."""

import json

import openai
import pytest

from chiasm.conversation import as_messages, chat
from chiasm.data.corpus import corpus
from chiasm.data.sample import ToolCall
from chiasm.errors import DataError
from chiasm.inference import conversation
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.serving.app import create_app
from clients import KEY, LIMITS, post, said
from served import served
from tiny_recipe import TINY

PRICE = {
    "type": "function",
    "function": {
        "name": "price",
        "description": "what a product costs",
        "parameters": {
            "type": "object",
            "properties": {"product": {"type": "string"}},
            "required": ["product"],
        },
    },
}
CALL = '{"name": "price", "arguments": {"product": "杯"}}'


@pytest.fixture(scope="module")
def shop():
    """A model whose chat template knows tools."""
    language = {**TINY["model"]["language"], "chat_template": "tools"}
    recipe = load_recipe({**TINY, "model": {**TINY["model"], "language": language}})
    return Model(recipe.model, texts=corpus(recipe)).eval()


@pytest.fixture(scope="module")
def address(shop):
    with served(create_app({"shop": shop}, key=KEY, limits=LIMITS)) as place:
        yield place


@pytest.fixture
def client(address):
    return openai.OpenAI(base_url="http://{}:{}/v1".format(*address), api_key=KEY, max_retries=0)


@pytest.fixture
def says(shop, monkeypatch):
    """Has the model answer with a text."""

    def say(text):
        tokenizer = shop.language.tokenizer
        ids = [*tokenizer.encode(text), tokenizer.end]
        monkeypatch.setattr(
            conversation, "choose_words", lambda logits, sampling, seeds, place, seen: [ids[place]]
        )

    return say


def ask(client, messages, **options):
    return client.chat.completions.create(
        model="shop", messages=messages, tools=[PRICE], max_tokens=120, **options
    )


def test_a_call_comes_as_openai_has_it_and_its_answer_is_read(client, says):
    says(CALL)
    first = ask(client, said("What is a cup?")).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.content is None
    (call,) = first.message.tool_calls
    assert call.function.name == "price"
    assert json.loads(call.function.arguments) == {"product": "杯"}
    says("4 coins")
    answer = {"role": "tool", "tool_call_id": call.id, "content": "4"}
    messages = [*said("What is a cup?"), first.message, answer]
    second = ask(client, messages)
    assert second.choices[0].message.content == "4 coins"
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.tool_calls is None


def test_models_say_whether_they_know_tools(client, tiny_model):
    assert client.models.retrieve("shop").tools is True
    assert tiny_model[0].contract.tokenizer.knows_tools is False


def test_a_stream_holds_a_call_back_until_it_is_whole(client, says):
    says(CALL)
    calls, text, reasons = [], "", []
    for chunk in ask(client, said("What is a cup?"), stream=True):
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        calls += choice.delta.tool_calls or []
        reasons.append(choice.finish_reason)
    assert text == ""
    assert [(call.index, call.function.name) for call in calls] == [(0, "price")]
    assert reasons[-1] == "tool_calls"
    says("A cup is 4 coins.")
    pieces = [c.choices[0].delta.content for c in ask(client, said("What is a cup?"), stream=True)]
    assert len(pieces) > 4
    assert "".join(piece or "" for piece in pieces) == "A cup is 4 coins."


def test_without_tools_an_answer_is_text_whatever_it_looks_like(client, says):
    says(CALL)
    for options in ({"tool_choice": "none"}, {}):
        tools = {"tools": [PRICE]} if options else {}
        reply = client.chat.completions.create(
            model="shop", messages=said("What?"), max_tokens=120, **tools, **options
        )
        assert reply.choices[0].message.content == CALL
        assert reply.choices[0].finish_reason == "stop"


def test_responses_call_as_well(client, says):
    tool = {"type": "function", "name": "price", "parameters": PRICE["function"]["parameters"]}
    options = {"model": "shop", "tools": [tool], "max_output_tokens": 120}
    says(CALL)
    first = client.responses.create(input="What is a cup?", **options)
    (call,) = first.output
    assert (call.type, call.name, call.status) == ("function_call", "price", "completed")
    assert json.loads(call.arguments) == {"product": "杯"}
    kinds = [event.type for event in client.responses.create(input="What?", stream=True, **options)]
    assert kinds[2:-1] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    says("4 coins")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "4"}
    items = [{"role": "user", "content": "What is a cup?"}, call.model_dump(exclude_none=True), output]
    second = client.responses.create(input=items, **options)
    assert second.output_text == "4 coins"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "price"}}}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [{"type": "function", "function": {**PRICE["function"], "strict": True}}]}, "strict"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"functions": []}, "functions"),
        ({"tools": [PRICE, PRICE]}, "tools"),
        ({"messages": [*said("?"), {"role": "tool", "tool_call_id": "x", "content": "4"}]}, "message 2"),
        ({"messages": [*said("?"), {"role": "tool", "content": "4"}]}, "tool_call_id"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(address, change, param):
    body = {"model": "shop", "messages": said("What is a cup?"), "tools": [PRICE], **change}
    status, reply = post(address, "/v1/chat/completions", body)
    assert status == 400
    assert param in reply["error"]["message"]


def test_a_model_whose_template_knows_no_tools_says_so(tiny_model):
    with pytest.raises(DataError, match="knows none"):
        chat(tiny_model[0], "What is a cup?", tools=[PRICE])


def test_python_gets_calls_and_gives_their_answers(shop, says):
    says(CALL)
    reply = chat(shop, "What is a cup?", tools=[PRICE], tokens=120)
    assert reply.text == ""
    assert [(call.name, call.arguments) for call in reply.calls] == [("price", {"product": "杯"})]
    says("4 coins")
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "function": {"name": "price", "arguments": {"product": "杯"}}}],
    }
    messages = [*said("What is a cup?"), called, {"role": "tool", "tool_call_id": "a", "content": "4.png"}]
    assert chat(shop, messages, tools=[PRICE], tokens=120).text == "4 coins"
    with pytest.raises(DataError, match="has no answer"):
        chat(shop, messages[:2], tools=[PRICE])


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        (0, "is 0; it must be a list of calls"),
        ([{"id": "a", "function": {"name": "price", "arguments": []}}], "they must be an object"),
    ],
)
def test_what_is_empty_but_no_call_is_refused(calls, problem):
    with pytest.raises(DataError, match=problem):
        as_messages([*said("What is a cup?"), {"role": "assistant", "content": "", "tool_calls": calls}])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tool_calls": [{"id": "b", "function": {"name": "price"}}]}, "unknown key 'tool_calls'"),
        ({"tool_call_id": 3}, "has the tool_call_id 3; it must be text"),
        ({"name": "size"}, "message 3 is the answer of 'size' to a call of 'price'"),
    ],
)
def test_nothing_of_a_tools_answer_is_dropped(change, problem):
    call = {"id": "a", "function": {"name": "price", "arguments": {"product": "杯"}}}
    answer = {"role": "tool", "tool_call_id": "a", "name": "price", "content": "4"}
    messages = [*said("What is a cup?"), {"role": "assistant", "tool_calls": [call]}, answer]
    assert as_messages(messages)[-1].call == ToolCall("price", {"product": "杯"}, "a")
    with pytest.raises(DataError, match=problem):
        as_messages([*messages[:2], answer | change])
