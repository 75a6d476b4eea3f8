"""Modules inside a language model, called without it."""

import torch

from chiasm.sequence.layout import Layout, attending


def reading(kinds, real=None):
    """The context in which a routed module finds what stands at its positions; real: False at padding."""
    documents = torch.zeros_like(kinds) if real is None else torch.where(real, 0, -1)
    every = torch.ones_like(kinds, dtype=torch.bool)
    return attending(Layout(documents, every, every, kinds=kinds))
