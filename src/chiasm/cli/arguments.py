"""Arguments and options that several commands have."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer
from typer.core import TyperCommand, TyperOption

from chiasm.errors import ChiasmError

# Frames are for terminals; what is piped or kept is plain.
MARKUP: Literal["rich"] | None = "rich" if sys.stdout.isatty() and sys.stderr.isatty() else None


class Command(TyperCommand):
    """A command that refuses an option given twice, of which the last alone would count."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # of completion
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for option, count in Counter(order).items():
                if count > 1 and isinstance(option, TyperOption) and not option.multiple:
                    raise ChiasmError(f"{option.opts[-1]} is given {count} times; it can be given once")
        return super().parse_args(ctx, args)


class Commands(typer.Typer):
    """Commands of that kind."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = Command, **options: Any
    ) -> Any:
        return super().command(name, cls=cls, **options)


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
        help="fp32, bf16, fp16 or fp64, in training fp32 or bf16; default: as the checkpoint has it, in training "
        "as the recipe says"
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
