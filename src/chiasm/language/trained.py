"""Text tokenizers that are trained on a recipe's own texts, once for each corpus: runs share them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from chiasm.data.corpus import Corpus
from chiasm.language.templates import ANSWER
from chiasm.recipe import write_text
from chiasm.storage.cache import default_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>", ANSWER)


def trained(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of at most `vocabulary` tokens. A corpus is read once; then the cache has it."""
    from tokenizers import Tokenizer

    if not isinstance(texts, Corpus):
        return _train(texts, vocabulary)
    path = _place(texts, vocabulary)
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # whatever the library raises where there is none, or one that cannot be read
        tokenizer = _train(texts, vocabulary)
        with suppress(OSError):  # a cache that cannot be written only costs time
            write_text(path, tokenizer.to_str())
        return tokenizer


def _place(texts: Corpus, vocabulary: int) -> Path:
    import tokenizers

    record = repr((texts.fingerprint, vocabulary, SPECIAL, tokenizers.__version__))
    return default_folder() / "tokenizers" / f"{blake2b(record.encode(), digest_size=16).hexdigest()}.json"


def _train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    return tokenizer
