"""Multi-scale residual quantization: a picture as grids of codes, each refining what the coarser ones said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.critics import Critic
from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import (
    Batches,
    CodebookSize,
    Count,
    Depth,
    Kernel,
    Multipliers,
    Scales,
    Share,
    Weight,
    Width,
)
from chiasm.tokenizers import join_scales, split_scales
from chiasm.tokenizers.codebook import new_codebook
from chiasm.tokenizers.convolutional import nearest
from chiasm.tokenizers.quantizers import Quantized, Quantizer
from chiasm.tokenizers.revival import Revival
from chiasm.tokenizers.vq import foreground_weight
from chiasm.tokenizers.vqgan import VQGAN


class ResidualScales(Quantizer):
    """VAR's VectorQuantizer2: one codebook for all scales.

    From the coarsest scale on: what is left of the latents is averaged to the scale and looked up, the codes'
    vectors are enlarged, smoothed by a convolution (`blend` of it) and taken away. scales: codes a side.
    convolutions: how many are shared by the scales (each scale takes the nearest; 0 = one for every scale).
    cosine: look up by direction only. revive_after: steps without a use after which a code is given a new
    place; 0 = never. Losses are means over all scales of the error of what they said so far.
    """

    def __init__(
        self,
        codebook_size: int,
        width: int,
        scales: Sequence[int],
        *,
        convolutions: int,
        blend: float,
        cosine: bool,
        codebook_weight: float,
        commitment: float,
        revive_after: int = 0,
    ):
        super().__init__()
        self.codebook_size, self.width = codebook_size, width
        self.revival = Revival(codebook_size, revive_after) if revive_after else None
        self.scales, self.blend, self.cosine = tuple(scales), blend, cosine
        self.codebook_weight, self.commitment = codebook_weight, commitment
        self.embedding = new_codebook(codebook_size, width)
        count = (convolutions or len(scales)) if blend else 0
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(count))

    @property
    def side(self) -> int:
        return self.scales[-1]

    def forward(self, latents: Float[Tensor, "n h w c"]) -> Quantized:
        target = rearrange(latents, "n h w c -> n c h w")
        codes, partial_sums, targets = self._refine(target.detach())
        if self.revival is not None and self.training:
            self.revival(self.embedding.weight, torch.cat(targets), join_scales(codes).flatten())
        errors = [(each - target.detach()).square() for each in partial_sums]
        misses = [(each.detach() - target).square() for each in partial_sums]
        losses = {
            "codebook": Loss.of(torch.stack(errors), self.codebook_weight),
            "commitment": Loss.of(torch.stack(misses), self.commitment),
        }
        vectors = target + (partial_sums[-1] - target).detach()
        return Quantized(rearrange(vectors, "n c h w -> n h w c"), join_scales(codes), losses)

    def health(self) -> dict[str, float]:
        return {} if self.revival is None else {"revived": float(self.revival.revived)}

    def encode(self, latents: Float[Tensor, "n h w c"]) -> Int[Tensor, "n 1 l"]:
        return join_scales(self._refine(rearrange(latents, "n h w c -> n c h w"))[0])

    def vectors(self, codes: Int[Tensor, "n 1 l"]) -> Float[Tensor, "n h w c"]:
        return rearrange(self.progress(codes)[-1], "n c h w -> n h w c")

    def progress(self, codes: Int[Tensor, "n 1 l"]) -> list[Float[Tensor, "n c h w"]]:
        """What the codes up to each scale say, at full size; the codes may end with any scale."""
        scales, length = [], 0
        for side in self.scales:
            length += side * side
            scales.append((side, side))
            if length == codes.shape[-1]:
                break
        partial_sums: list[Tensor] = []
        for index, part in enumerate(split_scales(codes, scales)):
            contribution = self.contribution(part, index)
            partial_sums.append(partial_sums[-1] + contribution if partial_sums else contribution)
        return partial_sums

    def next_inputs(self, codes: Int[Tensor, "n 1 l"]) -> Float[Tensor, "n m c"]:
        """For every scale but the first, what the coarser ones say, averaged to its size (what VAR reads)."""
        partial_sums = self.progress(codes)[: len(self.scales) - 1]
        return torch.cat([self.averaged(each, index + 1) for index, each in enumerate(partial_sums)], 1)

    def averaged(self, partial_sum: Float[Tensor, "n c h w"], index: int) -> Float[Tensor, "n m c"]:
        """What was said so far, at the cells of a scale in raster order."""
        side = self.scales[index]
        cells = functional.interpolate(partial_sum, size=(side, side), mode="area")
        return rearrange(cells, "n c h w -> n (h w) c")

    def contribution(self, codes: Int[Tensor, "n h w"], index: int) -> Float[Tensor, "n c h2 w2"]:
        """What the codes of one scale say, at full size."""
        contribution = rearrange(self.embedding(codes), "n h w c -> n c h w")
        if index < len(self.scales) - 1:
            contribution = functional.interpolate(contribution, size=(self.side, self.side), mode="bicubic")
        if not len(self.smooth):
            return contribution
        smoothed = self.smooth[nearest_convolution(index, len(self.scales), len(self.smooth))](contribution)
        return (1 - self.blend) * contribution + self.blend * smoothed

    def _refine(
        self, latents: Float[Tensor, "n c h w"]
    ) -> tuple[list[Tensor], list[Tensor], list[Float[Tensor, "m c"]]]:
        """Codes of every scale, what they say up to it, and the vectors that were looked up."""
        rest = latents
        codes: list[Tensor] = []
        partial_sums: list[Tensor] = []
        targets: list[Tensor] = []
        for index, side in enumerate(self.scales):
            coarse = rest.detach()
            if index < len(self.scales) - 1:
                coarse = functional.interpolate(coarse, size=(side, side), mode="area")
            targets.append(rearrange(coarse, "n c h w -> (n h w) c"))
            indices = self._nearest(targets[-1])
            codes.append(rearrange(indices, "(n h w) -> n h w", n=len(latents), h=side))
            contribution = self.contribution(codes[-1], index)
            partial_sums.append(partial_sums[-1] + contribution if partial_sums else contribution)
            rest = rest - contribution.detach()
        return codes, partial_sums, targets

    @torch.no_grad()
    def _nearest(self, vectors: Float[Tensor, "m c"]) -> Int[Tensor, " m"]:
        codebook = self.embedding.weight
        if self.cosine:
            vectors, codebook = functional.normalize(vectors, dim=-1), functional.normalize(codebook, dim=-1)
        return nearest(vectors, codebook)


def nearest_convolution(index: int, scales: int, convolutions: int) -> int:
    """Which of the convolutions, spread evenly over the scales, serves a scale."""
    edge = 1 / 3 / convolutions if convolutions == 4 else 1 / 2 / convolutions  # 4 is the published number
    places = np.linspace(edge, 1 - edge, convolutions)
    return int(np.abs(places - index / max(scales - 1, 1)).argmin())


class MultiScale(VQGAN, name="multi_scale"):
    """VAR's multi-scale residual VQ-VAE (arXiv 2404.02905) and its training, which was never released.

    The training adds to the reconstruction the losses of VAR's quantizer; the paper's perceptual and adversarial
    losses are `critics`. Codes stand in one row, the coarsest scale first.

    Args:
        scales: codes a side of every scale, the coarsest first; pictures have the last one's side times the
            downsampling.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next. The lowest level
            has self-attention.
        depth: residual blocks a level.
        code_width: length of a code's vector, and channels that the encoder puts out.
        codebook_size: number of codes.
        convolutions: smoothing convolutions, shared by neighbouring scales; 0 = one for every scale.
        blend: share of the smoothed in what a scale says; 0 = no smoothing.
        cosine: look codes up by direction only.
        kernel: side in positions of the convolutions before and behind the quantizer.
        codebook_weight: weight of the loss that moves the codes.
        commitment: weight of the loss that moves the latents.
        squared: weight of the squared error beside the absolute one, which alone is slow to find small bright
            things.
        foreground: weight of the error where a picture differs from its commonest colour (its median).
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
        revive_after: steps without a use after which a code is given a new place; 0 = never.
    """

    quantize: ResidualScales

    def __init__(
        self,
        *,
        scales: Scales = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16],  # noqa: B006
        width: Width = 160,
        multipliers: Multipliers = [1, 1, 2, 2, 4],  # noqa: B006
        depth: Depth = 2,
        code_width: Width = 32,
        codebook_size: CodebookSize = 4096,
        convolutions: Count = 4,
        blend: Share = 0.5,
        cosine: bool = False,
        kernel: Kernel = 3,
        codebook_weight: Weight = 1.0,
        commitment: Weight = 0.25,
        squared: Weight = 0.0,
        foreground: Weight = 1.0,
        critics: list[Critic] = [],  # noqa: B006
        revive_after: Batches = 0,
    ):
        if not scales or min(scales) < 1 or sorted(set(scales)) != list(scales):
            raise RecipeError(f"image_tokenizer 'multi_scale': scales are {scales}; they must grow from 1 on")
        super().__init__(
            size=scales[-1] * 2 ** (len(multipliers) - 1),
            width=width,
            multipliers=multipliers,
            depth=depth,
            attention_sizes=[scales[-1]],
            latent_width=code_width,
            kernel=kernel,
            quantizer=ResidualScales(
                codebook_size,
                code_width,
                scales,
                convolutions=convolutions,
                blend=blend,
                cosine=cosine,
                codebook_weight=codebook_weight,
                commitment=commitment,
                revive_after=revive_after,
            ),
            squared=squared,
            critics=critics,
        )
        self.foreground = foreground

    @torch.no_grad()
    def decode_scales(self, codes: Int[Tensor, "n 1 l"]) -> Float[Tensor, "n 3 h w"]:
        """Images of the coarsest scales alone; the codes end with any of them."""
        return self.render(self.quantize.vectors(codes)).clamp(0, 1)

    def reconstruction(
        self, reconstructed: Float[Tensor, "*n 3 h w"], pixels: Float[Tensor, "*n 3 h w"]
    ) -> Loss:
        error = 2 * (reconstructed - pixels)
        weighed = error.abs() + self.squared * error.square()
        return Loss.of(weighed * foreground_weight(pixels, self.foreground))

    @property
    def grid(self) -> tuple[int, int]:
        return 1, sum(side * side for side in self.quantize.scales)

    @property
    def refinement(self) -> ResidualScales:
        return self.quantize

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        return tuple((side, side) for side in self.quantize.scales)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "scales": [1, 2, 4],
            "width": 32,
            "multipliers": [1, 1, 1, 1],
            "depth": 1,
            "convolutions": 0,
            "code_width": 8,
            "codebook_size": 16,
        }
