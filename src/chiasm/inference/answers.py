"""Answers in words, a batch at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.data.documents import document
from chiasm.data.sample import Sample
from chiasm.inference.engine import Engine
from chiasm.inference.requests import Extend, Keep, Read, Request, Steps, Wish
from chiasm.inference.text import WordSampling, choose_words, words_of
from chiasm.sequence import Document

if TYPE_CHECKING:
    from chiasm.model import Model


class Answer(str):
    """The text of an answer. cut: a limit (of tokens, or the context) came before its end."""

    cut: bool = False

    @classmethod
    def of(cls, text: str, *, cut: bool) -> Answer:
        answer = cls(text)
        answer.cut = cut
        return answer


def is_cut(text: str) -> bool:
    """Whether a text is an answer before whose end a limit came."""
    return isinstance(text, Answer) and text.cut


class Answers(Request):
    """An answer in words, without images, to each of some prompts.

    A row whose answer has ended leaves the others.
    """

    images = False  # whether an answer may begin one

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Document],
        *,
        tokens: int,
        sampling: WordSampling | None = None,
        seeds: Sequence[int] = (),
    ):
        super().__init__()
        self.model, self.prompts = model, prompts
        self.sampling = sampling or WordSampling()
        self.seeds = seeds or [0] * len(prompts)
        self.limits = [max(1, min(tokens, model.language.context - len(prompt))) for prompt in prompts]
        self.ids: list[list[int]] = [[] for _ in prompts]
        self._ends = model.language.tokenizer.ends

    @property
    def rows(self) -> int:
        return len(self.prompts)

    @property
    def positions(self) -> int:
        return max(map(len, self.prompts), default=0) + max(self.limits, default=0)

    def steps(self) -> Steps:
        rows = [row for row in range(len(self.prompts)) if not self._ended(row)]
        if rows:
            hidden = yield from self._begin(rows)
        while rows:
            self._choose(rows, hidden)
            going = [i for i, row in enumerate(rows) if not self._ended(row)]
            if len(going) < len(rows):
                yield Keep(going)
                rows = [rows[i] for i in going]
            if rows:
                hidden = (yield self._words(rows, 1))[:, -1]
        return [self._answer(row) for row in range(len(self.prompts))]

    def _begin(self, rows: Sequence[int]) -> Generator[Wish, Any, Float[Tensor, "r d"]]:
        """Read the prompts of some rows, and the words that they have all got before what stopped them."""
        hidden = yield Read([self.prompts[row] for row in rows])
        count = min(len(self.ids[row]) for row in rows)
        for row in rows:
            del self.ids[row][count:]
        return (yield self._words(rows, count))[:, -1] if count else hidden

    def _choose(self, rows: Sequence[int], hidden: Float[Tensor, "r d"]) -> None:
        """One more word in each row."""
        logits = self.model.text_logits(hidden, images=self.images)
        place = len(self.ids[rows[0]])
        seen = [self._seen(row) for row in rows if self.sampling.penalises]
        seeds = [self.seeds[row] for row in rows]
        for row, id in zip(rows, choose_words(logits, self.sampling, seeds, place, seen), strict=True):
            self.ids[row].append(id)

    def _seen(self, row: int) -> list[int]:
        return [*words_of(self.prompts[row], self.model.language.tokenizer), *self.ids[row]]

    def _words(self, rows: Sequence[int], count: int) -> Extend:
        """The last words of each row's answer."""
        ids = torch.tensor([self.ids[row][-count:] for row in rows], device=self.model.device)
        return Extend.words(self.model.language.embed(ids))

    def _ended(self, row: int) -> bool:
        ids = self.ids[row]
        if not ids:
            return False
        if ids[-1] in self._ends or len(ids) >= self.limits[row]:
            return True
        tokenizer = self.model.language.tokenizer
        return bool(self.sampling.held_back(tokenizer)) and self.sampling.text(tokenizer, ids)[1]

    def _answer(self, row: int) -> Any:
        text, whole = self.sampling.text(self.model.language.tokenizer, self.ids[row][: self.limits[row]])
        return Answer.of(text.strip(), cut=not whole)


def answers(
    model: Model,
    samples: Sequence[Sample],
    *,
    tokens: int = 32,
    sampling: WordSampling | None = None,
    seeds: Sequence[int] = (),
) -> list[Answer]:
    """Answers in words to samples that end with the user's message; greedy unless `sampling` says otherwise."""
    prompts = [document(model.contract, sample, prompt=True) for sample in samples]
    request = Answers(model, prompts, tokens=tokens, sampling=sampling, seeds=seeds)
    return Engine(model).submit(request).result()  # type: ignore[no-any-return]
