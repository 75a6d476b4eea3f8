"""What a user types when a model has been trained."""

from __future__ import annotations

import shlex
from pathlib import Path

from chiasm.parts.plugins import as_options
from chiasm.recipe import Recipe


def next_steps(recipe: Recipe, folder: Path) -> str:
    """Where the model is, and the commands that fit what it can do."""
    run = shlex.quote(str(folder)) + as_options()
    steps = [f"model:   {folder / 'final'}"]
    if recipe.evaluation.data is not None:
        steps.append(f"measure: chiasm eval {run}")
    if "encoder" in recipe.model and "language" in recipe.model:
        steps.append(f'talk:    chiasm chat {run} -p PICTURE -m "What is in the picture?"')
    if "heads.image" in recipe.model:
        steps.append(f'draw:    chiasm generate {run} "PROMPT"')
    if "image_tokenizer" in recipe.model:
        steps.append(f"report:  chiasm tokenizer report {run}")
    return "\n".join(steps)
