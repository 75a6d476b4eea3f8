"""What an import keeps of the original beside the model, so that an export restores it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

ORIGIN = Path("origin/origin.json")
ASIDE = Path("origin/unused.safetensors")
FILES = Path("origin/files")


def digest_of_values(tensor: Tensor) -> str:
    """A hash of the values, whatever the type they are stored in."""
    plain = tensor.detach().float().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(plain.numpy().tobytes(), digest_size=16).hexdigest()
