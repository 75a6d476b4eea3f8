"""Masked patches and words, predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss, cross_entropy
from chiasm.objectives import Described, Objective, Setting
from chiasm.objectives.block_masks import block_masks
from chiasm.objectives.masked_words import Hidden, MaskedWords
from chiasm.parts.bounds import Cells, Share, Tokens
from chiasm.sequence import PADDING, Kind
from chiasm.sequence.layout import Layout
from chiasm.tokenizers import ImageTokenizer
from chiasm.tokenizers.spaces import Codes

GREY = 0.5  # of a masked patch, before an encoder
ROLES = 3  # of a batch's pairs: the first of each three is read whole, of the next only the picture, then the text


class MaskedData(Objective, Indivisible, name="masked_data"):
    """BEiT-3's masked data modelling: predict what is masked of images, of texts and of pairs (arXiv 2208.10442).

    The language model reads each as one block in which all positions attend to all, and predicts the masked words
    and, by a layer that is dropped when the stage ends, the codes of the masked patches. The codes are
    those of the model's own image tokenizer, from an earlier stage or a `start`, which stays as it is. A third of
    a batch is read as pairs, of a third the image alone, of a third the text. The embedding of a masked patch is
    learnt and copied into the connector, an `embedding`.

    Args:
        patches: share of a picture's patches that are masked.
        block: least patches of a masked rectangle.
        words: share of the tokens of a text alone that are masked.
        paired_words: share of the tokens that are masked of a text with its image.
        context: most tokens of a text, with its begin and end; the rest is cut off.
    """

    names: ClassVar = ("patches", "words", "paired_patches", "paired_words")
    trains: ClassVar = ("encoder", "connector", "language")
    hands: ClassVar = ("connector",)

    def __init__(
        self,
        setting: Setting,
        *,
        patches: Share = 0.4,
        block: Cells = 16,
        words: Share = 0.15,
        paired_words: Share = 0.5,
        context: Tokens = 64,
    ):
        super().__init__()
        model, connector = setting.model, setting.model.connector
        assert model.encoder is not None
        if connector is None or not connector.masks or model.routing.cross_attends:
            actual = f"{connector.name!r}" if connector is not None else "none"
            raise RecipeError(
                "objective 'masked_data' masks patches where a connector 'embedding' puts them into the sequence, "
                f"but the model has the connector {actual} and the routing {model.routing.name!r}"
            )
        self.grid = model.encoder.grid(*setting.size)
        tokenizer = _tokenizer(model, self.grid)
        self.hidden, self.block = round(patches * self.grid[0] * self.grid[1]), block
        if not 0 < self.hidden < self.grid[0] * self.grid[1]:
            raise RecipeError(
                f"objective 'masked_data': patches {patches} of {self.grid[0]} x {self.grid[1]} masks "
                f"{self.hidden} of them; it must mask some and show some"
            )
        self.mask_token = nn.Parameter(connector.mask_token.clone())
        self.texts = MaskedWords(model.language, alone=words, paired=paired_words, context=context)
        self.out = nn.Linear(model.language.width, tokenizer.codebook_size)
        nn.init.trunc_normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        self._codes: Int[Tensor, " m"] | None = None

    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        if len(batch) < ROLES:
            raise RecipeError(
                "objective 'masked_data' reads pairs, images and texts; give its stage 3 rows or more"
            )
        self.cut_texts = self.texts.cut([*batch.texts[::ROLES], *batch.texts[2::ROLES]])
        pairs, pixels = len(batch.pixels[::ROLES]), torch.cat([batch.pixels[::ROLES], batch.pixels[1::ROLES]])
        masks = block_masks(len(pixels), self.grid, self.hidden, self.block).to(pixels.device)
        visual = self._embed_images(model, pixels, masks)
        paired = self.texts.hide(model.language, batch.texts[::ROLES], paired=True)
        alone = self.texts.hide(model.language, batch.texts[2::ROLES], paired=False)
        paired_images, words = self._read_pairs(model, visual[:pairs], paired)
        unpaired_images = self._read(model, visual[pairs:], _all(visual[pairs:]), visual.shape[1])
        hidden = self._read(model, alone.embeddings, alone.real, 0)
        images = torch.cat([paired_images, unpaired_images])[:, 1:]  # without the class token
        self.observe(reduce(images, "n k d -> n d", "mean"))
        guesses, codes = self.out(images[masks.flatten(1)]), self._targets(model, pixels, masks)
        split = pairs * self.hidden
        return {
            "patches": _cross_entropy(guesses[split:], codes[split:]),
            "words": _cross_entropy(model.language.logits(hidden[alone.masked]), alone.ids),
            "paired_patches": _cross_entropy(guesses[:split], codes[:split]),
            "paired_words": _cross_entropy(model.language.logits(words[paired.masked]), paired.ids),
        }

    def terms(self, batch: Described) -> dict[str, float]:
        pairs, images = len(batch.pixels[::ROLES]), len(batch.pixels[1::ROLES])
        return {
            "patches": float(self.hidden * images),
            "words": float(self.texts.count(batch.texts[2::ROLES], paired=False)),
            "paired_patches": float(self.hidden * pairs),
            "paired_words": float(self.texts.count(batch.texts[::ROLES], paired=True)),
        }

    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        if rows % ROLES == 0:
            return None
        return f"objective 'masked_data' shares {ROLES} roles out among a batch's rows; give it a multiple of them"

    def health(self) -> dict[str, float]:
        """As for all objectives, and `codes`: the perplexity of the codes of the patches."""
        if self._codes is None:
            return super().health()
        shares = torch.bincount(self._codes).float() / len(self._codes)
        return {**super().health(), "codes": float(torch.special.entr(shares).sum().exp())}

    @torch.no_grad()
    def hand_over(self, model: Model) -> None:
        assert model.connector is not None
        model.connector.mask_token.copy_(self.mask_token)

    def _embed_images(
        self, model: Model, pixels: Float[Tensor, "n 3 h w"], masks: Bool[Tensor, "n gh gw"]
    ) -> Float[Tensor, "n k d"]:
        """Visual tokens of the images. Masked patches are grey, lest other patches' features hold them."""
        assert model.connector is not None
        wide = functional.interpolate(masks[:, None].to(pixels.dtype), pixels.shape[-2:], mode="nearest")
        grid = model.encode(torch.lerp(pixels, torch.full_like(pixels, GREY), wide))
        return model.connector(grid, masks.to(grid.dtype), self.mask_token)

    @torch.no_grad()
    def _targets(
        self, model: Model, pixels: Float[Tensor, "n 3 h w"], masks: Bool[Tensor, "n gh gw"]
    ) -> Int[Tensor, " m"]:
        """Codes of the masked patches, image by image."""
        tokenizer = model.image_tokenizer
        assert tokenizer is not None
        if pixels.shape[-2:] != (tokenizer.size, tokenizer.size):
            size = (tokenizer.size, tokenizer.size)
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        codes = tokenizer.encode(pixels)
        self._codes = codes.flatten()
        return codes[masks]

    def _read(
        self,
        model: Model,
        embeddings: Float[Tensor, "n t d"],
        real: Bool[Tensor, "n t"],
        image_positions: int,
    ) -> Float[Tensor, "n t d"]:
        """Hidden states of documents of one block each; the first `image_positions` positions are an image's."""
        places = torch.arange(real.shape[1], device=real.device).expand(real.shape)
        kinds = torch.where(places < image_positions, int(Kind.READ), int(Kind.TEXT))
        documents, every = torch.where(real, 0, PADDING), torch.ones_like(real)
        layout = Layout(documents, places == 0, every, kinds=kinds, positions=places)
        return model.language(embeddings, layout)

    def _read_pairs(
        self, model: Model, visual: Float[Tensor, "n k d"], texts: Hidden
    ) -> tuple[Float[Tensor, "n k d"], Float[Tensor, "n t d"]]:
        """Hidden states of the images and of the texts after them."""
        length = visual.shape[1]
        embeddings, real = torch.cat([visual, texts.embeddings], 1), torch.cat([_all(visual), texts.real], 1)
        hidden = self._read(model, embeddings, real, length)
        return hidden[:, :length], hidden[:, length:]

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"block": 2}

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        return {
            "encoder": {"type": "patches", "patch_size": 8},
            "connector": {"type": "embedding", "grid": [4, 4]},
            "language": {
                "type": "beit3",
                "width": 16,
                "depth": 1,
                "heads": 2,
                "hidden": 24,
                "context": 256,
                "vocabulary": 400,
            },
            "image_tokenizer": {
                "type": "vq",
                "size": 32,
                "downsample": 8,
                "width": 16,
                "depth": 1,
                "codebook_size": 16,
                "code_width": 8,
                "settle": 1,
            },
        }


