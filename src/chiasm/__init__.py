"""Build, train, compare and serve models that both see and draw.

>>> model = chiasm.load("runs/quickstart")
>>> model.chat([{"role": "user", "content": [{"image": "cat.png"}, "What is at the top left?"]}])
>>> model.generate("Draw: a dog at the top left, a cat at the centre.")
>>> chiasm.train("quickstart", "runs/mine", ["model.connector.depth=3"])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from chiasm.errors import ChiasmError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from chiasm.model import Model
    from chiasm.recipe import Recipe

__version__ = "0.1.0"
__all__ = ["ChiasmError", "evaluate", "load", "load_recipe", "train", "use"]

# Heavy modules are imported inside: `import chiasm` and `chiasm --help` stay quick.


def use(*plugins: str | Path) -> None:
    """Load parts, evaluation tasks, metrics and checkpoint families of one's own, from files or modules.

    Everything in them is then found by its name, as what comes with Chiasm. Nothing else loads such a file: no
    recipe and no checkpoint can name one. Raises ChiasmError for one that cannot be imported.
    """
    from chiasm.parts.plugins import load_plugins

    load_plugins(plugins)


def load(
    folder: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> Model:
    """The model of a run's folder or of a checkpoint, ready to chat and to draw; raises CheckpointError.

    device: `cuda`, `cuda:1`, `mps` or `cpu`; by default the first of these that there is. dtype: `fp32`, `bf16`,
    `fp16` or `fp64`; by default each weight keeps the checkpoint's.
    """
    from chiasm.model.checkpoint import load_model

    return load_model(folder, device, dtype)


def load_recipe(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, tiny: bool = False
) -> Recipe:
    """A complete recipe from a name, a file or a mapping, with `dotted.key=value` overrides; raises RecipeError."""
    from chiasm import recipe

    return recipe.load_recipe(source, overrides, tiny=tiny)


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    tiny: bool = False,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    other_data: bool = False,
    workers: int | None = None,
) -> Path:
    """Train a recipe into a run's folder (default `runs/NAME`) and return it; continues a run that was stopped.

    device: as for `load`. dtype: `fp32` or `bf16`, in place of the stages' `precision`. other_data: go on although
    the data has changed since the run began. workers: processes that make batches ahead, by default by the device.
    """
    from chiasm import recipe as recipes
    from chiasm.training.train import train as run

    loaded = recipe if isinstance(recipe, recipes.Recipe) else load_recipe(recipe, overrides, tiny=tiny)
    return run(loaded, folder, device=device, dtype=dtype, other_data=other_data, workers=workers)


def evaluate(
    folder: str | Path,
    overrides: Sequence[str] = (),
    *,
    plugins: Sequence[str | Path] = (),
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> dict[str, Any]:
    """Measure a trained run; writes eval.json and report.html into its folder and returns the figures.

    overrides: `dotted.key=value` of the recipe's evaluation, sampling and data (`evaluation.metric=contains`).
    plugins: as for `use`, which they are given to. device, dtype: as for `load`.
    """
    from chiasm.evaluation.evaluate import evaluate as run

    return run(folder, overrides=overrides, plugins=plugins, device=device, dtype=dtype)
