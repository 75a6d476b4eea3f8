"""Images by diffusion or flow, conditioned on what a head has written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from chiasm.decoders import DecoderContext, ImageDecoder
from chiasm.decoders.conditioners import Conditioner, ConditionerContext
from chiasm.decoders.conditioners.vectors import ANY
from chiasm.decoders.conditions import Condition
from chiasm.decoders.denoisers import PIXELS, Denoiser
from chiasm.decoders.denoisers.unet import EXAMPLE_UNET
from chiasm.decoders.denoising import Denoising, Kept
from chiasm.decoders.guidance import Guidance
from chiasm.decoders.schedulers import Scheduler
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.nn.training_noise import TrainingNoise
from chiasm.parts.bounds import Chance, Decay, Pixels, Positive, Share
from chiasm.tokenizers import ContinuousTokenizer
from chiasm.tokenizers.spaces import Vectors

Steps = Annotated[int, Field(ge=1, le=1000)]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class DiffusionDecoder(ImageDecoder, name="diffusion"):
    """A denoiser that makes an image of noise, conditioned on codes, vectors or words (Emu2, arXiv 2312.13286;
    DreamLLM, 2309.11499; NExT-GPT, 2309.05519; SEED-X, 2404.14396).

    Trained alone, on what the image tokenizer makes of images, it is the second half of an autoencoder. Frozen
    behind a head that writes conditions, its loss teaches that head. What guidance leads away from is an empty
    condition, unless a negative target is given.

    Args:
        size: height and width of the images in pixels.
        autoencoder: an image tokenizer of vectors in whose latents it works; null = in pixels.
        edits: it changes a source image, whose latents are concatenated to the noisy ones (InstructPix2Pix, arXiv
            2211.09800).
        denoiser: the network.
        conditioner: from a target to what the network is conditioned on; null = not known yet, as of an imported
            decoder whose recipe has still to name one.
        scheduler: of noise, in training and in generation.
        steps: of a generation.
        guidance: toward the target; 1 = none.
        source_guidance: toward the source image; 1 = none.
        guidance_rescale: how far a guided prediction's deviation is brought back (arXiv 2305.08891); 0 = none.
        unconditional: share of training images that learn without their target, and with `edits` as many each
            without their source and without both.
        min_snr: bound of the signal-to-noise ratio that weighs the loss (arXiv 2303.09556); null = no weights.
        noise_offset: deviation of a training noise that is the same all over a channel.
        average: decay of a moving average of the denoiser's weights, with which it generates; null = none.
    """

    guided = True

    def __init__(
        self,
        context: DecoderContext,
        *,
        size: Pixels = 512,
        autoencoder: ContinuousTokenizer | None = None,
        edits: bool = False,
        denoiser: Denoiser,
        conditioner: Conditioner | None,
        scheduler: Scheduler,
        steps: Steps = 50,
        guidance: Scale = 7.5,
        source_guidance: Scale = 1.0,
        guidance_rescale: Share = 0.0,
        unconditional: Chance = 0.1,
        min_snr: Positive | None = None,
        noise_offset: Share = 0.0,
        average: Decay | None = None,
    ):
        super().__init__()
        if autoencoder is not None and autoencoder.size != size:
            raise RecipeError(
                f"image_decoder {self.name!r} makes images of {size} pixels, but its autoencoder works on "
                f"{autoencoder.size}; give both the same size"
            )
        if not edits and source_guidance != 1:
            raise RecipeError(
                f"image_decoder {self.name!r}: source_guidance is for a decoder with edits: true"
            )
        if edits and 3 * unconditional >= 1:
            raise RecipeError(
                f"image_decoder {self.name!r}: with edits a share of {unconditional} each learns without target, "
                "without source and without both; it must be below 1/3"
            )
        self.size, self.edits, self.steps = size, edits, steps
        self.guidance = Guidance(guidance, source_guidance, guidance_rescale)
        self.unconditional, self.min_snr, self.noise_offset = unconditional, min_snr, noise_offset
        self.conditioner = conditioner
        self.caption_words = 0 if conditioner is None else conditioner.caption_words
        self.space = Vectors(ANY, denoiser.token_width) if conditioner is None else conditioner.space
        self.denoising = Denoising(denoiser, autoencoder, scheduler, size, average)
        sampler = scheduler.sampler(steps)  # a number of steps that it cannot take is an error now
        denoiser.gates(len(sampler.times))
        if denoiser.keeps_parts and sampler.start != 1:
            raise RecipeError(
                f"image_decoder {self.name!r}: scheduler {scheduler.name!r} has noise of another scale, in which "
                f"denoiser {denoiser.name!r} can keep no part of an image; take ddim, ddpm, pndm or flow"
            )
        if min_snr is not None:
            scheduler.min_snr_weights(torch.zeros(1, dtype=torch.long, device="cpu"), min_snr)

    @classmethod
    def held_wiring(cls, option: str, wiring: Sequence[Any], built: Mapping[str, Any]) -> Sequence[Any]:
        if option == "denoiser":
            autoencoder = built["autoencoder"]
            channels = PIXELS if autoencoder is None else autoencoder.width
            return channels, channels if built["edits"] else 0
        if option == "conditioner":
            denoiser, (context,) = built["denoiser"], wiring
            widths = denoiser.token_width, denoiser.pooled_width
            return (ConditionerContext(context.space, *widths, context.reader, denoiser.phrase_width),)
        return ()

    @property
    def autoencoder(self) -> ContinuousTokenizer | None:
        return self.denoising.autoencoder

    @property
    def reads_mixtures(self) -> bool:
        return self.conditioner is not None and self.conditioner.mixtures

    def standalone(self) -> dict[str, Any]:
        own = self.conditioner.standalone() if self.conditioner is not None else {}
        return {"conditioner": {**self.conditioner.spec, **own}} if own and self.conditioner else {}

    def condition(self, target: Tensor, source: Float[Tensor, "n 3 h w"] | None = None) -> Condition:
        """What the denoiser is conditioned on; raises ChiasmError for a target of another form."""
        return self._condition(target, self._latents(source))

    def _condition(self, target: Tensor, source: Float[Tensor, "n c h w"] | None) -> Condition:
        """source: latents of the image to change."""
        if self.conditioner is None:
            raise ChiasmError(
                f"image_decoder {self.name!r} has no conditioner: its recipe must name one before it can learn "
                "or decode"
            )
        condition = self.conditioner(target)
        if self.denoising.denoiser.pooled_width is not None:
            condition = condition._replace(
                added={**condition.added, "time_ids": self._sizes(condition.tokens)}
            )
        if source is None:
            return condition
        read = self.denoising.denoiser.source(source, self._in_own_scale(source), condition)
        return condition._replace(source=read)

    def empty(self, condition: Condition) -> Condition:
        """The same without a target."""
        assert self.conditioner is not None
        empty = self.conditioner.empty(condition)
        if condition.added is not None and "time_ids" in condition.added:
            empty = empty._replace(added={**(empty.added or {}), "time_ids": condition.added["time_ids"]})
        return empty._replace(source=condition.source)

    @torch.no_grad()
    def decode(
        self,
        target: Tensor,
        *,
        generators: Generators | None = None,
        negative: Tensor | None = None,
        guidance: float | None = None,
        source: Float[Tensor, "n 3 h w"] | None = None,
    ) -> Float[Tensor, "n 3 h w"]:
        """Images of targets; the same seed gives the same image."""
        self.check_inputs(target, generators=generators, negative=negative, guidance=guidance, source=source)
        source_latents = self._latents(source)
        condition = self._condition(target, source_latents)
        without = (
            self.empty(condition)
            if negative is None
            else self._condition(negative, None)._replace(source=condition.source)
        )
        if without.tokens.shape != condition.tokens.shape:
            raise ChiasmError(
                f"image_decoder {self.name!r}: the targets have the shape {tuple(target.shape)}, but the negative "
                f"ones {tuple(target.shape if negative is None else negative.shape)}; they must be alike"
            )
        latents = self.denoising.sample(
            condition,
            without,
            (generators or Generators(range(len(target)))).for_pixels(),
            steps=self.steps,
            guidance=self._guidance(guidance),
            kept=self._kept(condition, source_latents),
        )
        return self.denoising.pixels(latents)

    def losses(
        self,
        target: Tensor,
        pixels: Float[Tensor, "n 3 h w"],
        *,
        source: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]:
        """The error of what the denoiser predicts; some images learn without their target, for guidance."""
        self.check_inputs(target, pixels=pixels, source=source)
        clean = self.denoising.latents(pixels)
        random = TrainingNoise(pixels)
        condition = self._dropped(self.condition(target, source), random.uniform())
        loss = self.denoising.drawn_loss(
            condition, clean, random, min_snr=self.min_snr, noise_offset=self.noise_offset
        )
        return {"diffusion": loss}

    def check_words(self, text: str, called: str) -> None:
        if self.conditioner is not None:
            self.conditioner.check_words(text, called)

    def caption_losses(self, target: Tensor, words: Int[Tensor, "n k"]) -> dict[str, Loss]:
        return {} if self.conditioner is None else self.conditioner.caption_losses(target, words)

    def learners(self) -> Mapping[str, nn.Module]:
        """All but the autoencoder of pixels, whose latents stay what they are."""
        own = {} if self.conditioner is None else self.conditioner.learners()
        modules = {
            **{f"conditioner.{name}".rstrip("."): module for name, module in own.items()},
            "denoising.denoiser": self.denoising.denoiser,
            "denoising.average": self.denoising.average,
        }
        return {name: module for name, module in modules.items() if module is not None}

    def _dropped(self, condition: Condition, chance: Float[Tensor, " n"]) -> Condition:
        """The condition without the targets, the sources or both of some images."""
        share = self.unconditional
        if not share:
            return condition
        dropped = condition.where(chance < (2 if self.edits else 1) * share, self.empty(condition))
        if condition.source is None:
            return dropped
        without_source = (chance >= share) & (chance < 3 * share)
        return dropped.where(without_source, dropped.with_zero_source())

    def _guidance(self, scale: float | None) -> Guidance:
        if scale is None:
            return self.guidance
        return Guidance(scale, self.guidance.source_scale, self.guidance.rescale)

    def _kept(self, condition: Condition, source: Float[Tensor, "n c h w"] | None) -> Kept | None:
        """Of the latents of a source, what the denoiser puts back before each step."""
        if source is None:
            return None
        rows, columns = source.shape[-2:]
        where = self.denoising.denoiser.keeps(condition, (rows, columns))
        return Kept(source, where) if where is not None else None

    def source_latents(self, source: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """Of the image to change, in the autoencoder's own scale, as InstructPix2Pix and SEED-X take them."""
        return self._in_own_scale(self.denoising.latents(source))

    def _latents(self, source: Float[Tensor, "n 3 h w"] | None) -> Float[Tensor, "n c h w"] | None:
        return None if source is None else self.denoising.latents(source)

    def _in_own_scale(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Latents in the scale of the autoencoder."""
        autoencoder = self.autoencoder
        return latents if autoencoder is None else latents / autoencoder.scaling + autoencoder.shift

    def _sizes(self, like: Tensor) -> Float[Tensor, "n 6"]:
        """Original size, upper left corner of the crop, size to make: a whole image (SDXL, arXiv 2307.01952)."""
        sizes = torch.tensor([self.size, self.size, 0, 0, self.size, self.size], device=like.device)
        return sizes.to(like.dtype).expand(len(like), -1)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "size": 32,
            "denoiser": {
                "type": "unet",
                "config": {**EXAMPLE_UNET, "cross_attention_dim": 24, "in_channels": 3, "out_channels": 3},
            },
            "conditioner": {"type": "codes"},
            "scheduler": {"type": "ddim"},
            "steps": 2,
        }
