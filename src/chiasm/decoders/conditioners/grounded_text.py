"""Words with named boxes as what a denoiser that reads boxes is conditioned on, by CLIP's text tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from chiasm.data.named_boxes import NamedBox, named_boxes
from chiasm.decoders.conditioners import Conditioner, ConditionerContext
from chiasm.decoders.conditioners.words import words_mask, written_out
from chiasm.decoders.conditions import Condition
from chiasm.decoders.text_encoder import PublicTextEncoder
from chiasm.errors import DataError, RecipeError
from chiasm.parts.bounds import Cells, Tokens
from chiasm.tokenizers.spaces import WordIds


class GroundedText(Conditioner, name="grounded_text"):
    """CLIP's text tower, frozen, for what an image shows and for each thing in a box (GLIGEN, arXiv 2301.07093).

    Boxes stand among the words, `<region>a cat: 500,400,900,900</region>`: left, top, right and bottom in parts of
    the image's sides. The words without them are the tokens; a thing is what the tower pools of its name. Of what
    a model writes that is longer than `length`, the end is lost. What guidance leads away from is the empty text
    without boxes.

    Args:
        checkpoint: a local folder or hub name of the encoder; of CLIP's two towers the text's is taken.
        tokenizer: likewise, of its tokenizer; null = it lies beside the encoder.
        config: instead of a checkpoint, from scratch: a transformers config with its `model_type`.
        length: tokens of the encoder, to which every text is padded.
        words: most words of the language model that are written out, those of regions among them.
        boxes: as many stand beside every image; those that are not there fill up.
        scale: what the numbers of a region count to along a side.
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
        words: Tokens = 256,
        boxes: Cells = 30,
        scale: Tokens = 1000,
        tokenizer_bytes: Tokens | None = None,
    ):
        super().__init__()
        who = f"conditioner {self.name!r}"
        self.space = context.words(self.name, words)
        self.codec, self.count, self.scale = context.codec, boxes, scale
        if context.phrase_width is None:
            raise RecipeError(f"{who} is for a denoiser that reads boxes: 'grounded_unet'")
        self.encoder = PublicTextEncoder(
            who,
            checkpoint=checkpoint,
            tokenizer=tokenizer,
            config=config,
            length=length,
            tokenizer_bytes=tokenizer_bytes,
        )
        if not self.encoder.pools:
            raise RecipeError(f"{who}: its text encoder pools no texts; take CLIP's")
        widths = {"tokens": context.token_width, "phrases": context.phrase_width}
        for name, width in widths.items():
            if self.encoder.width != width:
                raise RecipeError(
                    f"{who}: the text encoder has width {self.encoder.width}, but the denoiser's {name} {width}; "
                    "take the encoder that belongs to it (of Stable Diffusion 1: CLIP-L's, 768)"
                )

    def standalone(self) -> dict[str, Any]:
        return self.encoder.standalone()

    def learners(self) -> Mapping[str, nn.Module]:
        return {}

    def forward(self, target: Int[Tensor, "n 1 k"]) -> Condition:
        """Raises DataError for a region that is none, and for more of them than it has boxes."""
        words_mask(target, self.space, self.name)
        texts = written_out(self.codec, target[:, 0], self.space.size)
        read = [named_boxes(text, self.scale) for text in texts]
        tokens, mask = self.encoder.read([words for words, _ in read])
        return Condition(tokens, mask, self._added([boxes for _, boxes in read], tokens))

    def check_words(self, text: str, called: str) -> None:
        words, boxes = named_boxes(text, self.scale)
        self.encoder.check_length(words, called)
        for number, box in enumerate(boxes, 1):
            self.encoder.check_length(box.name, f"the name of region {number} of {called}")

    def empty(self, condition: Condition) -> Condition:
        count = len(condition.tokens)
        tokens, mask = self.encoder.read([""] * count)
        return condition._replace(tokens=tokens, mask=mask, added=self._added([[]] * count, tokens))

    def _added(self, images: Sequence[Sequence[NamedBox]], like: Tensor) -> dict[str, Tensor]:
        boxes = like.new_zeros(len(images), self.count, 4)
        phrases = like.new_zeros(len(images), self.count, self.encoder.width)
        present = like.new_zeros(len(images), self.count)
        for row, each in enumerate(images):
            if len(each) > self.count:
                raise DataError(
                    f"an image has {len(each)} regions, but conditioner {self.name!r} reads {self.count}; give it "
                    "more boxes, or the image fewer"
                )
            if each:
                boxes[row, : len(each)] = boxes.new_tensor([named.box for named in each])
                phrases[row, : len(each)] = self.encoder.pooled([named.name for named in each])
                present[row, : len(each)] = 1
        return {"boxes": boxes, "phrases": phrases, "present": present}