def _all(embeddings: Float[Tensor, "n t d"]) -> Bool[Tensor, "n t"]:
    return torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)


def _cross_entropy(logits: Float[Tensor, "m v"], answers: Int[Tensor, " m"]) -> Loss:
    return Loss(cross_entropy(logits, answers), torch.tensor(float(len(answers)), device=logits.device))


def _tokenizer(model: Model, grid: Sequence[int]) -> ImageTokenizer:
    """The model's image tokenizer; raises RecipeError unless it makes one code a patch."""
    tokenizer = model.image_tokenizer
    if tokenizer is None:
        raise RecipeError(
            "objective 'masked_data' asks for the codes of patches; give the model an image_tokenizer, and train "
            "it in an earlier stage or take it from a checkpoint with 'start'"
        )
    if not isinstance(tokenizer.space, Codes):
        raise RecipeError(
            f"objective 'masked_data' asks for the codes of patches, but image_tokenizer {tokenizer.name!r} makes "
            "vectors; use one that makes codes"
        )
    if tuple(tokenizer.grid) != tuple(grid):
        rows, columns = tokenizer.grid
        raise RecipeError(
            f"objective 'masked_data' needs a code for each of {grid[0]} x {grid[1]} patches, but image_tokenizer "
            f"{tokenizer.name!r} makes {rows} x {columns}; change its size or the patches"
        )
    return tokenizer
