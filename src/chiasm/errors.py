"""The one family of errors that Chiasm raises for input it cannot use; the command line prints them bare."""

import difflib
import inspect
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, Self

MOST_QUOTED = 200  # letters of a text
MOST_REASON = 400  # letters of what another library says
TOO_LONG = "too long"  # the kind of a DataError: more than the context holds

# What Python says of a value of another type than code expects; no user needs to know of such code.
_INTERNAL = re.compile(r"'?(\w+)'? (?:object (?:has no attribute|is not|does not)|indices must be)")
_VALUES = {"dict": "an object", "list": "a list", "str": "a text", "string": "a text", "NoneType": "null"}
_VALUES |= {"int": "a number", "float": "a number", "bool": "a truth value"}
_DATA_URL = re.compile(r"data:[^,\s]{0,80},", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{200,}={0,2}\s*")


def _without_data(text: str) -> str:
    """A text, but for the bytes of a file in it, which no error prints."""
    if url := _DATA_URL.match(text):
        return f"{url[0]}... ({len(text) - url.end():,} letters)"
    return f"({len(text):,} letters, as of base64)" if _BASE64.fullmatch("".join(text.split())) else text


class _Short(reprlib.Repr):
    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(_without_data(x), level)

    def repr_bytes(self, x: bytes | bytearray, level: int) -> str:
        return repr(x) if len(x) <= self.maxother else f"<{len(x):,} bytes>"

    repr_bytearray = repr_bytes

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes no more than 4,300 digits
            return f"a number of {x.bit_length():,} bits"


_QUOTED = _Short()
_QUOTED.maxlevel, _QUOTED.maxstring, _QUOTED.maxother = 3, 60, 60


class ChiasmError(Exception):
    """A sentence for the user: what is wrong, where, and what would be right.

    field: the option, or the field of a request, that is wrong, as `seed` or `messages[0].content[1]`; None = no
        single one is.
    unknown: it is about a name that nothing has, as what a plugin defines is before the plugin is loaded.
    """

    field: str | None = None
    unknown: bool = False

    @classmethod
    def of(cls, field: str, sentence: str) -> Self:
        """An error of a field, with whose name it begins."""
        error = cls(f"{field}: {sentence}")
        error.field = field
        return error


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Errors from within are of this field, but for those that are of one already."""
    try:
        yield
    except ChiasmError as error:
        error.field = error.field or field
        raise


class RecipeError(ChiasmError):
    """A recipe, an override or a part's option is wrong."""


class DataError(ChiasmError):
    """A sample, an image or a data file is wrong; the message names it.

    kind: what is wrong, in two words, for the count of the records that were skipped.
    """

    def __init__(self, message: str, kind: str = "other"):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str], dict[str, Any]]:
        return DataError, (str(self), self.kind), {"field": self.field}  # between processes


class CheckpointError(ChiasmError):
    """A checkpoint cannot be read or written, or does not fit the model."""


class DivergedError(CheckpointError):
    """Training has run into values that are not finite, and nothing of them is saved."""


class OutdatedError(ChiasmError):
    """A recipe or a checkpoint of an older form; the message names the command that brings it up to date."""


def excerpt(value: object, most: int = 60) -> str:
    """A value of a stranger's making as one short line that any terminal prints: text as it is, all else quoted."""
    text = _without_data(str(value)) if isinstance(value, str | PurePath) else _QUOTED.repr(value)
    text = text if len(text) <= most else f"{text[: most // 2]}...{text[-(most // 4) :]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def quoted(value: object) -> str:
    """A value of a stranger's making as Python writes it, as one short line."""
    whole = isinstance(value, str) and len(value) <= MOST_QUOTED and not _DATA_URL.match(value)
    text = repr(value) if whole else " ".join(_QUOTED.repr(value).split())
    return text if whole or len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}..."


def check_flag(name: str, value: object) -> None:
    """Raise ChiasmError for a value of a switch that is neither true nor false, such as the text "no"."""
    if not isinstance(value, bool):
        raise ChiasmError(f"{name}: it must be true or false, not {quoted(value)}")


def known_options(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call, all of which a function takes by name; raises ChiasmError for any other."""
    known = [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.kind is each.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known:
            raise ChiasmError(f"{name} has no option {quoted(option)}{nearest(option, known)}")
    return dict(options)


def check_path(name: str, value: object, kind: type[ChiasmError] = ChiasmError) -> Path:
    """The path that an argument is; raises an error of the kind for what is none, or what no file can be called."""
    if not isinstance(value, str | os.PathLike):
        raise kind.of(name, f"it must be a path, not {quoted(value)}")
    if not str(value):
        raise kind.of(name, "it is empty; it must be a path")
    try:
        path = Path(value)
    except TypeError:  # of bytes
        raise kind.of(name, f"it must be a path in text, not {quoted(value)}") from None
    try:
        path.exists()
    except OSError as error:
        raise kind.of(name, f"{excerpt(path)}: {(error.strerror or str(error)).lower()}") from None
    return path


def check_texts(name: str, value: object, form: str) -> tuple[str, ...]:
    """The texts of a list; raises ChiasmError for anything else. form: what each of them is."""
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ChiasmError.of(name, f"it must be a list of {form}, not {quoted(value)}")
    return tuple(value)


def reason(error: Exception) -> str:
    """Why another library refused something, in one line: code of a folder never runs, whatever it advises."""
    if "trust_remote_code" in str(error):
        return "it needs code of its own (auto_map), and Chiasm runs none from a checkpoint"
    text = " ".join(str(error).split()) or type(error).__name__
    internal = _INTERNAL.match(text) if isinstance(error, TypeError | AttributeError) else None
    if internal and internal[1] in _VALUES:
        return f"{_VALUES[internal[1]]} stands where something else is expected"
    return text if len(text) <= MOST_REASON else f"{text[:MOST_REASON]}..."


def nearest(word: str, choices: Iterable[str]) -> str:
    """`"; did you mean 'depth'?"` when a known word looks like `word`, else the list of known words."""
    words = sorted(choices)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(words)}" if words else ""
