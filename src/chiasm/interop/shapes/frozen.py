"""Frozen parts that a checkpoint only refers to, read from transformers' folders by our names."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional

from chiasm.storage.weights import read_tensors, resolve

# Of a CLIP: what the features of its patches need.
CLIP = (
    "embeddings.class_embedding",
    "embeddings.patch_embedding",
    "embeddings.position_embedding",
    "encoder.layers",
    "pre_layrnorm",
)
HEADS = {"lm_head.weight", "embed_out.weight"}
BUFFERS = (
    ".attention.bias",
    ".attn.bias",
    ".masked_bias",
    ".embed_positions",
    ".inv_freq",
)  # of old checkpoints


def frozen_clip(reference: str | Path) -> dict[str, Tensor]:
    """A CLIP's tower as far as the last hidden state."""
    tensors = read_tensors(resolve(str(reference)))
    named = {name.removeprefix("vision_model."): tensor for name, tensor in tensors.items()}
    return {f"encoder.model.{name}": tensor for name, tensor in named.items() if name.startswith(CLIP)}


def frozen_language(reference: str | Path, table: str, vocabulary: int) -> dict[str, Tensor]:
    """A causal language model without its `table` of embeddings; rows of zeros for words new in the vocabulary."""
    tensors = read_tensors(resolve(str(reference)))
    retained = {name: t for name, t in tensors.items() if name != table and not name.endswith(BUFFERS)}
    for name in HEADS & retained.keys():
        retained[name] = functional.pad(retained[name], (0, 0, 0, vocabulary - len(retained[name])))
    return {f"language.inner.{name}": tensor for name, tensor in retained.items()}
