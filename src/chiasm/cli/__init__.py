"""The command line: `chiasm COMMAND --help`. Heavy imports stand inside the commands, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from chiasm.cli.answers import chat, complete, edit, generate, serve, synthesise
from chiasm.cli.arguments import MARKUP, Commands, Device, Dtype, Overrides, Plugins
from chiasm.cli.checkpoints import export, families, import_, merge, upgrade, verify
from chiasm.cli.data import data_app
from chiasm.cli.listings import doctor, parts, recipes, world
from chiasm.cli.studies import study
from chiasm.cli.support import fail, say
from chiasm.cli.tokenizers import tokenizer_app
from chiasm.cli.training import check, evaluate, evolve, show, train

app = Commands(
    name="chiasm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={} if MARKUP else {"terminal_width": 110},
)
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(data_app, name="data")

# What other libraries print of themselves; a variable that the user has set stays.
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}


def _print_version(requested: bool) -> None:
    if requested:
        from chiasm import __version__

        typer.echo(f"chiasm {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Build, train, compare and serve models that both see and draw."""


def quickstart(
    folder: Annotated[Path, typer.Option("--out", help="the run's folder")] = Path("runs/quickstart"),
    overrides: Overrides = None,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Train a model that answers questions about pictures and draws, evaluate it, and write a report."""
    from chiasm.evaluation.evaluate import is_evaluated

    train("quickstart", overrides, folder=folder, tiny=False, device=device, dtype=dtype)
    if not is_evaluated(folder):
        evaluate(folder, device=device, dtype=dtype)
    say(f"\nreport: {(folder / 'report.html').resolve()}")


# In the order in which `chiasm --help` lists them.
COMMANDS: dict[str, Callable[..., None]] = {
    "quickstart": quickstart,
    "train": train,
    "eval": evaluate,
    "chat": chat,
    "generate": generate,
    "edit": edit,
    "complete": complete,
    "synthesise": synthesise,
    "study": study,
    "evolve": evolve,
    "serve": serve,
    "show": show,
    "check": check,
    "doctor": doctor,
    "parts": parts,
    "recipes": recipes,
    "world": world,
    "import": import_,
    "families": families,
    "export": export,
    "merge": merge,
    "upgrade": upgrade,
    "verify": verify,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run the command line; errors of the user's making are printed without a traceback."""
    import os
    import warnings

    from chiasm.errors import ChiasmError

    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(?!chiasm\b)")
    try:
        if code := app(standalone_mode=False):  # of typer.Exit, which is not raised but returned
            sys.exit(code)
    except ChiasmError as error:
        fail(error)
    except BrokenPipeError:  # as in `chiasm recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"{error.filename}: {(error.strerror or type(error).__name__).lower()}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # click's own errors (usage, missing arguments) know how to show themselves
        display = getattr(error, "show", None)
        if display is None:
            raise
        display()
        sys.exit(getattr(error, "exit_code", 2))
