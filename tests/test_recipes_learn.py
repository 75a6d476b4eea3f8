"""Every recipe's tiny overlay learns: the loss of its last stage falls within a few steps.

The stages before it take two steps, enough to pass through them; what a few steps do not come to is not read.
"""

import json
import re

import pytest
from rich.console import Console

from chiasm.recipe import load_recipe, recipes
from chiasm.training.train import train

TINY = [name for name, path in recipes().items() if re.search(r"^tiny:", path.read_text("utf-8"), re.M)]
GROUPS = 200  # of each source, as far as its vocabulary is learnt from them; the steps read fewer


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_the_loss_of_the_tiny_overlay_falls(name, tmp_path):
    whole = load_recipe(name, tiny=True)
    few = []
    for source in {source for stage in whole.stages for source in stage.data}:
        for count in {"scenes", "pages"} & whole.data[source].keys():
            few.append(f"data.{source}.{count}={min(GROUPS, whole.data[source][count])}")
    for stage in whole.stages:
        rows = 2 if stage.objective is None else 3  # masked data reads pairs, pictures and texts
        steps = 8 if stage is whole.stages[-1] else 2
        few += [f"stages.{stage.name}.{key}" for key in (f"steps={steps}", f"rows={rows}", "accumulate=1")]
        if name == "smol":  # a real language model of 135M parameters
            few.append(f"stages.{stage.name}.length=160")
    recipe = load_recipe(name, few, tiny=True)
    train(recipe, tmp_path / "run", console=Console(quiet=True))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [line["objective"] for line in lines if line["stage"] == whole.stages[-1].name]
    assert len(last) == 8
    assert sum(last[-2:]) < sum(last[:2])
