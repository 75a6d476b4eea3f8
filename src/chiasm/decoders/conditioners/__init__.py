"""From a target to what a denoiser is conditioned on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from chiasm.decoders import TextCodec, WordReader
from chiasm.decoders.conditions import Condition
from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts import Part
from chiasm.tokenizers.spaces import Space, WordIds


@dataclass(frozen=True)
class ConditionerContext:
    """What a conditioner is built with.

    space: of the targets; None = of whatever it takes. token_width: of the tokens that the denoiser attends to.
    pooled_width: of the pooled vector that it reads too; None = it reads none.
    reader: of words, where a language model writes them.
    phrase_width: of the phrases that say what is in a box; None = the denoiser reads no boxes.
    """

    space: Space | None
    token_width: int
    pooled_width: int | None = None
    reader: WordReader | None = None
    phrase_width: int | None = None

    def words(
        self, conditioner: str, length: int, head: str = "{type: caption, alphabet: {type: words}}"
    ) -> WordIds:
        """So many words of the language model; raises RecipeError where there is none. head: what writes them."""
        if self.reader is None:
            raise RecipeError(
                f"conditioner {conditioner!r} reads the words of a language model, but nothing here writes any; "
                f"heads.image must be {head}"
            )
        size = self.reader.vocabulary_size
        return WordIds((1, length), size, end=size)

    @property
    def codec(self) -> TextCodec:
        """The language model's, where there is one (see `words`)."""
        assert self.reader is not None
        return self.reader.tokenizer


class Conditioner(Part, nn.Module, slot="conditioner"):
    """Interface. Built as `Conditioner(context, *, options)`.

    space: of the targets that it takes; of vectors, without a grid where any number of them will do.
    caption_words: how many words its `caption_losses` read; 0 = it has none.
    mixtures: it takes mixtures of words too, "n 1 k v", through which a gradient flows.
    """

    space: Space
    mixtures: bool = False
    caption_words: int = 0

    @abstractmethod
    def forward(self, target: Tensor) -> Condition:
        """The condition of targets, with the pooled vector as `text_embeds` where the denoiser reads one."""

    def check_words(self, text: str, called: str) -> None:
        """Raises DataError for words that it would not read to their end. called: what they are."""

    def caption_losses(self, target: Tensor, words: Int[Tensor, "n k"]) -> dict[str, Loss]:
        """Losses by name of targets against the words before their images; -1 stands behind the last."""
        return {}

    def learners(self) -> Mapping[str, nn.Module]:
        """What a stage that trains the decoder changes of it, by name; "" = all."""
        return {"": self}

    def empty(self, condition: Condition) -> Condition:
        """What guidance leads away from, of the shape of `condition`: zeros, where nothing else is learnt."""
        added = {name: torch.zeros_like(each) for name, each in (condition.added or {}).items()}
        return condition._replace(tokens=torch.zeros_like(condition.tokens), added=added or None)
