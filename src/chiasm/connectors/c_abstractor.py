"""Honeybee's convolutional abstractor."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors import Connector
from chiasm.connectors.learnt import closing_tokens, learnt_positions, prenorm_layer, silu_mlp
from chiasm.parts.bounds import Cells, Count, Depth, Width


class CAbstractor(Connector, name="c_abstractor"):
    """Honeybee's C-Abstractor: convolutions, averaging to fewer cells, convolutions, MLP (arXiv 2312.06742).

    The convolutions are RegNet's bottlenecks, each channel by itself, with squeeze-and-excitation.

    Args:
        side: rows and columns of visual tokens (the paper's 144 tokens are 12).
        depth: bottlenecks before the averaging, and again behind it; 0 = averaging alone.
        width: channels of the bottlenecks; null = those of the features.
        mlp_depth: linear layers of the readout, with SiLU between them.
        prenorm: layer norm of the features first.
        positions: rows and columns of the features for which positions are learnt; null = none.
        closing: learnt tokens behind those of every picture.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        side: Cells = 4,
        depth: Count = 3,
        width: Width | None = None,
        mlp_depth: Depth = 2,
        prenorm: bool = False,
        positions: tuple[Cells, Cells] | None = None,
        closing: Count = 0,
    ):
        super().__init__()
        self.side, self.extra = side, closing
        inner = (width or in_width) if depth else in_width
        self.prenorm = prenorm_layer(prenorm, in_width)
        self.positions = learnt_positions(positions, in_width)
        self.before = nn.Sequential(*[Bottleneck(inner if i else in_width, inner) for i in range(depth)])
        self.after = nn.Sequential(*[Bottleneck(inner, inner) for _ in range(depth)])
        self.readout = silu_mlp(mlp_depth, inner, out_width)
        self.closing = closing_tokens(closing, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        return self.side**2 + self.extra

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return (self.side, self.side) if not self.extra else (1, self.tokens(grid))

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        x = rearrange(self.positions(self.prenorm(grid)), "n gh gw c -> n c gh gw")
        x = self.after(functional.adaptive_avg_pool2d(self.before(x), self.side))
        return self.closing(self.readout(rearrange(x, "n c r s -> n (r s) c")))


class Bottleneck(nn.Module):
    """RegNet's block with layer norm over channels and SiLU (arXiv 2003.13678, timm's `Bottleneck`)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.expand = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.expand_norm = BottleneckNorm(outputs)
        self.filter = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False)
        self.filter_norm = BottleneckNorm(outputs)
        squeezed = round(inputs / 4)
        self.squeeze = nn.Conv2d(outputs, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, outputs, 1)
        self.project = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.project_norm = BottleneckNorm(outputs)
        self.skips = inputs == outputs
        if not self.skips:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut_norm = BottleneckNorm(outputs)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h w"]:
        hidden = functional.silu(self.expand_norm(self.expand(x)))
        hidden = functional.silu(self.filter_norm(self.filter(hidden)))
        squeezed = functional.silu(self.squeeze(hidden.mean((2, 3), keepdim=True)))
        hidden = hidden * self.excite(squeezed).sigmoid()
        hidden = self.project_norm(self.project(hidden))
        return functional.silu(hidden + (x if self.skips else self.shortcut_norm(self.shortcut(x))))


class BottleneckNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-5)  # what timm gives a norm that carries an activation

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return rearrange(super().forward(rearrange(input, "n c h w -> n h w c")), "n h w c -> n c h w")
