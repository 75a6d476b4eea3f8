"""A whole short run, by as many processes as torchrun starts."""

import sys

import torch
from toy import toy

from chiasm.training import train

torch.set_num_threads(1)
train(toy("stages.codes.steps=4", "stages.learn.steps=4"), sys.argv[1])
