"""Words of the language model as the tokens of a denoiser, by a public text encoder that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from chiasm.decoders.conditioners import Conditioner, ConditionerContext
from chiasm.decoders.conditioners.words import words_mask, written_out
from chiasm.decoders.conditions import Condition
from chiasm.decoders.text_encoder import PublicTextEncoder
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Tokens
from chiasm.tokenizers.spaces import WordIds


class TextModel(PublicTextEncoder, Conditioner, name="text_model"):
    """CLIP's text tower (Stable Diffusion, arXiv 2112.10752) or T5's encoder (Imagen, 2205.11487), frozen.

    The language model's words are written out as text, which the encoder's own tokenizer reads; of what a model
    writes that is longer than `length`, the end is lost. The last hidden states are the tokens. What guidance leads
    away from is the empty text.

    Args:
        checkpoint: a local folder or hub name of the encoder; of CLIP's two towers the text's is taken.
        tokenizer: likewise, of its tokenizer; null = it lies beside the encoder.
        config: instead of a checkpoint, from scratch: a transformers config with its `model_type`.
        length: tokens of the encoder, to which every text is padded.
        words: most words of the language model that are written out.
        projected: a learnt projection to the denoiser's width stands behind it; else both have one width.
        tokenizer_bytes: of the tokenizer's file that a saved model holds among its weights; null = read it.
    """

    space: WordIds

    def __init__(
        self,
        context: ConditionerContext,
        *,
        checkpoint: str | None = None,
        tokenizer: str | None = None,
        config: dict[str, Any] | None = None,
        length: Tokens = 77,
        words: Tokens = 77,
        projected: bool = False,
        tokenizer_bytes: Tokens | None = None,
    ):
        space = context.words(self.name, words)
        who = f"conditioner {self.name!r}"
        super().__init__(
            who,
            checkpoint=checkpoint,
            tokenizer=tokenizer,
            config=config,
            length=length,
            tokenizer_bytes=tokenizer_bytes,
        )
        self.space, self.codec = space, context.codec
        if context.pooled_width is not None:
            raise RecipeError(
                f"{who} makes no pooled vector, which this denoiser reads (SDXL's); use one without, or "
                "conditioner 'words'"
            )
        width, wanted = self.width, context.token_width
        if width != wanted and not projected:
            raise RecipeError(
                f"{who}: the text encoder has width {width}, but the denoiser's tokens {wanted} (Stable Diffusion "
                "1.5 has 768, 2 has 1024); take the encoder that belongs to it, or set projected: true"
            )
        self.projection = nn.Linear(width, wanted) if projected else nn.Identity()

    def learners(self) -> Mapping[str, nn.Module]:
        return {"projection": self.projection}

    def forward(self, target: Int[Tensor, "n 1 k"]) -> Condition:
        words_mask(target, self.space, self.name)
        return self._condition(written_out(self.codec, target[:, 0], self.space.size))

    def check_words(self, text: str, called: str) -> None:
        self.check_length(text, called)

    def empty(self, condition: Condition) -> Condition:
        return self._condition([""] * len(condition.tokens))

    def _condition(self, texts: Sequence[str]) -> Condition:
        hidden, mask = self.read(texts)
        return Condition(self.projection(hidden), mask)
