"""Qwen's tokenizer file, `qwen.tiktoken`, as a fast tokenizer (arXiv 2309.16609, 2308.12966).

A line has a token, in base 64, and its number. The regular expression and the special tokens behind stand in the
original's code, which is not run.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from chiasm.errors import CheckpointError

FILE = "qwen.tiktoken"
END = "<|endoftext|>"
PIECES = (  # what texts are split into; the same as Qwen2's
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PAIRS = ("ref", "box", "quad", "img")
SPECIAL = (
    END,
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|extra_{number}|>" for number in range(205)),
    *(f"<{slash}{name}>" for name in PAIRS for slash in ("", "/")),  # of Qwen-VL
    "<imgpad>",
)


def qwen_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of the file; raises CheckpointError naming a line that is none of its form."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    ranks = _ranks(path)
    letters = bytes_to_unicode()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    vocabulary = {written[token]: rank for token, rank in ranks.items()}
    merges = [(written[a], written[b]) for token in ranks for a, b in _parts(token, ranks)]
    inner = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=END)


def _ranks(path: Path) -> dict[bytes, int]:
    """Each token's number, in their order."""
    ranks: dict[bytes, int] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(filter(None, lines)):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            rank = b"-1"
        if int(rank) != number or len(ranks) != number + 1:
            raise CheckpointError(
                f"{path}: line {number + 1} is not a token in base 64 and its number, {number}, as in Qwen's file"
            )
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise CheckpointError(f"{path} lacks {len(missing)} of the 256 bytes, the first of them {missing[0]}")
    return ranks


def _parts(token: bytes, ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pairs of tokens that are merged to this one, those of low numbers first."""
    pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
    splits = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
    return sorted(splits, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
