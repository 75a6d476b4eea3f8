"""Commands that turn checkpoints into others, and compare Chiasm with the originals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from chiasm.cli.arguments import Folder, Plugins
from chiasm.cli.support import say


def import_(
    source: Annotated[Path, typer.Argument(help="folder of a public checkpoint")],
    destination: Annotated[Path, typer.Argument(help="folder of the new Chiasm checkpoint")],
    layout: Annotated[
        Optional[str], typer.Option("--from", help="the family, where the files alone do not tell")  # noqa: UP045
    ] = None,
    tokenizer: Annotated[
        Optional[Path], typer.Option(help="folder of a text tokenizer, where the source has none")  # noqa: UP045
    ] = None,
    averaged: Annotated[
        bool,
        typer.Option(
            "--averaged",
            help="of a training checkpoint, the moving average of its weights (EMA), not the weights",
        ),
    ] = False,
    plugins: Plugins = None,
) -> None:
    """Turn an original project's checkpoint into one of Chiasm."""
    from chiasm.interop import import_checkpoint
    from chiasm.parts.plugins import as_options
    from chiasm.recipe import load_recipe

    import_checkpoint(source, destination, layout=layout, tokenizer=tokenizer, averaged=averaged)
    say(load_recipe(destination / "recipe.yaml").about)
    say(f"imported into {destination}; look at it: chiasm show {destination / 'recipe.yaml'}{as_options()}")


def families(plugins: Plugins = None) -> None:
    """List the public checkpoints that `chiasm import` knows."""
    from chiasm.terminal.families import table

    table()


def export(
    source: Annotated[Path, typer.Argument(help="folder of a Chiasm checkpoint")],
    destination: Annotated[Path, typer.Argument(help="folder of the new public checkpoint")],
    to: Annotated[Optional[str], typer.Option(help="the family; default: the one it came from")] = None,  # noqa: UP045
    plugins: Plugins = None,
) -> None:
    """Turn a Chiasm checkpoint into an original project's layout."""
    from chiasm.interop import export_checkpoint

    export_checkpoint(source, destination, to)
    say(f"exported into {destination}")


def merge(
    folder: Folder,
    destination: Annotated[Path, typer.Argument(help="folder of the new checkpoint")],
    plugins: Plugins = None,
) -> None:
    """Add the low-rank updates of a run (routing: lora) to its weights: a model that can be exported."""
    from chiasm.interop.merging import merge_checkpoint
    from chiasm.parts.plugins import as_options

    merge_checkpoint(folder, destination)
    say(f"merged into {destination}; in another layout: chiasm export {destination} OUT{as_options()}")


def upgrade(
    place: Annotated[
        Path, typer.Argument(help="a run, a checkpoint, or a recipe's YAML file", metavar="FOLDER_OR_RECIPE")
    ],
    plugins: Plugins = None,
) -> None:
    """Bring what an earlier Chiasm wrote up to date: recipes, and the names of tensors."""
    from chiasm.terminal.upgrade import upgrade as run

    for line in run(place) or ["nothing to change: all of it is of today's form"]:
        say(line)


def verify(
    cases: Annotated[list[Path], typer.Argument(help="parity cases or folders of them", metavar="CASE...")],
    as_json: Annotated[bool, typer.Option("--json", help="print data")] = False,
    plugins: Plugins = None,
) -> None:
    """Replay recorded runs of the originals with Chiasm's parts and compare every output."""
    from chiasm.terminal.verify import run

    if not run(cases, as_json=as_json):
        raise typer.Exit(1)
