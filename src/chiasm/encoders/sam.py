"""SAM's vision transformer: windows, global blocks, relative positions, neck."""

from __future__ import annotations

import re
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.encoders import Encoder
from chiasm.encoders.preprocessor import IMAGENET
from chiasm.encoders.resizing import antialiased
from chiasm.encoders.windowed import WindowedBlock
from chiasm.errors import RecipeError
from chiasm.nn.activations import Activation
from chiasm.parts.bounds import Cells, Depth, Epsilon, Heads, LayerIndex, Pixels, Width
from chiasm.storage.skeleton import weightless
from chiasm.storage.weights import load_into, read_tensors, resolve

NECK_EPSILON = 1e-6  # of the neck's LayerNorms
# Before an encoder's tensors: Meta's, transformers', and Vary's, whose tower goes on behind the neck.
PLACES = re.compile(r"(?:\w+\.)*(?:image_encoder|vision_encoder|vision_tower_high|model\.vision_tower)\.(.+)")
# Parts of names in those checkpoints, and what they are called here.
RENAMED = {
    "patch_embed.projection.": "patchify.",
    "patch_embed.proj.": "patchify.",
    "pos_embed": "positions",
    "neck.conv1.": "neck.0.",
    "neck.layer_norm1.": "neck.1.",
    "neck.conv2.": "neck.2.",
    "neck.layer_norm2.": "neck.3.",
    "net_2.": "downsample.0.",
    "net_3.": "downsample.1.",
    "layers.": "blocks.",
    ".layer_norm1.": ".attention_norm.",
    ".layer_norm2.": ".mlp_norm.",
    ".norm1.": ".attention_norm.",
    ".norm2.": ".mlp_norm.",
    ".attn.proj.": ".attention.out.",
    ".attn.rel_pos_h": ".attention.row_distances",
    ".attn.rel_pos_w": ".attention.column_distances",
    ".attn.": ".attention.",
    ".lin1.": ".0.",
    ".lin2.": ".2.",
}


