"""A box of an image as one token of the language model: VITRON's region extractor."""

from __future__ import annotations

from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from chiasm.errors import ChiasmError


class RegionToken(nn.Module):
    """The mean of the features within a box, and where the box is (VITRON's code, after Osprey, arXiv 2312.10032).

    As in the original, rows of the mask are counted by x and columns by y: a box is read at its mirror image
    across the diagonal. Weights were trained that way.

    Args:
        in_width: channels of the features.
        out_width: of the language model.
        size: side in pixels of the image that was encoded, in which boxes are given.
    """

    def __init__(self, in_width: int, out_width: int, *, size: int = 224):
        super().__init__()
        self.size = size
        self.network = nn.Sequential(
            nn.Linear(in_width, out_width),
            nn.ReLU(),
            nn.Linear(out_width, out_width),
            nn.ReLU(),
            nn.Linear(out_width, out_width),
        )
        self.place = nn.Sequential(
            nn.Linear(4, out_width // 2), nn.ReLU(), nn.Linear(out_width // 2, out_width)
        )

    def forward(
        self, grid: Float[Tensor, "n gh gw c"], boxes: Float[Tensor, "n 4"]
    ) -> Float[Tensor, "n 1 d"]:
        """boxes: left, top, right, bottom in pixels, one an image. Raises ChiasmError for one without an area."""
        mask = self.mask(grid, boxes)
        area = mask.sum((1, 2))
        mean = einsum(grid, mask / (area + 1e-8)[:, None, None], "n gh gw c, n gh gw -> n c")
        return rearrange(self.network(mean) + self.place(boxes.to(mean.dtype)), "n d -> n 1 d")

    def mask(self, grid: Float[Tensor, "n gh gw c"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n gh gw"]:
        """1 where a cell has any part of the box."""
        masks = grid.new_zeros(len(boxes), 1, self.size, self.size)
        for mask, box in zip(masks[:, 0], boxes.tolist(), strict=True):
            left, top, right, bottom = (int(edge) for edge in box)
            if not (0 <= left < right <= self.size and 0 <= top < bottom <= self.size):
                raise ChiasmError(
                    f"the box {left}, {top}, {right}, {bottom} has no area within an image of {self.size} x "
                    f"{self.size} pixels; it must be left, top, right, bottom"
                )
            mask[left:right, top:bottom] = 1
        resized = F.interpolate(masks, size=grid.shape[1:3], mode="bilinear", align_corners=False)
        return (resized[:, 0] > 0).to(grid.dtype)
