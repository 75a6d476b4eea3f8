"""Commands about image tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from chiasm.cli.arguments import MARKUP, Commands, Device, Dtype, Plugins

tokenizer_app = Commands(help="Look at image tokenizers.", no_args_is_help=True, rich_markup_mode=MARKUP)


@tokenizer_app.command("report")
def tokenizer_report(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="runs, checkpoints, or recipes trained into runs/NAME", metavar="RUN_OR_RECIPE..."
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("tokenizers"),
    pictures: Annotated[int, typer.Option(min=1, help="held-out images, or clips, of each")] = 256,
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="run or recipe whose held-out images all are measured on; else each its own"),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Measure rate and distortion of image tokenizers on held-out pictures: table, plot, reconstructions."""
    from chiasm.terminal.tokenizer import report

    report(runs, out, count=pictures, data=data, device=device, dtype=dtype)
