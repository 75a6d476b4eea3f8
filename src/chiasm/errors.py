"""The one family of errors that Chiasm raises for input it cannot use; the command line prints them bare."""

import difflib
from collections.abc import Iterable


class ChiasmError(Exception):
    """A sentence for the user: what is wrong, where, and what would be right."""


class RecipeError(ChiasmError):
    """A recipe, an override or a part's option is wrong."""


class DataError(ChiasmError):
    """A sample, a picture or a data file is wrong; the message names it."""


class CheckpointError(ChiasmError):
    """A checkpoint cannot be read or written, or does not fit the model."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'depth'?"` when a known word looks like `word`, else the list of known words."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(words)}" if words else ""