class Sam(Encoder, name="sam"):
    """SAM's image encoder: a ViT that looks in windows, with a convolutional neck (arXiv 2304.02643).

    The defaults are SAM-B. Vary (arXiv 2312.06109) appends `downsample: [512, 1024]`; DeepSeek-VL (arXiv
    2403.05525) likewise, with `resize: 96` and `early: true`. Pixels are normalised by ImageNet's statistics.

    Args:
        checkpoint: SAM's weights, as Meta or transformers name them (facebook/sam-vit-base), or those of Vary's
            tower; what stands behind SAM's neck begins from scratch. null = all of it does.
        size: side in pixels of the pictures whose positions are learned; interpolated for others.
        patch_size: side of a patch in pixels.
        width: channels inside the blocks.
        depth: blocks.
        heads: attention heads; they must divide `width`.
        hidden: hidden width of a block's MLP.
        activation: of the MLPs.
        window: side, in patches, of the windows; at the lower and right edge they are filled up with zeros.
        global_layers: the blocks, counted from 0, that look at the whole grid instead.
        bias: whether queries, keys and values add one.
        absolute: whether patches get learned positions at the bottom.
        relative: whether attention adds learned relative positions, row and column apart.
        neck: channels of the neck's output.
        downsample: channels of further convolutions, each of which halves rows and columns.
        resize: rows and columns to which the neck's output is resized (bilinear) first; null = not at all.
        early: add what the neck's twin and the same convolutions make of the first global block's output, times
            a learned factor.
        epsilon: of the blocks' LayerNorms.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        size: Pixels = 1024,
        patch_size: Pixels = 16,
        width: Width = 768,
        depth: Depth = 12,
        heads: Heads = 12,
        hidden: Width = 3072,
        activation: Activation = "gelu",
        window: Cells = 14,
        global_layers: list[LayerIndex] = [2, 5, 8, 11],  # noqa: B006  read only
        bias: bool = True,
        absolute: bool = True,
        relative: bool = True,
        neck: Width = 256,
        downsample: list[int] = [],  # noqa: B006  read only
        resize: Pixels | None = None,
        early: bool = False,
        epsilon: Epsilon = 1e-6,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"encoder 'sam': {heads} heads do not divide the width {width}")
        if any(not 0 <= layer < depth for layer in global_layers) or (early and not global_layers):
            raise RecipeError(
                f"encoder 'sam' of {depth} blocks cannot have the global layers {global_layers}"
            )
        self.patch_size, self.resize, self.halvings = patch_size, resize, len(downsample)
        self.early = min(global_layers) if early else None
        self.width = [neck, *downsample][-1]
        rows, columns = self._patches(size, size)
        self.patchify = nn.Conv2d(3, width, patch_size, patch_size)
        self.positions = nn.Parameter(torch.randn(1, rows, columns, width) * 0.02) if absolute else None
        self.blocks = nn.ModuleList(
            WindowedBlock(
                width,
                heads,
                hidden,
                activation,
                None if i in global_layers else window,
                bias,
                rows if relative else None,
                epsilon,
            )
            for i in range(depth)
        )
        self.neck = Neck(width, neck)
        self.downsample = nn.Sequential(
            *(
                nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False)
                for a, b in zip([neck, *downsample], downsample)
            )
        )
        self.early_neck = Neck(width, neck) if early else None
        self.early_scale = nn.Parameter(torch.zeros(1)) if early else None
        self.register_buffer("mean", torch.tensor(IMAGENET[0]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(IMAGENET[1]).view(3, 1, 1))
        if checkpoint is not None:
            self._load(checkpoint)

    def standalone(self) -> dict[str, Any]:
        return {"checkpoint": None}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self._patches(height, width)
        if self.resize is not None:
            rows = columns = self.resize
        for _ in range(self.halvings):
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        return rows, columns

    def extra_repr(self) -> str:
        return f"resize={self.resize}, early={self.early}"

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns = self._patches(*pixels.shape[-2:])
        x = rearrange(self.patchify((pixels - self.mean) / self.deviation), "n c gh gw -> n gh gw c")
        if self.positions is not None:
            x = x + self._positions(rows, columns)
        early = None
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == self.early:
                early = x
        features = self._shrink(self.neck(x))
        if early is not None and self.early_neck is not None and self.early_scale is not None:
            features = features + self._shrink(self.early_neck(early)) * self.early_scale
        return rearrange(features, "n c gh gw -> n gh gw c")

    def _load(self, reference: str) -> None:
        path = resolve(reference)
        if weightless():
            return
        tensors = read_tensors(path)
        renamed = {}
        for name, tensor in tensors.items():
            inner = PLACES.match(name)
            if inner is None:
                continue  # the prompt encoder and the mask decoder
            ours = inner.group(1)
            for theirs, our_part in RENAMED.items():
                ours = ours.replace(theirs, our_part)
            renamed[ours] = tensor
        if self.early_neck is not None:  # it begins as the neck's twin
            renamed |= {
                f"early_{name}": tensor for name, tensor in renamed.items() if name.startswith("neck.")
            }
        fresh = ("downsample.", "early_scale", "mean", "deviation")
        own = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(fresh)}
        load_into(self, own | renamed, reference)

    def _shrink(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 gh gw"]:
        if self.resize is not None:
            x = functional.interpolate(x, (self.resize, self.resize), mode="bilinear", align_corners=False)
        return self.downsample(x)

    def _patches(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch_size or width % self.patch_size:
            raise RecipeError(
                f"encoder 'sam' cannot cut {height}x{width} pixels into patches of {self.patch_size}; "
                f"choose a size of view that {self.patch_size} divides"
            )
        return height // self.patch_size, width // self.patch_size

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 gh gw c"]:
        assert self.positions is not None
        if self.positions.shape[1:3] == (rows, columns):
            return self.positions
        table: Tensor = rearrange(self.positions, "1 gh gw c -> 1 c gh gw")
        return rearrange(antialiased(table, (rows, columns), "bicubic"), "1 c gh gw -> 1 gh gw c")

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "size": 32,
            "patch_size": 8,
            "width": 16,
            "depth": 2,
            "heads": 2,
            "hidden": 32,
            "window": 3,
            "global_layers": [1],
            "neck": 8,
            "downsample": [12],
            "resize": 6,
            "early": True,
        }


class Neck(nn.Sequential):
    """Two convolutions without bias, each with a LayerNorm over channels."""

    def __init__(self, in_width: int, out_width: int):
        super().__init__(
            nn.Conv2d(in_width, out_width, 1, bias=False),
            ChannelNorm(out_width, NECK_EPSILON),
            nn.Conv2d(out_width, out_width, 3, padding=1, bias=False),
            ChannelNorm(out_width, NECK_EPSILON),
        )

    def forward(self, input: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n d gh gw"]:
        return super().forward(rearrange(input, "n gh gw c -> n c gh gw"))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place."""

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return rearrange(super().forward(rearrange(input, "n c h w -> n h w c")), "n h w c -> n c h w")
