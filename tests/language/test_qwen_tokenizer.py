"""Qwen's tokenizer file: tokens by its numbers, its special tokens behind, and lines that are none of it."""

import base64

import pytest

from chiasm.errors import CheckpointError
from chiasm.language.text import TextTokenizer
from chiasm.language.tokenizer_folder import load_tokenizer

MERGED = [b"lo", b"low", b" low", b"er", b"lower", "\u4f4e".encode()[:2], "\u4f4e".encode()]


def written(folder, tokens=MERGED):
    every = [*(bytes([byte]) for byte in range(256)), *tokens]
    lines = [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(every)]
    (folder / "qwen.tiktoken").write_bytes(b"\n".join(lines) + b"\n")
    return folder


def test_pairs_are_merged_by_their_numbers(tmp_path):
    tokenizer = load_tokenizer(written(tmp_path))
    ids = {token: 256 + place for place, token in enumerate(MERGED)}
    expected = [ids[b"low"], ids[b" low"], ord("!"), ids[MERGED[-1]], ord("l"), ids[b"er"]]
    text = "low low!\u4f4eler"
    assert tokenizer.encode(text) == expected
    assert tokenizer.decode(expected) == text
    assert tokenizer.encode("lower 12") == [
        ids[b"lower"],
        ord(" "),
        ord("1"),
        ord("2"),
    ]  # each digit by itself
    assert tokenizer.decode(tokenizer.encode("\u00e9 \U0001f600\r\n\n x")) == "\u00e9 \U0001f600\r\n\n x"


def test_special_tokens_stand_behind_in_the_originals_order(tmp_path):
    tokenizer, first = load_tokenizer(written(tmp_path)), 256 + len(MERGED)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_0|>"]
    assert tokenizer.convert_tokens_to_ids(names) == [first, first + 1, first + 2, first + 3]
    behind = [
        "<|extra_204|>",
        "<ref>",
        "</ref>",
        "<box>",
        "</box>",
        "<quad>",
        "</quad>",
        "<img>",
        "</img>",
        "<imgpad>",
    ]
    assert tokenizer.convert_tokens_to_ids(behind) == list(range(first + 207, first + 217))
    assert tokenizer.eos_token == "<|endoftext|>"


def test_it_is_saved_as_a_fast_tokenizer(tmp_path):
    (tmp_path / "ours").mkdir()
    tokenizer = TextTokenizer.load(written(tmp_path), plain=True)
    tokenizer.save(tmp_path / "ours")
    text = "lower low<img>low"
    assert TextTokenizer.load(tmp_path / "ours").encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("line", [b"bG8=", b"bG8= two", b"bG8= 300", b"b!8= 256", b"QQ== 256"])
def test_a_line_of_another_form_is_named(tmp_path, line):
    path = written(tmp_path, []) / "qwen.tiktoken"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(CheckpointError, match="line 257 is not a token in base 64 and its number, 256"):
        load_tokenizer(tmp_path)


def test_a_file_that_cannot_write_every_byte_is_refused(tmp_path):
    (tmp_path / "qwen.tiktoken").write_bytes(base64.b64encode(b"a") + b" 0\n")
    with pytest.raises(CheckpointError, match="lacks 255 of the 256 bytes, the first of them 0"):
        load_tokenizer(tmp_path)
