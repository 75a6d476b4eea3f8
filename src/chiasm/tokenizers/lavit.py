"""A picture as the codes of its patches that matter: as many as it needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from chiasm.connectors.selection import (
    Merger,
    Selector,
    at_least_one,
    cosine_distance,
    expected,
    gumbel,
    patches_of,
    sampled,
    strong_positions,
)
from chiasm.encoders import Encoder
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.losses import Loss
from chiasm.nn.stepwise import Stepwise
from chiasm.parts.bounds import (
    Batches,
    CodebookSize,
    Count,
    Decay,
    Depth,
    Heads,
    Pixels,
    Share,
    Weight,
    Width,
)
from chiasm.tokenizers import ImageTokenizer
from chiasm.tokenizers.detokenizer import Detokenizer
from chiasm.tokenizers.moving_average import VectorQuantizer
from chiasm.tokenizers.painter import Painter
from chiasm.tokenizers.spaces import check_grid

KEEP_WEIGHT = 2.0  # of the loss that holds the share of kept patches (the paper's lambda)


class Selected(NamedTuple):
    """What stands at every patch of a picture; what is meant are those with `kept` 1.

    features: of the encoder. scores: logarithms of the chances to be kept and to be dropped.
    merged: behind the merger. latents: what is quantized.
    """

    features: Float[Tensor, "n p c"]
    scores: Float[Tensor, "n p 2"]
    kept: Float[Tensor, "n p"]
    merged: Float[Tensor, "n p c"]
    latents: Float[Tensor, "n p e"]


class LaVITTokenizer(ImageTokenizer, Stepwise, name="lavit"):
    """LaVIT's dynamic tokenizer (arXiv 2309.04669): codes of the features of a frozen encoder, as many as it takes.

    A selector drops patches, a merger lets the kept ones take over what the others hold, and each kept one
    becomes a code by its direction. A decoder of features, which sees only the codes, rebuilds the features of
    all patches; that is what everything here learns from, beside the loss that holds the share of kept patches.

    The number of codes varies with the picture, but how a written picture stands in the sequence must be known
    before a pixel is read. So there is one code more than the codebook has, the last, which ends a picture: the
    grid is one row of `most` codes, filled up with the end. Any head can write that; the head
    `variable_next_token` neither learns nor draws what stands behind the end.

    Which patches are kept is drawn by chance in training (Gumbel noise). Elsewhere it is not, unless the noise is
    given: as many are kept as the chances add up to, the likeliest first.

    Pixels are the business of a diffusion model, the image decoder `lavit_diffusion`. `painter` is a small
    stand-in for it, trained with the tokenizer.

    Args:
        encoder: the frozen encoder whose features are written as codes; what its grid makes of `size` are the
            patches.
        size: height and width of the pictures in pixels.
        codebook_size: codes, without the one that ends a picture.
        code_width: length of a code's vector.
        depth: blocks of the merger.
        heads: attention heads, of merger and decoder.
        hidden: hidden width of the MLPs of merger and decoder.
        most: most codes of a picture; null = all of its patches.
        keep: share of the patches that is kept on average.
        decoder_depth: blocks of the decoder of features; 0 = no decoder, as where one is imported that only reads.
        decoder_width: channels of that decoder; null = those of the encoder's features.
        positions: add a learnt vector for the place of each patch before selector and merger, for encoders whose
            features do not tell it (convolutional ones); else neither selector nor codes know it.
        painter: channels of a small convolutional network that paints pixels from the rebuilt features;
            null = none.
        foreground: weight of the painter's error where a picture differs from its commonest colour (its median).
        commitment: weight of the loss that keeps the latents near their codes.
        decay: share of the codebook's moving averages that each step keeps.
        settle: steps that are not yet quantized; at least the first is not.
        revive_after: steps without a use after which a code is given a new place; 0 = never.
    """

    end: int

    def __init__(
        self,
        *,
        encoder: Encoder,
        size: Pixels = 224,
        codebook_size: CodebookSize = 16384,
        code_width: Width = 32,
        depth: Depth = 12,
        heads: Heads = 16,
        hidden: Width = 6144,
        most: CodebookSize | None = None,
        keep: Share = 1 / 3,
        decoder_depth: Count = 12,
        decoder_width: Width | None = None,
        positions: bool = False,
        painter: Width | None = None,
        foreground: Weight = 1.0,
        commitment: Weight = 0.25,
        decay: Decay = 0.99,
        settle: Batches = 0,
        revive_after: Batches = 20,
    ):
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        rows, columns = encoder.grid(size, size)
        self.cells, inner = rows * columns, decoder_width or encoder.width
        if encoder.width % heads or inner % heads:
            raise RecipeError(
                f"image_tokenizer 'lavit': {heads} heads must divide the encoder's {encoder.width} channels and "
                f"the decoder's {inner}"
            )
        if painter and not decoder_depth:
            raise RecipeError(
                "image_tokenizer 'lavit': a painter needs the decoder's features; set decoder_depth"
            )
        self.size, self.end, self.codebook_size = size, codebook_size, codebook_size + 1
        self.most = min(most or self.cells, self.cells)
        self.keep, self.foreground, self.commitment = keep, foreground, commitment
        self.positions = strong_positions((rows, columns) if positions else None, encoder.width)
        self.selector = Selector(encoder.width)
        self.merger = Merger(encoder.width, depth, heads, hidden)
        self.to_code = _tanh_mlp(encoder.width, code_width)
        self.quantizer = VectorQuantizer(
            codebook_size, code_width, decay=decay, settle=settle, revive_after=revive_after, cosine=True
        )
        self.detokenizer = (
            Detokenizer(code_width, inner, decoder_depth, heads, hidden, self.cells, encoder.width)
            if decoder_depth
            else None
        )
        self.painter = Painter(encoder.width, painter, (rows, columns), size) if painter else None
        self.share: Tensor
        self._shares: list[Tensor] = []  # of each picture, since the last step
        self.register_buffer("share", torch.tensor(keep), persistent=False)  # moving average, only looked at

    def standalone(self) -> dict[str, Any]:
        return {"encoder": {**self.encoder.spec, **self.encoder.standalone()}}

    def requires_grad_(self, requires_grad: bool = True) -> LaVITTokenizer:
        super().requires_grad_(requires_grad)
        self.encoder.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> LaVITTokenizer:
        super().train(mode)
        self.encoder.eval()
        return self

    @property
    def grid(self) -> tuple[int, int]:
        return 1, self.most

    def select(
        self, pixels: Float[Tensor, "n 3 h w"], noise: Float[Tensor, "n p 2"] | None = None
    ) -> Selected:
        """All that is made of pictures before the codebook.

        noise: Gumbel noise by which the kept patches are drawn; without it they are not drawn.
        """
        self.check_pixels(pixels)
        with torch.no_grad():
            grid = self.encoder(pixels).float()
        patches = patches_of(self.positions(grid))
        scores = self.selector(patches)
        kept = expected(scores, self.most) if noise is None else sampled(scores, noise)
        if self.training:
            kept = at_least_one(kept, scores)
        merged = self.merger(patches, kept)
        return Selected(patches_of(grid), scores, kept, merged, self.to_code(merged))

    @torch.no_grad()
    def encode(
        self, pixels: Float[Tensor, "n 3 h w"], noise: Float[Tensor, "n p 2"] | None = None
    ) -> Int[Tensor, "n 1 k"]:
        """Codes of pictures, each row filled up with the end; with `noise`, of patches drawn by it."""
        with torch.autocast(pixels.device.type, enabled=False):
            selected = self.select(pixels.float(), noise)
            kept = selected.kept > 0.5
            codes = torch.full((len(kept), self.cells), self.end, device=kept.device)
            codes[_first(kept)] = self.quantizer.encode(selected.latents[kept])
        return codes[:, None, : self.most]

    def vectors(self, codes: Int[Tensor, "n 1 k"]) -> tuple[Float[Tensor, "n k e"], Float[Tensor, "n k"]]:
        """The codes' vectors, and 1 for each code before the end; raises ChiasmError on codes out of range."""
        check_grid(codes, self.grid, "a tokenizer")
        if codes.numel() and not (codes.min() >= 0 and codes.max() <= self.end):
            raise ChiasmError(
                f"codes from {int(codes.min())} to {int(codes.max())} given to a tokenizer of {self.end} codes "
                f"(0 to {self.end - 1}, and {self.end} for the end)"
            )
        row = rearrange(codes, "n 1 k -> n k")
        before = (row == self.end).cumsum(1) == 0
        return self.quantizer.vectors[row.clamp(max=self.end - 1)], before.to(self.quantizer.vectors.dtype)

    def decode(self, codes: Int[Tensor, "n 1 k"]) -> Float[Tensor, "n 3 h w"]:
        """Pictures of codes, painted; raises ChiasmError where there is no painter."""
        if self.painter is None or self.detokenizer is None:
            raise ChiasmError(
                "image_tokenizer 'lavit' has no painter, so its codes become pixels by a diffusion model: use the "
                "image_decoder 'lavit_diffusion', or give the tokenizer a 'painter'"
            )
        return self.painter(self.detokenizer(*self.vectors(codes))).clamp(0, 1)

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Features, share of kept patches, commitment, pixels; in training the codebook records its use."""
        if self.detokenizer is None:
            raise ChiasmError("image_tokenizer 'lavit' without a decoder cannot learn; set decoder_depth")
        noise = (
            gumbel(torch.empty(len(pixels), self.cells, 2, device=pixels.device)) if self.training else None
        )
        selected = self.select(pixels, noise)
        kept = selected.kept > 0.5
        quantized = self.quantizer(selected.latents[kept])
        vectors = torch.zeros_like(selected.latents, dtype=torch.float32)
        vectors = vectors.masked_scatter(kept[..., None], quantized.vectors.float())
        reconstructed = self.detokenizer(vectors, selected.kept)
        distance = torch.zeros_like(vectors).masked_scatter(kept[..., None], quantized.commitment.float())
        share = selected.kept.mean(1)
        if self.training:
            self._shares.append(share.detach())
        terms = {
            "reconstruction": Loss.of(cosine_distance(reconstructed, selected.features)),
            "keep": Loss.of((self.keep - share).square(), KEEP_WEIGHT),
            "commitment": Loss.of(distance.mean(-1).sum(1) / kept.sum(1).clamp(min=1), self.commitment),
        }
        if self.painter is not None:
            terms["pixels"] = self.painter.loss(self.painter(reconstructed), pixels, self.foreground)
        return terms

    def after_step(self) -> None:
        if self._shares:
            self.share.lerp_(torch.cat(self._shares).mean(), 1 - self.quantizer.decay)
        self.forget()

    def forget(self) -> None:
        self._shares = []

    def health(self) -> dict[str, float]:
        """Of the codebook, and the share of patches that were kept lately."""
        return self.quantizer.health() | {"kept": float(self.share)}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "encoder": {"type": "vit", "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "size": 32},
            "size": 32,
            "codebook_size": 16,
            "code_width": 8,
            "depth": 1,
            "heads": 2,
            "hidden": 16,
            "decoder_depth": 1,
            "painter": 16,
        }


def _first(kept: Bool[Tensor, "n p"]) -> Bool[Tensor, "n p"]:
    """As many places as are True in each row, but the first ones."""
    return torch.arange(kept.shape[1], device=kept.device) < kept.sum(1, keepdim=True)


def _tanh_mlp(width: int, out_width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out_width))
