"""The same weights for all tokens."""

from torch import nn

from chiasm.routing import Routing


class Shared(Routing, name="shared"):
    """Every token, of words or of pictures, meets the same weights: the language model as it is."""

    def __init__(self, language: nn.Module):
        super().__init__()

    def merge(self) -> None:
        pass
