"""Vectors in the space of a public text encoder, which says what they shall be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.decoders.conditioners import Conditioner, ConditionerContext
from chiasm.decoders.conditioners.vectors import vectors_in_row
from chiasm.decoders.conditioners.words import written_out
from chiasm.decoders.conditions import Condition
from chiasm.decoders.text_encoder import PublicTextEncoder
from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Tokens
from chiasm.tokenizers.spaces import Vectors


class TextSpace(Conditioner, name="text_space"):
    """The vectors themselves, in the place of what the diffusion model's own text encoder makes of a caption:
    NExT-GPT's decoding side (arXiv 2309.05519).

    Where words stand before an image in its answer, the loss `alignment` is the distance of the vectors to what the
    text encoder, which stays as it is, makes of these words: the length of the difference, a term a vector.
    Guidance leads away from the empty text, as in the diffusion model's own pipeline.

    Args:
        checkpoint: a local folder or hub name of the encoder; of CLIP's two towers the text's is taken.
        tokenizer: likewise, of its tokenizer; null = it lies beside the encoder.
        config: instead of a checkpoint, from scratch: a transformers config with its `model_type`.
        length: tokens of the encoder, and vectors of an image.
        words: most words of the language model that are written out.
        tokenizer_bytes: of the tokenizer's file that a saved model holds among its weights; null = read it.
    """

    space: Vectors

    def __init__(
        self,
        context: ConditionerContext,
        *,
        checkpoint: str | None = None,
        tokenizer: str | None = None,
        config: dict[str, Any] | None = None,
        length: Tokens = 77,
        words: Tokens = 77,
        tokenizer_bytes: Tokens | None = None,
    ):
        super().__init__()
        who = f"conditioner {self.name!r}"
        self.word_space = context.words(
            self.name, words, "{type: queries, alphabet: {type: condition}}, behind a language model"
        )
        self.codec = context.codec
        self.encoder = PublicTextEncoder(
            who,
            checkpoint=checkpoint,
            tokenizer=tokenizer,
            config=config,
            length=length,
            tokenizer_bytes=tokenizer_bytes,
        )
        if context.pooled_width is not None:
            raise RecipeError(
                f"{who} makes no pooled vector, which this denoiser reads (SDXL's); use one without"
            )
        if self.encoder.width != context.token_width:
            raise RecipeError(
                f"{who}: the text encoder has width {self.encoder.width}, but the denoiser's tokens "
                f"{context.token_width} (Stable Diffusion 1.5 has 768, 2 has 1024); take the encoder that belongs "
                "to it"
            )
        self.space, self.caption_words = Vectors((1, length), context.token_width), words

    def standalone(self) -> dict[str, Any]:
        return self.encoder.standalone()

    def learners(self) -> Mapping[str, nn.Module]:
        return {}

    def forward(self, target: Float[Tensor, "n gh gw c"]) -> Condition:
        return Condition(vectors_in_row(target, self.space.width, self.name))

    def empty(self, condition: Condition) -> Condition:
        tokens, _ = self.encoder.read([""] * len(condition.tokens))
        return condition._replace(tokens=tokens.to(condition.tokens.dtype))

    def caption_losses(
        self, target: Float[Tensor, "n gh gw c"], words: Int[Tensor, "n k"]
    ) -> dict[str, Loss]:
        vectors = vectors_in_row(target, self.space.width, self.name)
        has_words = words[:, 0] >= 0
        end = self.word_space.size
        texts = written_out(self.codec, torch.where(words >= 0, words, end), end)
        distances = torch.linalg.vector_norm(vectors.float() - self.encoder.read(texts)[0].float(), dim=-1)
        count = has_words.sum().float() * distances.shape[1]
        return {"alignment": Loss((distances * has_words[:, None]).sum(), count)}
