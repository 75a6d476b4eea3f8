"""A vector by a flow of its own, from noise along a straight line."""

from __future__ import annotations

from typing import Literal

from chiasm.heads import HeadContext
from chiasm.heads.denoising import TokenDenoising
from chiasm.heads.straight_line import StraightLine
from chiasm.parts.bounds import Cells, Count, Positive, Width


class Flow(TokenDenoising, name="flow"):
    """Flow matching (arXiv 2210.02747) a token, as in NextStep-1 (2508.10711), or over a whole image with order
    `whole` (Bagel, 2505.14683).

    Noise (time 0) becomes a vector (time 1) along a straight line; a small network behind the hidden state predicts
    the velocity, and Euler steps follow it.

    Args:
        steps: of a draw.
        predicts: velocity, the vector less the noise; or x, the vector itself, which a narrow network can predict
            of vectors wider than it (arXiv 2511.13720) and which points the way just as well.
        times: at which times it learns: uniform, or logit_normal, most often in the middle (arXiv 2403.03206).
        shift: above 1 more of the steps, and of the times at which it learns, stand near the noise.
        repeats: at how many times each vector is learnt in a step.
        depth: blocks of the small network; 0 = the velocity is linear in the hidden state, as in Transfusion.
        hidden: width of the small network.
    """

    def __init__(
        self,
        context: HeadContext,
        symbols: int,
        *,
        steps: Cells = 30,
        predicts: Literal["velocity", "x"] = "velocity",
        times: Literal["uniform", "logit_normal"] = "uniform",
        shift: Positive = 1.0,
        repeats: Count = 1,
        depth: Count = 3,
        hidden: Width = 1024,
    ):
        super().__init__(context, symbols, steps=steps, repeats=max(1, repeats), depth=depth, hidden=hidden)
        self.path = StraightLine(times == "logit_normal", shift, velocity=predicts == "velocity")
