"""Conversations from files, good and broken."""

import json

import pytest
from PIL import Image

from chiasm.data.chat import Chat
from chiasm.data.sample import Picture
from chiasm.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 6), "red").save(tmp_path / name)
    return tmp_path


def lines(folder, *records) -> str:
    path = folder / "talk.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")
    return str(path)


def messages(*turns, **more) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


GOOD = messages(("user", "<image>What?"), ("assistant", "red"), images=["a.png"])


def shape(sample):
    return [
        (m.role, ["picture" if isinstance(i, Picture) else i for i in m.content]) for m in sample.messages
    ]


def test_llava_and_chat_records_read_alike(folder):
    llava = {
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "red"}],
    }
    inline = messages(
        ("user", [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]),
        ("assistant", "red"),
    )
    source = Chat(path=lines(folder, llava, GOOD, inline))
    expected = [("user", ["picture", "What?"]), ("assistant", ["red"])]
    assert [shape(source[i][0]) for i in range(3)] == [expected] * 3
    assert source[1][0].name == "sample 2 of talk.jsonl"


def test_a_json_list_reads_like_lines(folder):
    (folder / "talk.json").write_text(json.dumps([GOOD, GOOD]))
    assert len(Chat(path=str(folder / "talk.json"))) == 2


def test_several_pictures_and_a_drawn_answer(folder):
    record = messages(
        ("user", "From <image> and <image>?"),
        ("assistant", "Here: <image>"),
        images=["a.png", "b.png", "a.png"],
    )
    assert shape(Chat(path=lines(folder, record))[0][0]) == [
        ("user", ["From ", "picture", " and ", "picture", "?"]),
        ("assistant", ["Here: ", "picture"]),
    ]


def test_empty_and_missing_data(folder):
    with pytest.raises(DataError, match="holds no conversation"):
        Chat(path=lines(folder, ""))
    with pytest.raises(DataError, match="cannot be read"):
        Chat(path=str(folder / "none.jsonl"))


def test_the_fingerprint_follows_the_content(folder):
    one = Chat(path=lines(folder, GOOD)).fingerprint
    assert Chat(path=lines(folder, GOOD)).fingerprint == one
    assert Chat(path=lines(folder, GOOD, GOOD)).fingerprint != one
