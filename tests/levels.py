"""A modality beside text and images, of two numbers, and a tiny model that has it."""

import numpy as np
import torch
from torch import nn

from chiasm.data import Signal
from chiasm.modalities import Modality
from chiasm.model import Model
from chiasm.recipe import load_recipe

POSITIONS = 3


class Level(Signal):
    modality = "levels"

    def __init__(self, *numbers: float):
        self.numbers, self.key = numbers, f"levels {numbers}"

    def open(self):
        return np.array(self.numbers)


def levels_model(tiny):
    """A test that calls it has the fixture `nothing_left_behind`. tiny: a recipe, which is changed."""

    class Levels(Modality, name="levels"):
        """Two numbers as three positions."""

        shape = (2,)

        def __init__(self, width: int, *, noise: float = 0.0):
            super().__init__()
            self.positions, self.noise = POSITIONS, noise
            self.inwards, self.outwards = nn.Linear(2, POSITIONS * width), nn.Linear(width, 2)
            self.signal = nn.Parameter(torch.randn(POSITIONS, width))

        def embed(self, values):
            return self.inwards(values).unflatten(1, (POSITIONS, -1))

        def queries(self):
            return self.signal

        def loss(self, hidden, values):
            return (self.outwards(hidden).mean(1) - values).square().sum()

        def draw(self, hidden, generators):
            return self.outwards(hidden).mean(1) + self.noise * generators.normal(2)

    tiny["model"]["modalities"] = {"levels": {"type": "levels"}}
    return Model(load_recipe(tiny).model, texts=["a b how loud is it ?"] * 9).eval()
