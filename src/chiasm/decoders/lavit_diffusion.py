"""LaVIT's pictures: codes to features, features to the conditions of Stable Diffusion."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm import parts
from chiasm.decoders import DecoderContext, ImageDecoder
from chiasm.decoders.conditions import Condition
from chiasm.decoders.denoisers.unet import EXAMPLE_UNET, SDXL_UNET, UNet
from chiasm.decoders.denoising import Denoising
from chiasm.decoders.guidance import Guidance
from chiasm.decoders.schedulers.diffusers_schedulers import DDIM, DDIMScheduler
from chiasm.errors import RecipeError
from chiasm.nn.attention_pool import AttentionPool
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.nn.training_noise import TrainingNoise
from chiasm.parts.bounds import Cells, Depth, Heads, Pixels, Positive, Width
from chiasm.tokenizers import ContinuousTokenizer
from chiasm.tokenizers.detokenizer import Detokenizer
from chiasm.tokenizers.lavit import LaVITTokenizer
from chiasm.tokenizers.vae import EXAMPLE_VAE, SDXL_VAE, VAE

UNCONDITIONAL = 0.1  # share of images that learn without their condition (arXiv 2207.12598)
WIDTHS = (768, 1280)  # of the two halves of SDXL's tokens; the second is also that of its pooled vector


class CodeDiffusion(ImageDecoder):
    """What both of LaVIT's decoders share; a part adds `condition` and `empty`.

    It has a decoder of features of its own, which begins as the image tokenizer's and has learnt with the
    diffusion model since; the codebook is the tokenizer's.
    """

    def __init__(
        self,
        context: DecoderContext,
        *,
        size: int,
        steps: int,
        guidance: float,
        depth: int,
        heads: int,
        hidden: int,
        width: int | None,
        out_width: int | None,
        networks: tuple[dict[str, Any], dict[str, Any], dict[str, Any]],
    ):
        super().__init__()
        image_tokenizer = context.image_tokenizer
        if not isinstance(image_tokenizer, LaVITTokenizer):
            other = "nothing" if image_tokenizer is None else repr(image_tokenizer.name)
            raise RecipeError(
                f"image_decoder {self.name!r} decodes the codes of the image_tokenizer 'lavit', not of {other}"
            )
        # In a tuple, so that the tokenizer's weights are registered, saved and counted once, in its own slot.
        self._tokenizer = (image_tokenizer,)
        self.space = image_tokenizer.space
        self.size, self.steps, self.guidance = size, steps, Guidance(guidance)
        features = image_tokenizer.encoder.width
        self.detokenizer = Detokenizer(
            image_tokenizer.quantizer.vectors.shape[1],
            width or features,
            depth,
            heads,
            hidden,
            image_tokenizer.cells,
            out_width or features,
        )
        unet, vae, scheduler = networks
        autoencoder: VAE = parts.build("image_tokenizer", {"type": VAE.name, "size": size, "config": vae})
        denoiser = UNet(autoencoder.width, 0, config=unet)
        self.denoising = Denoising(denoiser, autoencoder, DDIMScheduler(config=scheduler), size)

    @property
    def autoencoder(self) -> ContinuousTokenizer | None:
        return self.denoising.autoencoder

    @abstractmethod
    def condition(self, features: Float[Tensor, "n p c"]) -> Condition:
        """What the diffusion model draws after."""

    @abstractmethod
    def empty(self, condition: Condition) -> Condition:
        """What guidance leads away from, of the shape of `condition`."""

    def features(self, codes: Int[Tensor, "n 1 k"]) -> Float[Tensor, "n p c"]:
        """Rebuilt features of pictures; raises ChiasmError on codes out of range."""
        return self.detokenizer(*self._tokenizer[0].vectors(codes))

    def latents(
        self,
        codes: Int[Tensor, "n 1 k"],
        generators: Generators,
        noise: Float[Tensor, "n c h w"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Latents of images. noise: that they begin with; None = the generators' own."""
        condition = self.condition(self.features(codes))
        return self.denoising.sample(
            condition,
            self.empty(condition),
            generators,
            steps=self.steps,
            guidance=self.guidance,
            noise=noise,
        )

    def losses(
        self,
        target: Int[Tensor, "n 1 k"],
        pixels: Float[Tensor, "n 3 h w"],
        *,
        source: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]:
        """The error of the predicted noise; a share of images without their codes, for guidance."""
        self.check_inputs(target, pixels=pixels, source=source)
        random = TrainingNoise(pixels)
        condition = self.condition(self.features(target))
        condition = condition.where(random.uniform() < UNCONDITIONAL, self.empty(condition))
        return {"diffusion": self.denoising.drawn_loss(condition, self.denoising.latents(pixels), random)}

    def learners(self) -> Mapping[str, nn.Module]:
        """All but the autoencoder of pixels, whose latents stay what they are."""
        children = {name: module for name, module in self.named_children() if name != "denoising"}
        return {**children, "denoising.denoiser": self.denoising.denoiser}

    @torch.no_grad()
    def decode(
        self,
        target: Int[Tensor, "n 1 k"],
        *,
        generators: Generators | None = None,
        negative: Tensor | None = None,
        guidance: float | None = None,
        source: Float[Tensor, "n 3 h w"] | None = None,
    ) -> Float[Tensor, "n 3 h w"]:
        """Images of codes; the same seed gives the same image."""
        self.check_inputs(target, generators=generators, negative=negative, guidance=guidance, source=source)
        own = (generators or Generators(range(len(target)))).for_pixels()
        return self.denoising.pixels(self.latents(target, own))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32, "steps": 2, "depth": 1, "heads": 2, "hidden": 16, "vae": EXAMPLE_VAE}

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        return {"image_tokenizer": {"type": LaVITTokenizer.name, **LaVITTokenizer.example(), "painter": None}}


