"""`chiasm families`: the public checkpoints that Chiasm can import."""

import inspect

from rich.text import Text

from chiasm.interop import all_families
from chiasm.terminal.console import say


def table() -> None:
    """Print every family with what it is and by what its folders are recognised."""
    for name, family in all_families().items():
        about = (inspect.getdoc(family) or "").split("\n\n")[0].replace("\n", " ")
        say(Text.assemble((name, "cyan"), f"  {about}\n    recognised by: {family.looks_for}"))
