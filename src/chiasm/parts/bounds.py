"""Ranges of options, for annotations: the schema refuses what lies outside by name, NaN and infinity always.

Upper ends lie far beyond anything published; they keep a slip of the keyboard from asking for more memory or time
than there is. `list[Width]` bounds each item; see `Multipliers` for one that bounds their number too.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = [
    "Batches",
    "Bits",
    "Cells",
    "Chance",
    "CodebookSize",
    "Count",
    "Decay",
    "Depth",
    "Epsilon",
    "Grid",
    "Heads",
    "Kernel",
    "LayerIndex",
    "Levels",
    "Multiplier",
    "Multipliers",
    "Pixels",
    "Positive",
    "Questions",
    "Scales",
    "Seed",
    "Share",
    "Times",
    "Tokens",
    "Vocabulary",
    "Weight",
    "Width",
    "WidthOrZero",
]

Batches = Annotated[int, Field(ge=0, le=10**9)]
Bits = Annotated[int, Field(ge=1, le=24)]  # of a code
Cells = Annotated[int, Field(ge=1, le=1_024)]  # rows or columns of a grid, or frames
CodebookSize = Annotated[int, Field(ge=1, le=2**24)]
Count = Annotated[int, Field(ge=0, le=1_024)]  # of layers or levels, where none is a choice
Depth = Annotated[int, Field(ge=1, le=1_024)]  # layers or blocks
Grid = Annotated[list[Cells], Field(min_length=2, max_length=2)]  # rows and columns
Heads = Annotated[int, Field(ge=1, le=1_024)]
Kernel = Annotated[int, Field(ge=1, le=63)]  # the side of a convolution
Multiplier = Annotated[int, Field(ge=1, le=64)]  # of a width
Pixels = Annotated[int, Field(ge=1, le=16_384)]  # along a side
Questions = Annotated[int, Field(ge=0, le=10**9)]  # of an evaluation
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Tokens = Annotated[int, Field(ge=1, le=2**22)]  # positions of a sequence, queries
Vocabulary = Annotated[int, Field(ge=0, le=2**24)]
Width = Annotated[int, Field(ge=1, le=65_536)]  # channels
WidthOrZero = Annotated[int, Field(ge=0, le=65_536)]

_Level = Annotated[int, Field(ge=2, le=65_536)]
LayerIndex = Annotated[int, Field(ge=-1_024, le=1_024)]  # from 0, or from the last, -1
Levels = Annotated[list[_Level], Field(min_length=1, max_length=24)]  # values of each channel of a code
Multipliers = Annotated[list[Multiplier], Field(min_length=1, max_length=12)]  # one for each resolution
Scales = Annotated[list[Cells], Field(min_length=1, max_length=64)]

Chance = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]  # of what must not always happen
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]  # what a moving average keeps
Epsilon = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]  # of a norm
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Times = Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)]  # more than usual
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]  # of a loss
