"""Chat templates: Jinja as transformers runs it, within limits of work, for templates come with checkpoints.

Everything a template does costs steps: a turn of a loop one, a call, a filter, an operator four, and one more for
every 20 characters or 10 items of what goes in or comes out. `STEPS` of them, and more by the number and length of
the messages, are far beyond any public template and take well under a second. A recipe may allow more of all that:
`language.template_work`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Sized
from datetime import datetime
from functools import cache, wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from chiasm.errors import DataError, reason
from chiasm.language.template_work import (
    REMEDY,
    charge,
    charge_repeated,
    check_format,
    check_method,
    counted,
    limited,
    listed,
    longest,
    spend,
    weighed,
)

STEPS = 100_000
STEPS_A_MESSAGE = 500
STEPS_A_CHARACTER = 0.5
CHARACTERS = 100_000  # of a template itself


def render(
    template: str, messages: Sequence[Mapping[str, Any]], *, prompt: bool, work: float = 1.0, **variables: Any
) -> str:
    """The messages as text; with `prompt`, an answer is asked for at the end.

    work: how many times the usual steps and characters the template may have.
    Raises DataError for a template that is broken, refuses the messages or does more than the limit.
    """
    if len(template) > CHARACTERS * work:
        raise DataError(
            f"the chat template has {len(template):,} characters; at most {int(CHARACTERS * work):,} are read "
            f"({REMEDY})"
        )
    characters = _characters(messages) + _length_of(variables.get("tools") or [])
    limit = STEPS + STEPS_A_MESSAGE * len(messages) + STEPS_A_CHARACTER * characters
    text = []
    try:
        with limited(int(limit * work)):
            chunks = _compiled(template).generate(
                messages=messages, add_generation_prompt=prompt, **_defaults() | variables
            )
            for chunk in chunks:
                spend(1 + len(chunk) // 20)
                text.append(chunk)
    except RecursionError:
        raise DataError("the chat template nests deeper than Python can follow") from None
    except Exception as error:  # templates raise what they like
        raise DataError(f"the chat template refuses these messages: {reason(error)}") from None
    return "".join(text)


def _characters(messages: Sequence[Mapping[str, Any]]) -> int:
    contents = [message["content"] for message in messages]
    parts = [part for each in contents for part in ([{"text": each}] if isinstance(each, str) else each)]
    calls = sum(_length_of(message["tool_calls"]) for message in messages if "tool_calls" in message)
    return sum(len(part.get("text", "")) for part in parts) + calls


def _length_of(value: Any) -> int:
    """Characters of a value as JSON, and some for each of its parts."""
    return len(json.dumps(value, indent=4)) if value else 0


@cache
def _defaults() -> dict[str, Any]:
    """What transformers passes where a conversation has no tools and no documents."""
    from transformers.utils.chat_template_utils import render_jinja_template

    probe = "{{ tools is none }}"
    rendered = render_jinja_template(conversations=[[]], chat_template=probe)[0]
    return {"tools": None if rendered == ["True"] else [], "documents": None}


@cache
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


@cache
def _environment() -> jinja2.Environment:
    environment = _Bounded(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.filters = {name: _bounded_filter(name, each) for name, each in environment.filters.items()}
    environment.filters |= {"_counted": counted, "_weighed": weighed}
    environment.globals.pop("lipsum", None)
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    return environment


class _Bounded(ImmutableSandboxedEnvironment):
    """Sandboxed, without anything to change, and every loop, call, filter and operator counted."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Counting().visit(source), *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        charge(left, right)
        if operator == "**" and _is_large(left, right, 64):
            raise jinja2.TemplateRuntimeError(f"{left} ** {right} is no number of a chat template")
        if operator == "*":
            charge_repeated(left, right)
        if operator == "%" and isinstance(left, str):
            check_format(left, right if isinstance(right, tuple) else (right,))
        return weighed(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr != "encode" and super().is_safe_attribute(obj, attr, value)  # bytes would go uncounted

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        args = tuple(listed(each) for each in args)
        arguments = (*args, *kwargs.values())
        text = getattr(obj, "__self__", None)
        if isinstance(text, str):
            check_method(obj.__name__, text, arguments)
        charge(*arguments)
        return weighed(super().call(context, obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        inner = super().wrap_str_format(value)
        if inner is None:
            return None

        @wraps(inner)
        def bounded(*args: Any, **kwargs: Any) -> str:
            check_format(value.__self__, (*args, *kwargs.values()))
            return inner(*args, **kwargs)

        return bounded


class _Counting(NodeTransformer):
    """Puts a counter into every loop, and a scale under everything that is put together."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _through("_counted", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_through("_weighed", each) for each in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _through("_weighed", node.expr)
        for operand in node.ops:
            operand.expr = _through("_weighed", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _through("_weighed", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _through("_weighed", node)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _through("_weighed", node) if node.ctx == "load" else node


class _Generation(Extension):
    """`{% generation %}` round what an assistant says: nothing to Chiasm, which knows it by the prompt."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(
            line
        )


def _through(name: str, node: Any) -> nodes.Filter:
    filter_node = nodes.Filter(node, name, [], [], None, None)
    filter_node.set_lineno(node.lineno)
    return filter_node


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context or environment stands in front

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        value, *arguments = args[skipped:]
        value = listed(value)
        arguments += kwargs.values()
        if isinstance(value, str):
            check_method(name, value, arguments)
        if name == "join" and isinstance(value, Sized):
            spend(len(value) * longest(arguments) // 20)
        if name == "sum" and any(not isinstance(each, int | float | str) for each in arguments):
            raise jinja2.TemplateRuntimeError("sum adds numbers")
        charge(value, *arguments)
        return weighed(function(*args[:skipped], value, *args[skipped + 1 :], **kwargs))

    return bounded


def _is_large(left: Any, right: Any, bits: int) -> bool:
    return not (isinstance(left, int | float) and isinstance(right, int | float) and abs(right) < bits)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Without the escapes for HTML that Jinja's own has."""
    if (isinstance(indent, int) and indent > 100) or longest([indent, separators]) > 100:
        raise jinja2.TemplateRuntimeError("tojson with more than 100 characters between two things")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
