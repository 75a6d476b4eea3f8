"""Layers with which a denoising network reads boxes: GLIGEN (arXiv 2301.07093)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from chiasm.errors import RecipeError
from chiasm.nn.multi_head import attend_in_heads

FREQUENCIES = 8  # of each edge of a box
HIGHEST = 100  # radians over the image: the frequencies rise from 1 to almost this
HIDDEN = 512  # of the network that makes a box's token


class Grounding(NamedTuple):
    """What the network's gates read. tokens: one a box. scale: 1 = all of it, 0 = as if there were no boxes."""

    tokens: Float[Tensor, "n k d"]
    scale: float = 1.0


class BoxTokens(nn.Module):
    """A token for each box: where it is, and what shall be in it.

    Args:
        phrase_width: of the phrases' embeddings.
        width: of a token.
    """

    def __init__(self, phrase_width: int, width: int):
        super().__init__()
        place_width = 4 * 2 * FREQUENCIES
        self.network = nn.Sequential(
            nn.Linear(phrase_width + place_width, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, width),
        )
        self.no_phrase = nn.Parameter(torch.zeros(phrase_width))
        self.no_place = nn.Parameter(torch.zeros(place_width))

    def forward(
        self,
        boxes: Float[Tensor, "n k 4"],
        phrases: Float[Tensor, "n k p"],
        present: Float[Tensor, "n k"],
    ) -> Float[Tensor, "n k d"]:
        """boxes: left, top, right, bottom in [0, 1] of the image. present: 1 for a box, 0 for what fills up."""
        present = present[..., None]
        phrases = phrases * present + (1 - present) * self.no_phrase
        places = waves(boxes) * present + (1 - present) * self.no_place
        return self.network(torch.cat([phrases, places], -1))


def waves(boxes: Float[Tensor, "*s 4"]) -> Float[Tensor, "*s w"]:
    """Sines and cosines of the edges, frequency by frequency."""
    powers = torch.arange(FREQUENCIES, device=boxes.device) / FREQUENCIES
    angles = boxes[..., None, :] * (HIGHEST**powers).to(boxes.dtype)[:, None]
    return rearrange([angles.sin(), angles.cos()], "wave ... f edge -> ... (f wave edge)")


class GatedBlock(nn.Module):
    """A layer that adds what an image reads of its boxes, through gates that begin closed.

    Args:
        width: of the image's tokens.
        context_width: of the boxes'.
        heads: of attention.
    """

    def __init__(self, width: int, context_width: int, heads: int):
        super().__init__()
        self.head_width = width // heads
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key, self.value = (
            nn.Linear(self.read_width(width, context_width), width, bias=False) for _ in "kv"
        )
        self.out = nn.Linear(width, width)
        self.mlp = GroundedMLP(width)
        self.gate, self.mlp_gate = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    @staticmethod
    def read_width(width: int, context_width: int) -> int:
        """Of what keys and values are made of."""
        return width

    @abstractmethod
    def read(self, x: Float[Tensor, "n q c"], tokens: Float[Tensor, "n k d"]) -> Float[Tensor, "n q c"]:
        """What an image's tokens read of its boxes."""

    def attend(self, queries: Float[Tensor, "n q c"], keys: Float[Tensor, "n k e"]) -> Float[Tensor, "n q c"]:
        return self.out(
            attend_in_heads(self.query(queries), self.key(keys), self.value(keys), self.head_width)
        )

    def forward(self, x: Float[Tensor, "n q c"], grounding: Grounding) -> Float[Tensor, "n q c"]:
        tokens, scale = grounding
        if scale == 0:
            return x
        x = x + scale * self.gate.tanh() * self.read(x, tokens)
        return x + scale * self.mlp_gate.tanh() * self.mlp(self.mlp_norm(x))


class GatedSelfAttention(GatedBlock):
    """Image and boxes attend to themselves together; what the boxes become is dropped."""

    def __init__(self, width: int, context_width: int, heads: int):
        super().__init__(width, context_width, heads)
        self.boxes = nn.Linear(context_width, width)

    def read(self, x: Float[Tensor, "n q c"], tokens: Float[Tensor, "n k d"]) -> Float[Tensor, "n q c"]:
        both = self.norm(torch.cat([x, self.boxes(tokens)], 1))
        return self.attend(both[:, : x.shape[1]], both)


class GroundedAttention(GatedBlock):
    """The image attends to its boxes."""

    @staticmethod
    def read_width(width: int, context_width: int) -> int:
        return context_width

    def read(self, x: Float[Tensor, "n q c"], tokens: Float[Tensor, "n k d"]) -> Float[Tensor, "n q c"]:
        return self.attend(self.norm(x), tokens)


class GroundedMLP(nn.Module):
    """An MLP of four times the width, half of whose first layer opens and closes the other (GEGLU)."""

    def __init__(self, width: int):
        super().__init__()
        self.input, self.output = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "*s c"]) -> Float[Tensor, "*s c"]:
        values, gates = self.input(x).chunk(2, -1)
        return self.output(values * F.gelu(gates))


class AsTheyAre(nn.Module):
    """In the place where diffusers makes tokens of boxes, which `BoxTokens` has made."""

    def forward(self, tokens: Float[Tensor, "n k d"], scale: float) -> Grounding:
        return Grounding(tokens, scale)


def grounding_scales(steps: int, shares: Sequence[float] = (0.3, 0.0, 0.7)) -> list[float]:
    """How much the gates say at each step: all of it, then less and less, then nothing, which draws better images.

    shares: of the steps in each of the three; the default is VITRON's. Raises RecipeError unless they add up to 1,
        and for so few steps that none comes of a share with open gates.
    """
    check_shares(shares)
    whole, falling = int(shares[0] * steps), int(shares[1] * steps)
    scales = [1.0] * whole + [(falling - 1 - i) / falling for i in range(falling)]
    if (shares[0] or shares[1]) and not any(scales):
        raise RecipeError(
            f"gates that are open for {shares[0]:g} and close for {shares[1]:g} of the steps are open in none of "
            f"{steps}: boxes would not be read; take more steps or larger shares"
        )
    return scales + [0.0] * (steps - len(scales))


def check_shares(shares: Sequence[float]) -> None:
    """Raises RecipeError for shares of the steps that do not add up to 1."""
    if min(shares) < 0 or not math.isclose(sum(shares), 1):
        raise RecipeError(
            f"the shares of the steps are {shares}; none may be below 0, and they must add up to 1"
        )
