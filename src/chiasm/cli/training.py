"""Commands that train recipes and measure runs, or show what they would train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from chiasm.cli.arguments import Device, Dtype, Folder, Overrides, Plugins, Seed
from chiasm.cli.support import say
from chiasm.terminal import completion

RecipeName = Annotated[
    str,
    typer.Argument(
        help="a recipe that comes with Chiasm, or a YAML file",
        metavar="RECIPE",
        autocompletion=completion.recipe_names,
    ),
]
Tiny = Annotated[bool, typer.Option("--tiny", help="the recipe's overlay for a laptop")]


def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    folder: Annotated[
        Optional[Path], typer.Option("--out", help="the run's folder; default: runs/NAME")  # noqa: UP045
    ] = None,
    tiny: Tiny = False,
    device: Device = None,
    dtype: Dtype = None,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="go on although the data has changed since the run began")
    ] = False,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="processes that make batches ahead; default: by the device and its cores"),
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Train a recipe. The same command continues a run that was stopped, bit for bit."""
    from chiasm.recipe import load_recipe
    from chiasm.terminal.next_steps import next_steps
    from chiasm.training.train import train as run

    loaded = load_recipe(recipe, overrides or (), tiny=tiny)
    place = folder or Path("runs") / (loaded.name + ("-tiny" if tiny else ""))
    say(
        next_steps(
            loaded, run(loaded, place, device=device, dtype=dtype, other_data=other_data, workers=workers)
        )
    )


def evaluate(
    folder: Folder,
    overrides: Overrides = None,
    plugins: Plugins = None,
    device: Device = None,
    dtype: Dtype = None,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--only", help="a task by name, if not all; may be given again"),
    ] = None,
) -> None:
    """Measure a trained run: every task with its controls, into eval.json and report.html."""
    from chiasm.evaluation.evaluate import evaluate as run

    run(
        folder,
        overrides=overrides or (),
        only=only or (),
        say=say,
        device=device,
        dtype=dtype,
    )


def evolve(
    folder: Folder,
    data: Annotated[
        str,
        typer.Argument(help="what problems are drawn from, by its name in the run's recipe", metavar="DATA"),
    ],
    overrides: Overrides = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="gets a run for each round; default: RUN-evolved"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    problems: Annotated[int, typer.Option(min=1, help="of a round")] = 200,
    tries: Annotated[int, typer.Option(min=1, help="answers to each problem")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="of training in a round")] = 100,
    share: Annotated[
        float,
        typer.Option(
            help="of what was verified in a round's samples, above 0 and at most 1; the rest is the stage's"
        ),
    ] = 0.5,
    gate: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="a score that must not fall, such as questions.score, if not all; may be given again"
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="of answers in words, above 0")] = 1.0,
    tokens: Annotated[int, typer.Option(min=1, help="most of an answer")] = 32,
    verifier: Annotated[str, typer.Option(help="the metric that verifies answers in words")] = "exact",
    seed: Seed = 0,
    device: Device = None,
    plugins: Plugins = None,
) -> None:
    """A model solves problems and learns from what a checker verified; what makes it worse is rolled back.

    The same command goes on where it was stopped.
    """
    from chiasm.curation.evolution import EvolutionPlan
    from chiasm.curation.evolution import evolve as run
    from chiasm.curation.practice import Practice
    from chiasm.storage.folders import is_nameless

    practice = Practice(problems, tries, temperature, tokens, verifier)
    plan = EvolutionPlan(data, practice, rounds, steps, share, tuple(gate or ()), seed)
    named = folder.resolve() if is_nameless(folder) else folder
    place = out or Path(f"{named}-evolved")
    evolution = run(folder, place, plan, overrides=overrides or (), say=say, device=device)
    say(f"best: {evolution.best}")


def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    tiny: Tiny = False,
    whole: Annotated[bool, typer.Option("--recipe", help="print the resolved recipe too")] = False,
    plugins: Plugins = None,
) -> None:
    """Print the shapes through every slot, where its code lies, parameters, FLOPs and image tokens."""
    from chiasm.recipe import load_recipe
    from chiasm.terminal.show import show as run

    run(load_recipe(recipe, overrides or (), tiny=tiny), whole=whole)


def check(
    recipe: RecipeName,
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(min=0, help="how many of each data source")] = 6,
    every: Annotated[bool, typer.Option("--all", help="verify every record and decode every image")] = False,
    tiny: Tiny = False,
    plugins: Plugins = None,
) -> None:
    """Decode the first samples of a recipe's data, coloured by loss mask and kind."""
    from chiasm.recipe import load_recipe
    from chiasm.terminal.check import check as run

    run(load_recipe(recipe, overrides or (), tiny=tiny), samples, every=every)