class LaVITDiffusion(CodeDiffusion, name="lavit_diffusion"):
    """LaVIT's decoder for large pictures (arXiv 2309.04669): codes, features, Stable Diffusion XL.

    The features become SDXL's 2048 channels of tokens by two projections and its pooled vector by attention
    pooling. What guidance leads away from is all zeros. It needs `chiasm[diffusion]`.

    Args:
        size: height and width of the pictures in pixels.
        steps: of DDIM.
        guidance: of the diffusion model, toward the codes; 1 = none.
        depth: blocks of the decoder of features.
        heads: attention heads of the decoder of features and of the pooling.
        hidden: hidden width of the decoder's MLPs.
        width: channels of the decoder of features; null = those of the tokenizer's features.
        out_width: channels of a rebuilt feature; null = those of the tokenizer's features.
        unet: configuration of diffusers' UNet2DConditionModel, in full; the default is SDXL's.
        vae: configuration of diffusers' AutoencoderKL, in full; the default is SDXL's.
        scheduler: configuration of diffusers' DDIMScheduler.
    """

    def __init__(
        self,
        context: DecoderContext,
        *,
        size: Pixels = 1024,
        steps: Cells = 25,
        guidance: Positive = 7.0,
        depth: Depth = 12,
        heads: Heads = 16,
        hidden: Width = 6144,
        width: Width | None = None,
        out_width: Width | None = None,
        unet: dict[str, Any] = SDXL_UNET,
        vae: dict[str, Any] = SDXL_VAE,
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
        self.token_projections = nn.ModuleList(nn.Linear(features, wide) for wide in WIDTHS)
        self.pool = AttentionPool(self._tokenizer[0].cells, features, heads, WIDTHS[1])

    def condition(self, features: Float[Tensor, "n p c"]) -> Condition:
        tokens = torch.cat([project(features) for project in self.token_projections], dim=-1)
        # Original size, upper left corner of the crop, size to draw: a whole picture.
        sizes = torch.tensor([self.size, self.size, 0, 0, self.size, self.size], device=tokens.device)
        times = sizes.to(tokens.dtype).expand(len(tokens), -1)
        return Condition(tokens, added={"text_embeds": self.pool(features), "time_ids": times})

    def empty(self, condition: Condition) -> Condition:
        assert condition.added is not None
        pooled = torch.zeros_like(condition.added["text_embeds"])
        return Condition(torch.zeros_like(condition.tokens), added={**condition.added, "text_embeds": pooled})

    @classmethod
    def example(cls) -> dict[str, Any]:
        unet = {
            **EXAMPLE_UNET,
            "cross_attention_dim": sum(WIDTHS),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 1280 + 6 * 8,  # the pooled vector, and six numbers
        }
        return {**super().example(), "unet": unet}
