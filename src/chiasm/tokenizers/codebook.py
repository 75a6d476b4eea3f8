"""The vectors of codes, as VQ-VAE's and its followers' begin."""

from torch import nn


def new_codebook(size: int, width: int) -> nn.Embedding:
    """A learnt vector for each code, whose numbers lie within 1 / `size` of 0 at first."""
    vectors = nn.Embedding(size, width)
    nn.init.uniform_(vectors.weight, -1 / size, 1 / size)
    return vectors
