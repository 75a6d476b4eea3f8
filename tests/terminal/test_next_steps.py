"""What is printed when a model has been trained works as it is printed."""

from pathlib import Path

import pytest

import chiasm
from chiasm.recipe import load_recipe
from chiasm.terminal.next_steps import next_steps

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_every_command_has_the_plugins_of_the_training(tiny, tmp_path):
    recipe = load_recipe(tiny)
    assert "--plugin" not in next_steps(recipe, Path("runs/x"))
    plugin = tmp_path / "own.py"
    plugin.touch()
    chiasm.use(plugin)
    _, *commands = next_steps(recipe, Path("runs/x")).splitlines()
    assert len(commands) >= 3
    assert all(f"runs/x --plugin {plugin}" in command for command in commands)
