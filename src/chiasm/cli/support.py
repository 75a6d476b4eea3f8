"""What commands share: a quick start, loading a model, saying something."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chiasm.model import Model


@contextmanager
def starting() -> Iterator[None]:
    """What is imported and loaded here stays, so nothing in it is searched for garbage, now or later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def loaded(folder: Path, device: str | None, dtype: str | None, *, into: Path) -> Model:
    """The model of a folder. into: where files will be written, which is checked before anything is made."""
    with starting():
        from chiasm.model.checkpoint import load_model
        from chiasm.storage.folders import check_folder

        check_folder(into)
        return load_model(folder, device, dtype)


def say(text: str) -> None:
    from chiasm.terminal.console import say as say_it

    say_it(text)


def fail(error: object) -> None:
    from chiasm.terminal.console import fail as fail_it

    fail_it(error)
    sys.exit(1)
