"""`chiasm chat --tools`: calls are printed, and what they give is asked of the user."""

import json

import pytest
from rich.console import Console

from chiasm.data.sample import ToolCall
from chiasm.errors import ChiasmError
from chiasm.terminal import chat

TOOLS = [
    {"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {}}}}
]
CALL = ToolCall("price", {"product": "杯"}, "call00000")


@pytest.fixture
def talk(monkeypatch, tmp_path):
    """Chats with a model that calls at first and then speaks; what it was sent is in `talk.asked`."""
    answers = [((), (CALL,)), (("4 coins",), ())]
    asked = []

    class Turn:
        cut = False

        def __init__(self, model, messages, **options):
            pieces, self.calls = answers[len(asked)]
            asked.append((messages, options))
            self.pieces = iter(pieces)

        def __iter__(self):
            return self.pieces

    monkeypatch.setattr(chat, "load_model", lambda *_: None)
    monkeypatch.setattr(chat, "Turn", Turn)
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))

    def run(message=None, typed=(), tools="tools.json", **options):
        lines = iter(typed)
        monkeypatch.setattr(Console, "input", lambda *_: next(lines))
        chat.converse(
            tmp_path, message=message, images=(), save=tmp_path, seed=0, tools=tmp_path / tools, **options
        )

    run.asked = asked
    return run


def test_a_call_is_printed_with_its_arguments(talk, capsys):
    talk("What is a cup?")
    assert 'price({"product": "杯"})' in capsys.readouterr().out
    (_, options) = talk.asked[0]
    assert [tool["function"]["name"] for tool in options["tools"]] == ["price"]


def test_what_a_call_gives_is_asked_and_the_model_goes_on(talk, capsys):
    talk(typed=["What is a cup?", "", "4", "/quit"])
    messages = talk.asked[1][0]
    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert messages[1].calls == (CALL,)
    assert messages[2].content == ("4",)
    assert messages[2].call == CALL
    assert "4 coins" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [({"tools": "none.json"}, "cannot be read"), ({"zoom": True}, "leave one out")],
)
def test_what_cannot_be_is_a_sentence(talk, options, words):
    with pytest.raises(ChiasmError, match=words):
        talk("What is a cup?", **options)
