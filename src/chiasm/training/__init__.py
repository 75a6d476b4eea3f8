"""Training: stages, batches, the loop, its state and its records."""

from chiasm.training.loop import Interrupted
from chiasm.training.train import build_model, build_sources, train

__all__ = ["Interrupted", "build_model", "build_sources", "train"]
