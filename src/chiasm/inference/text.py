"""Which word comes next: greedy, or drawn at a temperature among the likeliest; and where a text ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.heads.sampling import Sampling, choose
from chiasm.nn.generators import WORDS, Generators
from chiasm.sequence import Document, Kind

if TYPE_CHECKING:
    from chiasm.language.text import TextTokenizer


@dataclass(frozen=True)
class WordSampling:
    """How the words of an answer are chosen.

    temperature: 0 = always the likeliest.
    top_k: draw among the k likeliest; 0 = all.
    top_p: draw among the fewest likeliest whose chances reach p together (arXiv 1904.09751); 1 = all.
    repetition_penalty: by how much a word that stands in the conversation already is less likely: its logit is
        divided by it, or multiplied where it is below 0 (CTRL, arXiv 1909.05858); 1 = none.
    stop: texts any of which ends an answer, and is no part of it.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()

    def text(self, tokenizer: TextTokenizer, ids: Sequence[int]) -> tuple[str, bool]:
        """The text of an answer up to what ends it, and whether that is there."""
        text, ended = tokenizer.answer(ids)
        begins = [text.index(stop) for stop in self.stop if stop in text]
        return (text[: min(begins)], True) if begins else (text, ended)

    @property
    def penalises(self) -> bool:
        return self.repetition_penalty != 1

    def held_back(self, tokenizer: TextTokenizer) -> int:
        """How many letters at the end of a text may be the beginning of what ends it; 0 = only a token ends it."""
        return max(0, *(len(text) for text in (*self.stop, tokenizer.end_text)))


def choose_words(
    logits: Float[Tensor, "n v"],
    sampling: WordSampling,
    seeds: Sequence[int],
    place: int,
    seen: Sequence[Sequence[int]],
) -> list[int]:
    """The id of the next word in each row.

    seeds: of each row.
    place: how many words of the answer stand before it; how one is drawn depends on seed and place alone.
    seen: ids that stand in each row's conversation.
    """
    if sampling.penalises:
        logits = penalised(logits, sampling.repetition_penalty, seen)
    drawn = Sampling(1.0, sampling.temperature, sampling.top_k, sampling.top_p)
    generators = Generators(seeds, WORDS + place) if sampling.temperature else None
    return choose(logits, drawn, generators).tolist()  # type: ignore[no-any-return]


def penalised(
    logits: Float[Tensor, "n v"], penalty: float, seen: Sequence[Sequence[int]]
) -> Float[Tensor, "n v"]:
    """The logits, with words that stand there already made less likely."""
    logits = logits.clone()
    for row, ids in enumerate(seen):
        at = torch.tensor(sorted(set(ids)), dtype=torch.long, device=logits.device)
        values = logits[row, at]
        logits[row, at] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def words_of(document: Document, tokenizer: TextTokenizer) -> list[int]:
    """The ids of a document's words, without what ends an answer or begins an image."""
    markers = tokenizer.ends | {*tokenizer.before_picture}
    pairs = zip(document.ids, document.kinds, strict=True)
    return [id for id, kind in pairs if kind == Kind.TEXT and id not in markers]
