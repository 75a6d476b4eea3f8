"""Stable Diffusion's network that puts named things into boxes: GLIGEN, with which VITRON draws."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from chiasm.decoders.conditions import Condition
from chiasm.decoders.denoisers import Denoiser
from chiasm.decoders.denoisers.unet import (
    EXAMPLE_UNET,
    SD15_UNET,
    check_channels,
    check_inputs,
    token_width,
)
from chiasm.decoders.grounding import (
    AsTheyAre,
    BoxTokens,
    GatedSelfAttention,
    GroundedAttention,
    Grounding,
    check_shares,
    grounding_scales,
)
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.diffusers_library import create
from chiasm.parts.bounds import Share, Width

Shares = Annotated[list[Share], Field(min_length=3, max_length=3)]


class GroundedUNet(Denoiser, name="grounded_unet"):
    """diffusers' UNet2DConditionModel with a gated layer in each transformer block that reads boxes (GLIGEN, arXiv
    2301.07093).

    The gates begin closed: a network of Stable Diffusion is unchanged until they learn. With `edits` it paints into
    the boxes of a source image: it reads the source outside of them, and where that is (4 + 4 + 1 channels), and a
    generation puts the rest of the source back before each step (not after the last, as published: what it makes
    of the rest is near to the source, not equal). Of a conditioner that knows no boxes it is as if there were no
    gates. It needs `chiasm[diffusion]`.

    Args:
        config: configuration of UNet2DConditionModel; the default is Stable Diffusion 1.5's.
        phrase_width: of the vector that says what is in a box; null = as wide as the words' tokens.
        gate: how an image reads its boxes: both attend to themselves together (`self`, as published), or the image
            attends to the boxes (`cross`).
        shares: of a generation's steps, in which the gates are open, close step by step, and are closed. Too few
            steps for any with boxes are an error.
    """

    def __init__(
        self,
        channels: int,
        source_channels: int,
        *,
        config: dict[str, Any] = SD15_UNET,
        phrase_width: Width | None = None,
        gate: Literal["self", "cross"] = "self",
        shares: Shares = [0.3, 0.0, 0.7],  # noqa: B006 (never changed)
    ):
        super().__init__()
        who = f"denoiser {self.name!r}"
        self.unet: Any = create("UNet2DConditionModel", config, who)
        full = self.unet.config
        read = channels + (source_channels + 1 if source_channels else 0)
        beside = f", {source_channels} of the image to change and its mask" if source_channels else ""
        check_channels(full, who, channels, read, beside)
        check_inputs(full, f"{who} reads tokens and boxes")
        if full["attention_type"] != "default":
            raise RecipeError(f"{who} has gates of its own; leave attention_type out of its configuration")
        width = token_width(full, who)
        self.channels, self.token_width, self.phrase_width = channels, width, phrase_width or width
        self.keeps_parts = bool(source_channels)
        self.shares = shares
        check_shares(shares)
        self.boxes = BoxTokens(self.phrase_width, width)
        from diffusers.models.attention import BasicTransformerBlock

        self.unet.position_net = AsTheyAre()
        kind = {"self": GatedSelfAttention, "cross": GroundedAttention}[gate]
        for block in self.unet.modules():
            if isinstance(block, BasicTransformerBlock):
                fuser: Any = kind(block.dim, width, block.attn1.heads)
                block.fuser = fuser

    def forward(
        self, x: Float[Tensor, "n c h w"], times: Tensor, condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        if condition.source is not None:
            x = torch.cat([x, condition.source.to(x.dtype)], 1)
        channels = self.unet.config["in_channels"]
        if x.shape[1] != channels:
            raise ChiasmError(
                f"{x.shape[1]} channels given to a denoiser {self.name!r} of {channels}"
                + (", which are latents, source and mask" if self.keeps_parts else "")
            )
        return self.unet(
            x,
            times,
            encoder_hidden_states=condition.tokens,
            encoder_attention_mask=condition.mask,
            cross_attention_kwargs={"gligen": self._grounding(condition)._asdict()},
        ).sample  # type: ignore[no-any-return]

    def gates(self, steps: int) -> list[float]:
        return grounding_scales(steps, self.shares)

    def source(
        self, latents: Float[Tensor, "n c h w"], own_scale: Float[Tensor, "n c h w"], condition: Condition
    ) -> Float[Tensor, "n c2 h w"]:
        height, width = latents.shape[-2:]
        keeps = self.keeps(condition, (height, width))
        if keeps is None:
            raise ChiasmError(
                f"denoiser {self.name!r} paints into boxes, and is given none; take conditioner 'grounded_text', "
                "and words with a <region>"
            )
        return torch.cat([latents * keeps, keeps], 1)

    def keeps(self, condition: Condition, grid: tuple[int, int]) -> Float[Tensor, "n 1 h w"] | None:
        """Outside of all boxes."""
        if condition.added is None or "boxes" not in condition.added:
            return None
        boxes, present = condition.added["boxes"], condition.added["present"]
        height, width = grid
        rows, columns = (torch.arange(count, device=boxes.device) for count in (height, width))
        left, top, right, bottom = (
            edge[..., None, None]
            for edge in (boxes * boxes.new_tensor([width, height] * 2)).round().unbind(-1)
        )
        inside = (rows[:, None] >= top) & (rows[:, None] < bottom) & (columns >= left) & (columns < right)
        drawn = (inside & (present > 0)[..., None, None]).any(1, keepdim=True)
        return (~drawn).to(boxes.dtype)

    def _grounding(self, condition: Condition) -> Grounding:
        added = condition.added
        if added is None or "boxes" not in added or condition.gates == 0:
            nothing = condition.tokens.new_zeros(len(condition.tokens), 0, self.token_width)
            return Grounding(nothing, 0.0)
        tokens = self.boxes(added["boxes"], added["phrases"], added["present"])
        return Grounding(tokens, condition.gates)

    @classmethod
    def example(cls) -> dict[str, Any]:
        own = {"cross_attention_dim": 24, "in_channels": 3, "out_channels": 3}
        return {"config": {**EXAMPLE_UNET, **own}, "shares": [0.5, 0.0, 0.5]}
