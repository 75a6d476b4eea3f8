"""Modalities beside text and images over HTTP: read in conversations, and written where one is asked for."""

import base64
import io
import re

import numpy as np
import openai
import pytest

from chiasm.conversation import Turn
from chiasm.serving.app import create_app
from clients import KEY, LIMITS, post, said
from levels import Level, levels_model
from served import served

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture
def model(tiny):
    return levels_model(tiny)


@pytest.fixture
def address(model):
    with served(create_app({"tiny": model}, key=KEY, limits=LIMITS)) as place:
        yield place


def encoded(array):
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def heard(numbers, words="how loud is it ?", modality="levels"):
    part = {"type": "signal", "signal": {"modality": modality, "data": encoded(np.array(numbers))}}
    return [{"role": "user", "content": [part, {"type": "text", "text": words}]}]


def of_python(*numbers):
    return [{"role": "user", "content": [Level(*numbers), "how loud is it ?"]}]


def test_a_signal_is_heard_as_in_python(address, model):
    for numbers in ((0.5, 1.0), (50.0, -20.0)):
        status, reply = post(
            address, "/v1/chat/completions", {"model": "tiny", "messages": heard(numbers), "max_tokens": 4}
        )
        turn = Turn(model, of_python(*numbers), tokens=4)
        assert (status, reply["choices"][0]["message"]["content"]) == (200, "".join(turn))
        assert reply["usage"]["completion_tokens"] == turn.tokens


def test_a_signal_is_made_as_in_python(address, model):
    model.modalities.levels.noise = 1.0
    body = {"model": "tiny", "modality": "levels", "messages": heard((0.5, 1.0)), "seed": 3}
    status, reply = post(address, "/v1/signals", body)
    assert status == 200
    assert (reply["shape"], reply["seed"], reply["modality"]) == ([2], 3, "levels")
    numbers = np.load(io.BytesIO(base64.b64decode(reply["data"])), allow_pickle=False)
    assert np.array_equal(numbers, model.synthesise("levels", of_python(0.5, 1.0), seed=3))
    assert reply["usage"]["completion_tokens"] == 3
    _, other = post(address, "/v1/signals", {**body, "seed": 4})
    assert other["data"] != reply["data"]


def test_models_name_their_modalities(address):
    client = openai.OpenAI(base_url="http://{}:{}/v1".format(*address), api_key=KEY)
    described = client.models.retrieve("tiny").model_dump()
    assert described["modalities"]["input"] == ["text", "image", "levels"]
    assert described["modalities"]["output"][-1] == "levels"
    assert described["signals"] == {"levels": {"shape": [2], "tokens": 3}}


def test_tokens_show_a_signal_as_one_entry(address):
    status, reply = post(address, "/v1/tokens", {"model": "tiny", "messages": heard((0.5, 1.0))})
    assert status == 200
    (signal,) = [each for each in reply["data"] if each["kind"] != "text"]
    assert (signal["kind"], signal["positions"], signal["text"], signal["learnt"]) == (
        "levels read",
        3,
        "",
        False,
    )
    assert sum(each["positions"] for each in reply["data"]) == reply["total"]


CHAT = "chat/completions"
FIRST = "messages.0.content.0.signal"


@pytest.mark.parametrize(
    ("path", "change", "param", "sentence"),
    [
        (CHAT, {"messages": heard((1.0,))}, "messages", r"has shape \(1,\), but this model's has \(2,\)"),
        (CHAT, {"messages": heard((1.0, np.inf))}, "messages", "not finite"),
        (CHAT, {"messages": heard((1.0, 2.0), modality="sound")}, "messages", "this model's are: levels"),
        (CHAT, {"messages": heard(("a", "b"))}, FIRST, "holds str32"),
        ("tokens", {"messages": heard((1.0,))}, "messages", "has shape"),
        ("signals", {"messages": heard((1.0,)), "modality": "levels"}, "messages", "has shape"),
        ("signals", {"messages": said("a"), "modality": "sound"}, "modality", "it has: levels"),
        ("signals", {"messages": said("a")}, "modality", "it is required"),
        ("signals", {"messages": said("a"), "modality": "levels", "stream": True}, "stream", "cannot honour it"),
        ("signals", {"messages": said("a"), "modality": "levels", "seed": -1}, "seed", "greater than or equal"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(address, path, change, param, sentence):
    status, reply = post(address, f"/v1/{path}", {"model": "tiny", **change})
    assert status == 400
    assert reply["error"]["param"] == param
    assert re.search(sentence, reply["error"]["message"]), reply


def test_data_that_is_no_file_and_a_signal_of_the_assistants_are_refused(address):
    part = {"type": "signal", "signal": {"modality": "levels", "data": "?"}}
    turns = [{"role": "user", "content": [part]}]
    status, reply = post(address, "/v1/chat/completions", {"model": "tiny", "messages": turns})
    assert (status, reply["error"]["param"]) == (400, FIRST)
    assert "is no base64: ?" in reply["error"]["message"]
    turns = [*said("a"), {**heard((1.0, 2.0))[0], "role": "assistant"}, *said("b")]
    status, reply = post(address, "/v1/chat/completions", {"model": "tiny", "messages": turns})
    assert (status, reply["error"]["param"]) == (400, FIRST.replace("0", "1", 1))
    assert "given back by the role 'user'" in reply["error"]["message"]


def test_a_model_without_modalities_says_so(tiny_model):
    with served(create_app({"tiny": tiny_model[0]}, key=KEY, limits=LIMITS)) as address:
        status, reply = post(
            address, "/v1/chat/completions", {"model": "tiny", "messages": heard((1.0, 2.0))}
        )
        assert (status, "this model's are: none" in reply["error"]["message"]) == (400, True)
        body = {"model": "tiny", "modality": "levels", "messages": said("a")}
        status, reply = post(address, "/v1/signals", body)
        assert (status, "it has: none" in reply["error"]["message"]) == (400, True)
