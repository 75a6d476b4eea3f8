"""LaVIT's pictures: codes to features, features to the conditions of Stable Diffusion."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.connectors.learnt import attend
from chiasm.decoders import ImageDecoder
from chiasm.decoders.diffusion import (
    DDIM,
    EXAMPLE_UNET,
    EXAMPLE_VAE,
    SDXL_UNET,
    SDXL_VAE,
    Condition,
    LatentDiffusion,
)
from chiasm.errors import RecipeError
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Cells, Depth, Heads, Pixels, Positive, Width
from chiasm.tokenizers import ImageTokenizer
from chiasm.tokenizers.detokenizer import Detokenizer
from chiasm.tokenizers.lavit import LaVITTokenizer

UNCONDITIONAL = 0.1  # share of images that learn without their condition (arXiv 2207.12598)
WIDTHS = (768, 1280)  # of the two halves of SDXL's tokens; the second is also that of its pooled vector


class CodeDiffusion(ImageDecoder):
    """What both of LaVIT's decoders share; a part adds `condition` and `empty`.

    It has a decoder of features of its own, which begins as the image tokenizer's and has learnt with the
    diffusion model since; the codebook is the tokenizer's.
    """

    def __init__(
        self,
        image_tokenizer: ImageTokenizer,
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
        if not isinstance(image_tokenizer, LaVITTokenizer):
            raise RecipeError(
                f"image_decoder {self.name!r} decodes the codes of the image_tokenizer 'lavit', not of "
                f"{image_tokenizer.name!r}"
            )
        # In a tuple, so that the tokenizer's weights are registered, saved and counted once, in its own slot.
        self._tokenizer = (image_tokenizer,)
        self.size, self.steps, self.guidance = size, steps, guidance
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
        self.diffusion = LatentDiffusion(*networks)

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
        self, codes: Int[Tensor, "n 1 k"], noise: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Latents of pictures that begin as `noise`."""
        condition = self.condition(self.features(codes))
        return self.diffusion.sample(
            condition, self.empty(condition), noise, steps=self.steps, guidance=self.guidance
        )

    def losses(self, codes: Int[Tensor, "n 1 k"], pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """The error of the predicted noise; a share of images without their codes, for guidance."""
        condition = self.condition(self.features(codes))
        dropped = torch.rand(len(codes), device=codes.device) < UNCONDITIONAL
        condition = condition.where(dropped, self.empty(condition))
        return {"diffusion": self.diffusion.loss(condition, pixels)}

    def learners(self) -> Mapping[str, nn.Module]:
        """All but the autoencoder of pixels, whose latents stay what they are."""
        children = {name: module for name, module in self.named_children() if name != "diffusion"}
        return {**children, "diffusion.unet": self.diffusion.unet}

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, "n 1 k"], *, generators: Generators | None = None
    ) -> Float[Tensor, "n 3 h w"]:
        """Pictures of codes; the same seed gives the same picture."""
        noise = self.diffusion.noise(len(codes), self.size, generators)
        return self.diffusion.pixels(self.latents(codes, noise)).clamp(0, 1)

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
        image_tokenizer: ImageTokenizer,
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
            image_tokenizer,
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


class AttentionPool(nn.Module):
    """The mean of the features looks at all of them and at itself (CLIP's pooling, arXiv 2103.00020)."""

    def __init__(self, cells: int, width: int, heads: int, out_width: int):
        super().__init__()
        self.head_width = width // heads
        self.positions = nn.Parameter(torch.randn(cells + 1, width) * width**-0.5)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, out_width)

    def forward(self, features: Float[Tensor, "n p c"]) -> Float[Tensor, "n d"]:
        x = torch.cat([features.mean(1, keepdim=True), features], dim=1) + self.positions
        pooled = attend(self.query(x[:, :1]), self.key(x), self.value(x), self.head_width)
        return rearrange(self.out(pooled), "n 1 d -> n d")
