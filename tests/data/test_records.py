"""Every form of a record, read alike in data files and by `chat`: good ones, and broken ones that are named."""

import base64
import io
import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from chiasm.conversation import as_messages
from chiasm.data.chat import Chat
from chiasm.data.images import FORMATS
from chiasm.data.references import path_items
from chiasm.errors import DataError
from chiasm.terminal.chat import items
from coloured import COLOURS, named, write_coloured


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    write_coloured(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source(*records, **options):
    with open("talk.jsonl", "w", encoding="ascii") as file:
        file.writelines((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in records)
    return Chat(path="talk.jsonl", **options)


def shape(messages):
    """Roles with their contents, an image as the file that has its colour."""
    return [(m.role, *named(m.content)) for m in messages]


def data_url(name="a.png"):
    with open(name, "rb") as file:
        return "data:image/png;base64," + base64.b64encode(file.read()).decode()


def talk(content, answer="red", **fields):
    return {
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}],
        **fields,
    }


def shared(content, answer="red", **fields):
    turns = [{"from": "human", "value": content}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, **fields}


ONE = [("user", "a.png", "What?"), ("assistant", "red")]
TWO = [("user", "a.png", " or ", "b.png", "?"), ("assistant", "red")]
PLAIN = [("user", "What?"), ("assistant", "red")]
WITH_SYSTEM = [("system", "Be brief."), *PLAIN]
# name: (a record, or what gives one once the images are there; what is read)
FORMS = {
    **{
        f"{form.__name__}, {key} as {type(value).__name__}": (form("<image>What?", **{key: value}), ONE)
        for form in (talk, shared)
        for key in ("image", "images")
        for value in ("a.png", ["a.png"], [{"path": "a.png", "bytes": None}], {"url": "a.png"})
    },
    **{
        f"{form.__name__}, {key}, two markers": (
            form("<image> or <image>?", **{key: ["a.png", "b.png"]}),
            TWO,
        )
        for form in (talk, shared)
        for key in ("image", "images")
    },
    "conversations of role and content": (
        {"conversations": talk("<image>What?")["messages"], "image": "a.png"},
        ONE,
    ),
    "messages of from and value": (
        {"messages": shared("<image>What?")["conversations"], "image": "a.png"},
        ONE,
    ),
    "an image item": (talk([{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]), ONE),
    "an image item with nulls": (
        talk(
            [
                {"type": "image", "image": "a.png", "text": None},
                {"type": "text", "text": "What?", "image": None},
            ]
        ),
        ONE,
    ),
    "items without types": (talk([{"image": "a.png"}, {"text": "What?"}]), ONE),
    "image and text in one item": (talk([{"image": "a.png", "text": "What?"}]), ONE),
    "text and image in one item": (talk([{"text": "What?", "image": "a.png"}]), ONE),
    "strings as items": (talk(["<image>", "What?"], image="a.png"), ONE),
    "one item alone": (talk({"type": "text", "text": "What?"}), PLAIN),
    "a placeholder": (talk([{"type": "image"}, {"type": "text", "text": "What?"}], images=["a.png"]), ONE),
    "a placeholder and a marker": (
        talk([{"type": "image"}, " or <image>?"], images=["a.png", "b.png"]),
        TWO,
    ),
    "an image_url": (
        talk([{"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}}, "What?"]),
        ONE,
    ),
    "an image_url that is a string": (talk([{"type": "image_url", "image_url": "a.png"}, "What?"]), ONE),
    "an image item by url": (talk([{"type": "image", "url": "a.png"}, "What?"]), ONE),
    "an image item by path": (talk([{"type": "image", "path": "a.png"}, "What?"]), ONE),
    "an image_url of data": (
        lambda: talk([{"type": "image_url", "image_url": {"url": data_url()}}, "What?"]),
        ONE,
    ),
    "an image of base64": (lambda: talk("<image>What?", image=data_url().partition(",")[2]), ONE),
    "an image of data": (lambda: talk("<image>What?", image=data_url()), ONE),
    "a file URL": (lambda: talk("<image>What?", image=f"file://{os.getcwd()}/a.png"), ONE),
    "a relative file URL": (talk("<image>What?", image="file:a.png"), ONE),
    "an absolute path": (lambda: talk("<image>What?", image=f"{os.getcwd()}/a.png"), ONE),
    "no image": (talk("What?"), PLAIN),
    "empty images": (talk("What?", images=[], image=None), PLAIN),
    "system field, messages": (talk("What?", system="Be brief."), WITH_SYSTEM),
    "system field, conversations": (shared("What?", system="Be brief."), WITH_SYSTEM),
    "empty system field": (shared("What?", system=""), PLAIN),
    "system turn": (
        {"messages": [{"role": "system", "content": "Be brief."}, *talk("What?")["messages"]]},
        WITH_SYSTEM,
    ),
    "columns without meaning": (talk("What?", id=7, source="web", metadata={"a": [1]}), PLAIN),
    "unknown column that is null": (talk("What?", tools=None), PLAIN),
    "an image in the answer": (
        talk("Draw.", "<image>", image="a.png"),
        [("user", "Draw."), ("assistant", "a.png")],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads_alike_from_a_file_and_in_chat(form):
    record, expected = FORMS[form]
    record = record() if callable(record) else record
    assert shape(source(record)[0][0].messages) == expected
    assert shape(as_messages(record)) == expected


ANSWER = {"role": "assistant", "content": "red"}
# name: (record, what the error says, its kind)
BROKEN = {
    "not JSON": ("{broken", "is not JSON", "not JSON"),
    "not UTF-8 text": ('{"a": "\udcff"}', "is not JSON", "not JSON"),
    "a key twice": ('{"messages": [], "image": 1, "image": 2}', "the key 'image' stands twice", "not JSON"),
    "a list": ("[1]", "it must be an object", "form"),
    "a number": ("1", "it must be an object", "form"),
    "no turns": ({"image": "a.png"}, "neither a list 'messages' nor a list 'conversations'", "turns"),
    "turns that are no list": ({"messages": "What?"}, "neither a list 'messages'", "turns"),
    "turns twice": ({**talk("What?"), **shared("What?")}, "both 'conversations' and 'messages'", "form"),
    "an image and no marker, talk": (
        talk("What?", image="a.png"),
        "has 1 images but 0 <image> markers",
        "markers",
    ),
    "an image and no marker, shared": (
        shared("What?", images=["a.png"]),
        "has 1 images but 0 <image>",
        "markers",
    ),
    "a marker and no image": (talk("<image>What?"), "has 0 images but 1 <image> markers", "markers"),
    "a placeholder and no image": (
        talk([{"type": "image"}, "What?"]),
        "has 0 images but 1 <image> markers",
        "markers",
    ),
    "image and images": (
        talk("<image>", image="a.png", images=["a.png"]),
        "has both 'images' and 'image'",
        "form",
    ),
    "an empty list of images beside an image": (
        talk("<image>What?", image="a.png", images=[]),
        "has both 'images' and 'image'",
        "form",
    ),
    "an empty list of turns beside another": (
        {**talk("What?"), "conversations": []},
        "has both 'conversations' and 'messages'",
        "form",
    ),
    "an unknown key": (talk("What?", pictures=["a.png"]), "has the unknown key 'pictures'", "unknown key"),
    "a misspelt key": (
        talk("What?", imgae="a.png"),
        "unknown key 'imgae'; did you mean 'image'?",
        "unknown key",
    ),
    "tools": (talk("What?", tools=[{"name": "x"}]), "unknown key 'tools'", "unknown key"),
    "an unknown key of a turn": (
        {"messages": [{"role": "user", "content": "?", "thoughts": [1]}, ANSWER]},
        "turn 1 has the unknown key 'thoughts'",
        "unknown key",
    ),
    "an unknown key of an item": (
        talk([{"type": "image", "image": "a.png", "max_pixels": 100}]),
        "turn 1 has the unknown key 'max_pixels'",
        "unknown key",
    ),
    "an image as Anthropic writes it": (
        talk([{"type": "image", "source": {"type": "base64", "data": "x"}}]),
        "unknown key 'source'",
        "unknown key",
    ),
    "text with an image": (
        talk([{"type": "text", "image": "a.png"}]),
        "turn 1 has content of type 'text' with the image a.png; one of them must go",
        "content",
    ),
    "words and an image that are said to be text": (
        talk([{"type": "text", "text": "What?", "image_url": {"url": "a.png"}}]),
        "of type 'text' with the image",
        "content",
    ),
    "an unknown detail of an item": (
        talk([{"type": "image_url", "image_url": {"url": "a.png", "detail": "nonsense"}}, "What?"]),
        "turn 1 has an image with the detail nonsense; it must be auto, low, high",
        "image form",
    ),
    "an unknown detail of a record's image": (
        talk("<image>What?", image={"url": "a.png", "detail": ["low"]}),
        "has an image with the detail ['low']",
        "image form",
    ),
    "a video": (
        talk([{"type": "video", "text": "x"}]),
        "content of type 'video'; known: text, image",
        "content",
    ),
    "an unknown role": (
        {"messages": [{"role": "critic", "content": "x"}, ANSWER]},
        "turn 1 has the role 'critic'",
        "role",
    ),
    "a role that is no text": (
        {"messages": [{"role": 3, "content": "x"}, ANSWER]},
        "has the role '3'",
        "role",
    ),
    "a turn that is text": ({"messages": ["What?", ANSWER]}, "turn 1 is What?; it must be a mapping", "form"),
    "a turn without content": (
        {"messages": [{"role": "user"}, ANSWER]},
        "it must be a mapping with 'role'",
        "turns",
    ),
    "two roles": (
        {"messages": [{"role": "user", "from": "human", "content": "x"}, ANSWER]},
        "has both 'role' and 'from'",
        "form",
    ),
    "a number as content": (talk(3), "has content 3; it must be text or an image", "content"),
    "a list within a list": (talk([["x"]]), "has content ['x']; it must be text or an image", "content"),
    "an item without text": (talk([{"type": "text"}]), "has content {'type': 'text'}", "content"),
    "a number as text": (
        talk([{"type": "text", "text": 3}]),
        "has the text 3; it must be a string",
        "content",
    ),
    "a number as image": (
        talk("<image>", image=3),
        "names the image 3; it must be a path or a URL",
        "image form",
    ),
    "two system messages": (
        {"messages": [{"role": "system", "content": "x"}, *talk("What?")["messages"]], "system": "y"},
        "has a system field and a turn of role system",
        "turns",
    ),
    "a number as system": (talk("What?", system=3), "has the system field 3; it must be text", "content"),
    "a missing image": (talk("<image>", image="c.png"), "there is no picture at c.png", "missing image"),
    "a folder as image": (talk("<image>", image="."), "is not a file", "unreadable image"),
    "a NUL in a path": (
        talk("<image>", image="a\0.png"),
        "cannot be read: embedded null byte",
        "unreadable image",
    ),
    "half a letter in a path": (talk("<image>", image="\ud800.png"), "cannot be read", "unreadable image"),
    "a name of 300 letters": (talk("<image>", image="x" * 300), "File name too long", "unreadable image"),
    "an http URL": (talk("<image>", image="https://x.org/a.png"), "nothing is downloaded", "missing image"),
    "a file URL of another machine": (
        talk("<image>", image="file://x.org/a.png"),
        "of another machine",
        "missing image",
    ),
    "a data URL without base64": (
        talk("<image>", image="data:image/png,abc"),
        "without ';base64,'",
        "unreadable image",
    ),
    "broken base64 under its own key": (
        talk([{"type": "image", "base64": "a%%b"}, "What?"]),
        "turn 1 is no base64: it has '%'",
        "unreadable image",
    ),
    "base64 that is no text": (
        talk([{"type": "image", "base64": 3}, "What?"]),
        "has the base64 3; it must be text",
        "image form",
    ),
    "an empty name of an image": (
        talk("What?", image=""),
        "has an empty name of an image",
        "image form",
    ),
    "an empty name among images": (
        talk("<image>", images=[""]),
        "has an empty name of an image",
        "image form",
    ),
    "an empty name in an item": (
        talk([{"type": "image", "image": ""}, "What?"]),
        "has an empty name of an image",
        "image form",
    ),
    "broken base64": (
        talk("<image>", image="data:image/png;base64,a%%b"),
        "is no base64",
        "unreadable image",
    ),
    "half a letter": (talk("a\ud800b"), "has text with half a letter, '\\ud800'", "text"),
    "half a letter in the system": (talk("x", system="\udc00"), "has text with half a letter", "text"),
    "too many turns": (
        lambda: {"messages": talk("x")["messages"] * 5001},
        "has 10,002 turns; at most 1,000 are read",
        "turns",
    ),
    "learnt is a word": (
        {"messages": [{"role": "user", "content": "x"}, {**ANSWER, "loss": "yes"}]},
        "whether it is learnt is yes; it must be true or false",
        "turns",
    ),
    "a question to be learnt": (
        {"messages": [{"role": "user", "content": "x", "train": True}, ANSWER]},
        "is to be learnt, but only turns of an assistant are",
        "turns",
    ),
    "an image that is not to be learnt": (
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "<image>", "loss": False},
                *talk("x")["messages"],
            ],
            "image": "a.png",
        },
        "writes an image, which cannot be left out",
        "turns",
    ),
}
CALL = {"id": "c1", "type": "function", "function": {"name": "price", "arguments": "{}"}}
# What makes a record unfit for training, though a conversation may be so.
UNTAUGHT = {
    "no answer": ({"messages": [{"role": "user", "content": "x"}]}, "no turn of an assistant", "turns"),
    "no answer to learn": (
        {"messages": [{"role": "user", "content": "x"}, {**ANSWER, "loss": False}]},
        "there is nothing to learn",
        "turns",
    ),
    "an empty answer": (talk("What?", ""), "has an empty answer (message 2)", "empty"),
    "an answer of spaces": (talk("What?", " \n"), "has an empty answer (message 2)", "empty"),
    "an answer of no items": (talk("What?", []), "has an empty answer (message 2)", "empty"),
    "a first answer that is empty": (
        {"messages": [*talk("x", "")["messages"], *talk("y")["messages"]]},
        "has an empty answer (message 2)",
        "empty",
    ),
    "an empty document": (
        {"messages": [{"role": "document", "content": ""}]},
        "has an empty document (message 1)",
        "empty",
    ),
    "a last question without an answer": (
        {"messages": [*talk("x")["messages"], {"role": "user", "content": "y"}]},
        "ends with a turn of the user, to which there is no answer",
        "turns",
    ),
    "a last turn of the system": (
        {"messages": [*talk("x")["messages"], {"role": "system", "content": "y"}]},
        "ends with a turn of the system",
        "turns",
    ),
    "two questions in a row": (
        {"messages": [*talk("x")["messages"][:1], *talk("x")["messages"]]},
        "must alter",
        "turns",
    ),
    "calls of tools": (
        {
            "messages": [
                {"role": "user", "content": "x"},
                {**ANSWER, "tool_calls": [CALL]},
                {"role": "tool", "content": "4", "tool_call_id": "c1"},
                ANSWER,
            ]
        },
        "turn 2 has the unknown key 'tool_calls'",
        "unknown key",
    ),
    "the answer of a tool": (
        {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "4"}, ANSWER]},
        "turn 2 has the role 'tool'",
        "role",
    ),
    "which call a turn answers": (
        {"messages": [{"role": "user", "content": "x", "tool_call_id": "c1"}, ANSWER]},
        "turn 1 has the unknown key 'tool_call_id'",
        "unknown key",
    ),
    "too large": (talk("x" * 3000), "more than the source's record_bytes: 2000", "too large"),
    "nested too deeply": ("[" * 1900, "is n", "not JSON"),
}


@pytest.mark.parametrize("form", {**BROKEN, **UNTAUGHT})
def test_a_broken_record_is_an_error_that_names_it_or_skipped_and_counted(form):
    record, message, kind = {**BROKEN, **UNTAUGHT}[form]
    record = record() if callable(record) else record
    options = {"record_bytes": 2000} if form in ("too large", "nested too deeply") else {}
    good = talk("What?")
    if form == "not UTF-8 text":
        source(good)
        with open("talk.jsonl", "ab") as file:
            file.write(b'{"a": "\xff"}\n' + json.dumps(good).encode())

        def read(**options):
            return Chat(path="talk.jsonl", **options)
    else:

        def read(**options):
            return source(good, record, good, **options)

    with pytest.raises(DataError) as error:
        read(**options)
    assert message in str(error.value)
    assert "sample 2 of talk.jsonl" in str(error.value)
    assert len(str(error.value)) < 400
    str(error.value).encode()
    left = read(**options, broken="skip")
    assert (len(left), left.skipped) == (2, {kind: 1})
    assert left[1][0].name == "sample 3 of talk.jsonl"


@pytest.mark.parametrize(
    "form", [name for name, (record, _, _) in BROKEN.items() if not isinstance(record, str)]
)
def test_what_is_broken_in_a_file_is_so_in_chat(form):
    record, message, _ = BROKEN[form]
    with pytest.raises(DataError) as error:
        as_messages(record() if callable(record) else record)
    assert message in str(error.value)


def file_of(format):
    image = Image.new("RGB", (5, 3), "red")
    modes = {"PBM": "1", "PGM": "L"}
    file = io.BytesIO()
    kind = "PPM" if format in modes else format
    image.convert(modes.get(format, "RGB")).save(file, format=kind)
    return file.getvalue()


FILES = {format: file_of(format) for format in (*FORMATS, "PBM", "PGM")} | {
    "PPM in letters": b"P3\n5 3\n255\n" + b"255 0 0 " * 15,
    "old BMP": b"BM" + bytes([74, 0, 0, 0, 0, 0, 0, 0, 26, 0, 0, 0, 12, 0, 0, 0, 5, 0, 3, 0, 1, 0, 24, 0])
    + bytes(48),
}  # fmt: skip


@pytest.mark.parametrize("content", ["", "  ", [], [" "], [{"text": ""}]])
def test_an_answer_to_nothing_is_not_learnt(content):
    more = [{"role": "user", "content": content}, ANSWER]
    for record, number in ((talk(content), 1), ({"messages": [*talk("What?")["messages"], *more]}, 3)):
        with pytest.raises(DataError, match=rf"empty question \(message {number}\): there is nothing to ans"):
            source(record)
    skipping = source(talk(content), talk("What?"), broken="skip")
    assert (len(skipping), skipping.skipped) == (1, {"empty": 1})


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
@pytest.mark.parametrize("format", FILES)
def test_bare_base64_of_every_format_is_an_image(format, encode):
    text = encode(FILES[format]).decode()
    for part in ({"image": text}, {"base64": text}, {"image_url": {"url": f"data:image/png;base64,{text}"}}):
        assert as_messages([{"role": "user", "content": [part]}])[0].content[0].size == (3, 5)


@pytest.mark.parametrize(
    "start", ["Qk0xYmFyZm9v", "UDEwYmFyZm9vYmFy", "photos/cat", "QkM3", "9j4AAQSkZJRgAA"]
)
def test_the_name_of_a_file_is_no_base64(start, folder):
    path = folder / start
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(FILES["PNG"])
    assert as_messages([{"role": "user", "content": [{"image": start}]}])[0].content[0].size == (3, 5)


@pytest.mark.parametrize("name", ["image", "base64"])
def test_base64_of_what_is_no_image_is_not_printed(name):
    secret = base64.b64encode(b"%PDF-1.7 a letter to a friend " * 10).decode()
    with pytest.raises(DataError) as error:
        as_messages([{"role": "user", "content": [{name: secret}]}])[0].content[0].size  # noqa: B018
    assert secret[:6] not in str(error.value)
    assert secret[-6:] not in str(error.value)


def test_an_error_never_prints_a_picture():
    broken = "data:image/png;base64," + "QUJD" * 10_000 + "%"
    for content in (
        broken,
        [{"type": "video", "image": broken}],
        {"x": broken},
        [[broken]],
        [{"image": [broken]}],
    ):
        with pytest.raises(DataError) as error:
            as_messages([{"role": "user", "content": [{"image": content}]}])
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("key", ["loss", "weight", "train"])
@pytest.mark.parametrize(
    ("value", "learnt"), [(False, False), (0, False), (True, True), (1, True), (None, True)]
)
def test_a_turn_says_whether_it_is_learnt(key, value, learnt):
    record = {"messages": [*talk("x")["messages"], *talk("y")["messages"]]}
    record["messages"][1] = {**record["messages"][1], key: value}
    messages = source(record)[0][0].messages
    assert [m.learnt for m in messages if m.role == "assistant"] == [learnt, True]


def test_ignored_keys_are_those_of_the_source():
    record = talk([{"type": "text", "text": "What?", "cache_control": 1}], score=3)
    record["messages"][1]["score"] = 4
    assert shape(source(record, ignore=("score", "cache_control"))[0][0].messages) == PLAIN
    with pytest.raises(DataError, match=r"'score'; known: .*list it under the source's 'ignore'"):
        source(record, ignore=("cache_control",))


def test_images_outside_the_folder_need_an_option(folder):
    (folder / "in").mkdir()
    (folder / "in" / "link.png").symlink_to(folder / "a.png")
    (folder / "in" / "inner.png").symlink_to(folder / "in" / "real.png")
    Image.new("RGB", (8, 6), COLOURS["a.png"]).save(folder / "in" / "real.png")
    for path in ("../a.png", str(folder / "a.png"), "link.png", f"file://{folder}/a.png", "../in/../a.png"):
        record = talk("<image>What?", image=path)
        with pytest.raises(
            DataError, match="lies outside the folder in; if that is meant, set outside: true"
        ):
            source(record, images="in")
        assert shape(source(record, images="in", outside=True)[0][0].messages) == ONE
    for path in ("real.png", "inner.png", "../in/real.png", str(folder / "in" / "real.png")):
        assert shape(source(talk("<image>What?", image=path), images="in")[0][0].messages) == ONE


PLACEHOLDERS = (
    "<img>a.png</img> What?", "<video>", "<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>",
    "<image_1>", "<|image_1|>", "<image 1>", "<Image>", "<image/>", "(<image>./</image>)", "<IMG_CONTEXT>",
    "[IMG]", "[IMG_BREAK]", "<start_of_image>", "<image_soft_token>", "<ImageHere>", "<image_placeholder>",
    "<fake_token_around_image>", "<im_patch>", "<|media_pad|>", "<|AUDIO|>", "<audio>", "<vila/video>",
)  # fmt: skip
WORDS = (
    '<img src="a.png">', "List<Image>", "#include <video.h>", "[image]", "an image", "x <image of> y", "</s>",
)  # fmt: skip


@pytest.mark.parametrize("text", PLACEHOLDERS)
@pytest.mark.parametrize("place", ["question", "item", "answer", "system"])
def test_a_placeholder_of_another_format_is_no_word(text, place):
    words = text.replace("<image>", "<image_1>")  # which is a marker here, and would want an image
    record = {
        "question": talk(f"Look: {words}"),
        "item": talk([{"type": "text", "text": words}]),
        "answer": talk("What?", words),
        "system": talk("What?", system=words),
    }[place]
    with pytest.raises(DataError, match=r"a placeholder of another format; an image is written <image>"):
        source(record)
    assert source(record, talk("What?"), broken="skip").skipped == {"placeholder": 1}
    for option in ("placeholders", "special_tokens"):
        assert len(source(record, **{option: True})) == 1
    if place == "question":
        with pytest.raises(DataError, match=r"a placeholder of another format|though it names a\.png"):
            as_messages(record)
        meant = as_messages([{"role": "user", "content": [{"text": words}]}])
        assert shape(meant) == [("user", words)]


@pytest.mark.parametrize("text", WORDS)
def test_what_only_has_brackets_is_words(text):
    assert shape(source(talk(text))[0][0].messages) == [("user", text), ("assistant", "red")]


def test_the_number_of_turns_is_bounded_by_an_option():
    record = {"messages": talk("x")["messages"] * 3}
    with pytest.raises(DataError, match=r"has 6 turns; at most 4 are read \(a source's most_turns\)"):
        source(record, most_turns=4)
    assert len(source(record, most_turns=6)) == 1


def test_an_array_of_pixels_is_an_image():
    array = np.zeros((6, 8, 3), np.uint8)
    array[..., 0] = 255
    for content in ([array, "What?"], [{"image": array}, "What?"], [{"image": array, "text": "What?"}]):
        assert shape(as_messages([{"role": "user", "content": content}])) == ONE[:1]
    assert shape(as_messages({**talk("<image>What?"), "images": [array]})) == ONE
    assert shape(as_messages({**talk("<image>What?"), "image": array})) == ONE


@pytest.mark.parametrize(
    "array",
    [np.zeros((6, 8, 3)), np.zeros((3, 6, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), np.zeros(3, "O")],
    ids=["floats", "channels first", "no pixels", "objects"],
)
def test_another_array_is_a_sentence(array):
    for content in (array, [array], [{"image": array}], {"image": array}):
        with pytest.raises(DataError, match="must be of uint8, and height x width x 3"):
            as_messages([{"role": "user", "content": content}])


@pytest.mark.parametrize("messages", [3, None, b"x", np.zeros(3), {}, [], ()])
def test_a_conversation_that_is_none_is_a_sentence(messages):
    with pytest.raises(DataError, match=r"the conversation (is|has)"):
        as_messages(messages)


@pytest.mark.parametrize("message", ["", "  ", [{"role": "user", "content": []}], talk("x", "")])
def test_nothing_is_no_question(message):
    with pytest.raises(DataError, match="is empty: there is nothing to answer"):
        as_messages(message)


def test_hostile_records_end_in_a_sentence():
    deep = "[" * 100_000
    for name, text in {"talk.jsonl": deep, "talk.json": f"[{deep}"}.items():
        with open(name, "w", encoding="ascii") as file:
            file.write(text)
        with pytest.raises(DataError, match="is nested too deeply"):
            Chat(path=name)
    many = '{"messages": [' + ",".join(['{"role": "user", "content": "a"}'] * 1_000_000) + "]}"
    with pytest.raises(DataError, match="record_bytes"):
        source(many)


def test_a_line_without_end_is_not_held(folder):
    with open("talk.jsonl", "wb") as file:
        file.write(b"x" * 5_000_000 + b"\n" + json.dumps(talk("What?")).encode())
    left = Chat(path="talk.jsonl", broken="skip", record_bytes=1000)
    assert left.skipped == {"too large": 1}
    assert left[0][0].name == "sample 2 of talk.jsonl"


@pytest.mark.timeout(120)  # a pipe without a writer would wait for ever
def test_a_data_file_that_is_none_is_a_sentence(folder):
    os.mkfifo("pipe.jsonl")
    for path in ("pipe.jsonl", ".", "/dev/zero", "none.jsonl", "a\0b", "x" * 300):
        with pytest.raises(DataError, match=r"the data file .* (is not a file|cannot be read)"):
            Chat(path=path)


PICTURE = {"image": "cat.png"}
CATS = {"image": "照片/猫.png"}
MESSAGES = {
    "cat.png what is this": [PICTURE, "what is this"],
    "What is in cat.png?": ["What is in", PICTURE, "?"],
    "Look at cat.png, please": ["Look at", PICTURE, ", please"],
    "(cat.png)": ["(", PICTURE, ")"],
    "cat.png里有什么？": [PICTURE, "里有什么？"],
    "看cat.png，里有什么？": ["看", PICTURE, "，里有什么？"],
    "左上角是什么，./cat.png": ["左上角是什么，", {"image": "./cat.png"}],
    "请看：a/cat.png": ["请看：", {"image": "a/cat.png"}],
    "见てcat.pngを": ["见て", PICTURE, "を"],
    "看照片/猫.png和照片/猫.png。": ["看", CATS, "和", CATS, "。"],
    "照片/猫.png是什么": [CATS, "是什么"],
    "照片/没有.png": [{"image": "照片/没有.png"}],
    "图（1）.png": [{"image": "图（1）.png"}],
    "看a/没有b.png": ["看", {"image": "a/没有b.png"}],
    "Compare cat.png, and cat.png.": ["Compare", PICTURE, ", and", PICTURE, "."],
    "Compare cat.png,cat.png": ["Compare", PICTURE, ",", PICTURE],
    'Say "hello" about cat.png': ['Say "hello" about', PICTURE],
    'Say "look at cat.png"': ['Say "look at', PICTURE, '"'],
    'What is in "cat.png"?': ["What is in", PICTURE, "?"],
    "What's in 'my cat.png'?": ["What's in", {"image": "my cat.png"}, "?"],
    "What's in my\\ cat.png?": ["What's in", {"image": "my cat.png"}, "?"],
    "CAT.PNG": [{"image": "CAT.PNG"}],
    "a/b.c/cat.jpeg!": [{"image": "a/b.c/cat.jpeg"}, "!"],
    "photo(1).avif and x.jfif": [{"image": "photo(1).avif"}, "and", {"image": "x.jfif"}],
    "See https://x.org/cat.png": ["See", {"image": "https://x.org/cat.png"}],
    "data:image/png;base64,iVBO/+= ?": [{"image": "data:image/png;base64,iVBO/+="}, "?"],
    "No file here, nor cat.png.zip or x.pngs": ["No file here, nor cat.png.zip or x.pngs"],
    "  two  spaces ": ["  two  spaces "],
}


@pytest.mark.parametrize("message", MESSAGES)
def test_paths_in_a_message_become_images_whatever_stands_behind_them(message, folder):
    os.mkdir("照片")
    for name in ("my cat.png", "照片/猫.png"):
        Image.new("RGB", (2, 2)).save(name)
    assert list(path_items(message)) == MESSAGES[message]


def test_a_long_message_is_searched_in_little_time():
    """Without bounds, the search takes the square of the length: hours."""
    for text in (
        "a" * 300_000 + ".png.",
        "a," * 100_000 + "x.png.zip",
        "'" * 50_000 + ".pngx",
        "看" * 300_000 + ".png",
    ):
        list(path_items(text))


def test_strings_in_chat_are_words_or_a_path_but_never_a_guess():
    def user(content):
        return shape(as_messages([{"role": "user", "content": content}]))[0][1:]

    assert user(["What is this?", "a.png"]) == ("What is this?", "a.png")
    assert user([{"text": None, "image": "a.png"}]) == ("a.png",)
    assert user([{"text": "What is a.png?"}]) == ("What is a.png?",)
    assert user("What is a PNG?") == ("What is a PNG?",)
    for content in (
        "a.png",
        "What is in a.png?",
        ["What is in a.png?"],
        ["What is in nosuch.png"],
        "(nosuch.png)",
    ):
        with pytest.raises(DataError, match=r"there is no picture at .* give a picture as"):
            user(content)
    with pytest.raises(DataError, match=r"there is no picture at nosuch\.png"):
        user(["What?", "nosuch.png"])
    answer = as_messages([{"role": "user", "content": "x"}, {"role": "assistant", "content": ["See a.png"]}])
    assert shape(answer)[1] == ("assistant", "See a.png")


def test_chat_takes_objects_and_bytes():
    with open("a.png", "rb") as file:
        data = file.read()
    for given in (
        data,
        Image.open("a.png"),
        {"image": data},
        {"type": "image", "image": Image.open("a.png")},
    ):
        assert shape(as_messages([{"role": "user", "content": [given, "What?"]}]))[0] == ONE[0]


def test_a_key_that_stands_twice_among_very_many_is_found_in_little_time():
    keys = ",".join(f'"k{i}": 1' for i in range(100_000))
    began = time.process_time()
    with pytest.raises(DataError, match="the key 'k99999' stands twice in one object"):
        source("{" + keys + ', "k99999": 2}')
    assert time.process_time() - began < 5


@pytest.mark.parametrize("image", ["file://[x/a.png", "file://[::1/a.png"])
def test_an_image_whose_url_is_none_is_a_sentence(image):
    with pytest.raises(DataError, match="which is no URL"):
        source(talk("<image>What?", image=image))


def test_a_path_in_the_terminal_that_no_file_can_have_is_a_sentence():
    for message in ("~nobody\0x.png", "~/\0.png", "'a\0b.png'", "\ud800.png"):
        parts = [{"text": each} if isinstance(each, str) else each for each in items(message)]
        with pytest.raises(DataError, match=r"cannot be read|there is no picture"):
            as_messages([{"role": "user", "content": parts}])
