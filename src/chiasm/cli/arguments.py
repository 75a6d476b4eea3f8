"""Arguments and options that several commands have."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

# Frames are for terminals; what is piped or kept is plain.
MARKUP: Literal["rich"] | None = "rich" if sys.stdout.isatty() and sys.stderr.isatty() else None

Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads this form on every Python)
    typer.Argument(help="dotted.key=value, such as model.connector.depth=3", metavar="[KEY=VALUE]..."),
]
Folder = Annotated[Path, typer.Argument(help="a run's folder or a checkpoint", metavar="RUN")]
Seed = Annotated[int, typer.Option(help="of the sampling")]
Device = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="cuda, cuda:1, mps or cpu; default: the first of these that there is"),
]
Dtype = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="fp32, bf16, fp16 or fp64; default: as the checkpoint has it, in training as the recipe says"
    ),
]


def _use(plugins: list[str] | None) -> list[str] | None:
    if plugins:
        from chiasm import use

        use(*plugins)
    return plugins


# Loaded before the command begins, which needs to do nothing with it.
Plugins = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--plugin",
        callback=_use,
        help="a Python file or module with parts, tasks, metrics or checkpoint families of your own",
    ),
]
