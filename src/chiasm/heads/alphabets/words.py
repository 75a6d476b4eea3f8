"""Words as what the image decoder is conditioned on."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.heads import HeadContext, WordLearner
from chiasm.heads.conditioning import WordConditioning
from chiasm.nn.losses import Loss


class WordCondition(WordConditioning, name="words"):
    """The words as they stand: the language model learns them from the text alone, the decoder from its own loss.

    Both may learn in one stage, or each in a stage of its own. A frozen decoder's loss would teach nothing, and is
    left out.
    """

    def __init__(self, context: HeadContext, symbols: int):
        super().__init__(context)

    @property
    def learner(self) -> WordLearner:
        return self

    @property
    def teaches(self) -> bool:
        """Whether anything learns from the decoder's loss."""
        modules = self.decoder.learners().values()
        return any(parameter.requires_grad for module in modules for parameter in module.parameters())

    def word_losses(
        self,
        words: Int[Tensor, "n k"],
        pixels: Float[Tensor, "n 3 h w"],
        sources: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]:
        if not self.teaches:
            return {}
        return self.decoder.losses(rearrange(words, "n k -> n 1 k"), pixels, source=sources)

    def caption_losses(
        self,
        hidden: Float[Tensor, "n k d"],
        words: Int[Tensor, "n k"],
        pixels: Float[Tensor, "n 3 h w"],
        sources: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]:
        return self.word_losses(words, pixels, sources)


class StraightWords(WordConditioning, name="straight_words"):
    """The same words, with a straight path for the gradient (arXiv 1308.3432): the decoder reads the true words,
    and its loss reaches the language model as if it had read the probabilities with which that predicts them.

    The decoder's conditioner must take mixtures of words: `words` does, a public text encoder with a vocabulary of
    its own does not.
    """

    def __init__(self, context: HeadContext, symbols: int):
        super().__init__(context)
        if not self.decoder.reads_mixtures:
            raise RecipeError(
                f"alphabet {self.name!r} needs an image decoder that reads mixtures of words, for the gradient "
                f"flows through them, which {self.decoder.name!r} does not here; use conditioner 'words', or "
                "alphabet 'words', which lets no gradient through"
            )
        self._logits = context.vocabulary.logits

    def caption_losses(
        self,
        hidden: Float[Tensor, "n k d"],
        words: Int[Tensor, "n k"],
        pixels: Float[Tensor, "n 3 h w"],
        sources: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]:
        return self.decoder.losses(self._mixtures(hidden, words), pixels, source=sources)

    def _mixtures(
        self, hidden: Float[Tensor, "n k d"], words: Int[Tensor, "n k"]
    ) -> Float[Tensor, "n 1 k v"]:
        """The true words, whose gradient is that of the probabilities with which they are predicted."""
        logits = self._logits(hidden).float()
        size = logits.shape[-1]
        chances = functional.pad(logits.softmax(-1), (0, 1)) * (words < size)[..., None]
        true = functional.one_hot(words, size + 1).to(chances.dtype)
        return rearrange(true + chances - chances.detach(), "n k v -> n 1 k v")
