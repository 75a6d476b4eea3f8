"""The second look as a tool: what a call gives, and that a model goes on behind it."""

import json

import pytest
from PIL import Image

from chiasm import conversation
from chiasm.conversation import Reply
from chiasm.conversation import zoom_tool as looking
from chiasm.conversation.zoom_tool import chat_zooming, zoom_tool, zoomed
from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Picture, Sample, ToolCall
from chiasm.data.tool_calls import declared
from chiasm.errors import ChiasmError
from chiasm.inference import conversation as requests
from chiasm.inference.zoom import Zoom
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import Kind

BOX = {"left": 0.6, "top": 0.2, "right": 0.8, "bottom": 0.6}


@pytest.fixture
def asked():
    image = Image.new("RGB", (200, 100), "white")
    image.paste("red", (100, 0, 200, 100))
    return [Message("user", (PictureInMemory(image), "What colour is it?"))]


def test_a_call_gives_the_part_that_it_names(asked):
    message = zoomed(asked, ToolCall("zoom", BOX, "call00000"), Zoom(margin=5))
    (crop,) = message.content
    assert (message.role, message.call.id, tuple(crop.size)) == ("tool", "call00000", (50, 50))
    assert crop.open().getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "zoom takes numbers for left, top, right, bottom"),
        ({**BOX, "left": "far"}, "zoom takes numbers"),
        ({**BOX, "left": False}, "zoom takes numbers"),
        ({**BOX, "right": 10**400}, "zoom takes numbers"),
        ({**BOX, "right": float("nan")}, "zoom takes numbers"),
        ({**BOX, "right": float("inf")}, "zoom takes numbers"),
        ({**BOX, "left": 0.9}, "the box in the call is not within the image"),
        ({**BOX, "right": 600}, "its numbers rise from 0 to 1"),
    ],
)
def test_a_call_that_names_no_part_is_told_so_in_words(asked, arguments, words):
    assert words in zoomed(asked, ToolCall("zoom", arguments)).content[0]


def test_without_an_image_there_is_nothing_to_enlarge():
    assert zoomed([Message("user", ("What?",))], ToolCall("zoom", BOX)).content == ("no image was shown",)


def test_numbers_count_to_the_scale_that_the_model_knows(asked):
    thousand = Zoom(scale=1000, margin=5)
    boxed = {edge: 1000 * number for edge, number in BOX.items()}
    assert tuple(zoomed(asked, ToolCall("zoom", boxed), thousand).content[0].size) == (50, 50)
    properties = zoom_tool(thousand)["function"]["parameters"]["properties"]
    assert {edge: schema["maximum"] for edge, schema in properties.items()} == dict.fromkeys(BOX, 1000)


def test_the_model_goes_on_behind_what_it_has_seen(monkeypatch, asked):
    replies = [Reply(["Let me see."], calls=(ToolCall("zoom", BOX, "call00000"),)), Reply(["red"])]
    seen = []

    def chat(model, messages, *, tools, seed):
        assert [tool["function"]["name"] for tool in tools] == ["zoom"]
        seen.append((list(messages), seed))
        return replies[len(seen) - 1]

    monkeypatch.setattr(looking, "chat", chat)
    assert chat_zooming(None, asked, seed=3).text == "red"
    history, seed = seen[1]
    assert ([each.role for each in history], seed) == (["user", "assistant", "tool"], 3)
    assert history[1].calls == replies[0].calls
    assert isinstance(history[2].content[0], Picture)


def test_a_model_that_only_ever_looks_is_stopped(monkeypatch, asked):
    monkeypatch.setattr(looking, "chat", lambda *_, **__: Reply(calls=(ToolCall("zoom", BOX),)))
    with pytest.raises(ChiasmError, match="looks: after 2 the model asked for another"):
        chat_zooming(None, asked)


@pytest.mark.parametrize("looks", [0, -1, "2", True, 2.0, None])
def test_looks_that_are_no_number_of_them_are_refused_before_the_model_is_asked(asked, looks):
    with pytest.raises(ChiasmError, match="looks: it must be a whole number from 1, not"):
        chat_zooming(None, asked, looks=looks)


def test_tools_of_the_callers_own_are_refused(asked):
    with pytest.raises(ChiasmError, match="tools: zoom is the only one here"):
        chat_zooming(None, asked, tools=[zoom_tool()])


def test_a_model_that_draws_and_calls_twice_reads_all_of_it_again(tiny, asked, monkeypatch):
    tiny["model"]["language"]["chat_template"] = "tools"
    tiny["model"]["language"]["config"]["max_position_embeddings"] = 2048
    model = Model(load_recipe(tiny).model, texts=["What colour is it? Let me see. red"] * 9).eval()
    tokenizer, prompts = model.language.tokenizer, []
    call = tokenizer.encode(json.dumps({"name": "zoom", "arguments": BOX}))
    answers = [[*tokenizer.encode("See"), tokenizer.draw, *call], call, tokenizer.encode("red")]

    def says(logits, sampling, seeds, place, seen):
        return [[*answers[len(prompts) - 1], tokenizer.end][place]]

    def recorded(contract, sample, **options):
        prompt = document(contract, sample, **options)
        prompts.append([tuple(slot.picture.size) for slot in prompt.slots])
        return prompt

    monkeypatch.setattr(requests, "choose_words", says)
    monkeypatch.setattr(conversation, "document", recorded)
    reply = chat_zooming(model, asked, tokens=200)
    assert (reply.text, reply.cut) == ("red", False)
    shown, drawn = (100, 200), (32, 32)
    crop = tuple(zoomed(asked, ToolCall("zoom", BOX)).content[0].size)
    assert prompts == [[shown], [shown, drawn, crop], [shown, drawn, crop, crop]]
    prompts.clear()
    with pytest.raises(ChiasmError, match="looks: after 1 the model asked for another"):
        chat_zooming(model, asked, looks=1, tokens=200)


def test_the_crop_is_read_as_an_image_of_the_conversation(tiny, asked):
    tiny["model"]["language"]["chat_template"] = "tools"
    model = Model(load_recipe(tiny).model, texts=["What colour is it? Let me see."] * 9)
    call = ToolCall("zoom", BOX, "call00000")
    history = [*asked, Message("assistant", ("Let me see.",), calls=(call,))]
    sample = Sample("a talk", (*history, zoomed(history, call)), tools=declared([zoom_tool()]))
    read = document(model.contract, sample, prompt=True)
    assert [slot.kind for slot in read.slots] == [Kind.READ, Kind.READ]
