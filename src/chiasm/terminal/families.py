"""`chiasm families`: the public checkpoints that Chiasm can import."""

import inspect

from rich.console import Console
from rich.markup import escape

from chiasm.interop import all_families


def table() -> None:
    """Print every family with what it is and by what its folders are recognised."""
    console = Console(soft_wrap=True, highlight=False)
    for name, family in all_families().items():
        about = (inspect.getdoc(family) or "").split("\n\n")[0].replace("\n", " ")
        console.print(f"[cyan]{name}[/]  {escape(about)}\n    recognised by: {escape(family.looks_for)}")
