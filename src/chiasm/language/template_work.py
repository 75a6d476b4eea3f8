"""What the work of a chat template costs, in steps: see `chiasm.language.template`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jinja2

WIDTH = 100_000  # the largest number that a call or filter may be given: widths and counts
REMEDY = "language.template_work of a recipe allows so many times more"
# What makes more of a text than was there, by a number or a text that it is given.
WIDENING = {"center", "expandtabs", "indent", "ljust", "rjust", "translate", "urlize", "wordwrap", "zfill"}


class _Steps:
    def __init__(self, limit: int):
        self.limit = self.remaining = limit


_steps: ContextVar[_Steps | None] = ContextVar("steps", default=None)


@contextmanager
def limited(steps: int) -> Iterator[None]:
    """What is done within may cost that many steps."""
    token = _steps.set(_Steps(steps))
    try:
        yield
    finally:
        _steps.reset(token)


def spend(count: int) -> None:
    """Pay for work; raises TemplateRuntimeError where there are not so many steps left."""
    steps = _steps.get()
    if steps is None:
        return
    steps.remaining -= count
    if steps.remaining < 0:
        raise jinja2.TemplateRuntimeError(
            f"it does more work than the {steps.limit:,} steps that a template may take ({REMEDY})"
        )


def counted(iterable: Any) -> Any:
    """What a loop goes through, its turns paid for."""
    if isinstance(iterable, Sized):
        spend(1 + len(iterable))
        return iterable
    return counting(iterable)


def counting(iterable: Iterable[Any]) -> Iterator[Any]:
    """What a loop goes through, each turn paid for as it comes."""
    for each in iterable:
        spend(1)
        yield each


def weighed(value: Any) -> Any:
    """The value, charged for all that it holds: nothing grows by holding one thing many times over."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
        elif isinstance(each, str):
            spend(len(each) // 20)
        spend(1)
    return value


def charge(*values: Any) -> None:
    """For one operation on what is handed in, by its length alone."""
    cost = 4
    for value in values:
        if isinstance(value, str):
            cost += len(value) // 20
        elif isinstance(value, list | tuple | dict):
            cost += len(value) // 10
        elif isinstance(value, int):
            cost += value.bit_length() // 64
    spend(cost)


def charge_repeated(left: Any, right: Any) -> None:
    """For a text or a list so many times over."""
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            spend(len(value) * max(times, 0) // 10)


def listed(value: Any) -> Any:
    """What can be measured: a generator as a list, counted."""
    return list(counting(value)) if isinstance(value, Iterator) else value


def check_method(name: str, text: str, arguments: Iterable[Any]) -> None:
    """Charge a method or filter of a text for what it may make of it."""
    arguments = list(arguments)
    largest = max((abs(each) for each in arguments if isinstance(each, int)), default=0)
    if largest > WIDTH:
        raise jinja2.TemplateRuntimeError(f"{name}({largest}) is more than {WIDTH:,}")
    if name in WIDENING:
        spend((len(text) + 1) * max(largest, longest(arguments)) // 20)
    words = [each for each in arguments if isinstance(each, str)]
    if name == "replace" and len(words) > 1:
        spend((text.count(words[0]) + 1) * len(words[1]) // 20)
    if name == "join":
        spend(sum(len(each) for each in arguments if isinstance(each, Sized)) * len(text) // 20)
    if name == "format":
        check_format(text, arguments)


def check_format(text: str, arguments: Iterable[Any]) -> None:
    """Charge a format for what it may make; raises TemplateRuntimeError for a text wider than any chat."""
    arguments = list(arguments)
    if re.search(r"\d{5}", text) or any(isinstance(each, int) and abs(each) > WIDTH for each in arguments):
        raise jinja2.TemplateRuntimeError("it formats a text wider than any chat")
    spend((text.count("{") + text.count("%")) * longest(arguments) // 20)


def longest(values: Iterable[Any]) -> int:
    """The length of the longest text, in lists and dicts too."""
    lengths = [0]
    for each in values:
        inner = each.values() if isinstance(each, Mapping) else each if isinstance(each, list | tuple) else ()
        lengths += [len(text) for text in (each, *inner) if isinstance(text, str)]
    return max(lengths)
