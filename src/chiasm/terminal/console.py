"""Where commands print: styled in a terminal, plain and never wrapped where the output is piped or kept."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

PIPED_WIDTH = 200  # columns of a table that no terminal shows


def console(*, err: bool = False) -> Console:
    """A console that takes text as it is: brackets in a path or a prompt are never markup."""
    created = Console(stderr=err, highlight=False, markup=False, emoji=False)
    if not created.is_terminal:
        created.width = PIPED_WIDTH
    return created


def say(text: str | Text, *, err: bool = False) -> None:
    """Print a line as it is, however long."""
    console(err=err).print(text, soft_wrap=True)


def fail(error: object) -> None:
    """Print an error of the user's making."""
    say(Text.assemble(("error:", "bold red"), f" {error}"), err=True)
