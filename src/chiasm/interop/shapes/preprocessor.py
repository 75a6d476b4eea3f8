"""What a folder's preprocessor makes of pixels, for image tokenizers that take them in [-1, 1] only."""

from __future__ import annotations

import math

from chiasm.errors import CheckpointError
from chiasm.interop.family import Folder

FILE = "preprocessor_config.json"
# The values that make [-1, 1] of bytes; a file that lacks a key has them.
EXPECTED = {
    "do_rescale": 1,
    "rescale_factor": 1 / 255,
    "do_normalize": 1,
    "image_mean": 0.5,
    "image_std": 0.5,
}


def refuse_other_pixels(folder: Folder) -> None:
    """Raise CheckpointError where the preprocessor gives pixels in another range than [-1, 1]."""
    config = folder.json(FILE)
    for key, expected in EXPECTED.items():
        value = config.get(key, expected)
        values = value if isinstance(value, list) else [value]
        if not all(
            isinstance(each, int | float) and math.isclose(each, expected, rel_tol=1e-5) for each in values
        ):
            raise CheckpointError(
                f"{folder.path / FILE}: {key} is {value!r}, but this image tokenizer takes pixels in [-1, 1], "
                f"which {key} {bool(expected) if key.startswith('do_') else expected} makes of bytes"
            )
