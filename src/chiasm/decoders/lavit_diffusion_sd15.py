"""LaVIT's first decoder of pictures: codes to features, features to the tokens of Stable Diffusion 1.5."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.decoders import DecoderContext
from chiasm.decoders.conditions import Condition
from chiasm.decoders.denoisers.unet import EXAMPLE_UNET, SD15_UNET
from chiasm.decoders.lavit_diffusion import CodeDiffusion
from chiasm.decoders.schedulers.diffusers_schedulers import DDIM
from chiasm.parts.bounds import Cells, Depth, Heads, Pixels, Positive, Tokens, Width
from chiasm.tokenizers.vae import SD_VAE


class LaVITDiffusionSD15(CodeDiffusion, name="lavit_diffusion_sd15"):
    """LaVIT's decoder as in the paper (arXiv 2309.04669): codes, features, Stable Diffusion 1.5.

    What guidance leads away from are the tokens of an empty text, which stand in the checkpoint; the places
    behind them are masked. It needs `chiasm[diffusion]`.

    Args:
        size: height and width of the pictures in pixels.
        steps: of DDIM.
        guidance: of the diffusion model, toward the codes; 1 = none.
        depth: blocks of the decoder of features.
        heads: attention heads of the decoder of features.
        hidden: hidden width of the decoder's MLPs.
        width: channels of the decoder of features; null = those of the tokenizer's features.
        out_width: channels of a rebuilt feature; null = those of the tokenizer's features.
        empty_tokens: tokens of the empty text.
        unet: configuration of diffusers' UNet2DConditionModel, in full; the default is Stable Diffusion 1.5's.
        vae: configuration of diffusers' AutoencoderKL, in full; the default is Stable Diffusion 1.5's.
        scheduler: configuration of diffusers' DDIMScheduler.
    """

    empty_text: Tensor

    def __init__(
        self,
        context: DecoderContext,
        *,
        size: Pixels = 512,
        steps: Cells = 50,
        guidance: Positive = 5.0,
        depth: Depth = 12,
        heads: Heads = 16,
        hidden: Width = 6144,
        width: Width | None = None,
        out_width: Width | None = None,
        empty_tokens: Tokens = 77,
        unet: dict[str, Any] = SD15_UNET,
        vae: dict[str, Any] = SD_VAE,
        scheduler: dict[str, Any] = DDIM,
    ):
        super().__init__(
            context,
            size=size,
            steps=steps,
            guidance=guidance,
            depth=depth,
            heads=heads,
            hidden=hidden,
            width=width,
            out_width=out_width,
            networks=(unet, vae, scheduler),
        )
        features = out_width or self._tokenizer[0].encoder.width
        self.projection = nn.Linear(features, self.denoising.denoiser.token_width)
        self.register_buffer("empty_text", torch.zeros(empty_tokens, self.denoising.denoiser.token_width))

    def condition(self, features: Float[Tensor, "n p c"]) -> Condition:
        tokens = self.projection(features)
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def empty(self, condition: Condition) -> Condition:
        assert condition.mask is not None
        count = min(len(self.empty_text), condition.tokens.shape[1])
        tokens, mask = torch.zeros_like(condition.tokens), torch.zeros_like(condition.mask)
        tokens[:, :count], mask[:, :count] = self.empty_text[:count].to(tokens.dtype), True
        return Condition(tokens, mask)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {**super().example(), "empty_tokens": 5, "unet": {**EXAMPLE_UNET, "cross_attention_dim": 24}}
