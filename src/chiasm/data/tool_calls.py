"""Tools that an assistant may call, its calls and their answers, as OpenAI's messages have them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chiasm.data.sample import Message, ToolCall
from chiasm.errors import DataError, excerpt, naming, nearest
from chiasm.storage import safe_json

MOST_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FIELDS = {"name", "description", "parameters", "strict"}


def declared(tools: Any) -> tuple[Mapping[str, Any], ...]:
    """Tools as chat templates take them; raises DataError naming what is wrong."""
    if tools is None:
        return ()
    if not isinstance(tools, list | tuple) or len(tools) > MOST_TOOLS:
        raise DataError.of("tools", f"{excerpt(tools)}; they must be a list of at most {MOST_TOOLS}")
    declarations = []
    for number, tool in enumerate(tools):
        with naming(f"tools[{number}]"):
            declarations.append(_declared(tool, f"tools[{number}]"))
    names = [tool["function"]["name"] for tool in declarations]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError.of("tools", f"two have the name {twice!r}")
    return tuple(declarations)


def names_of(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    return [tool["function"]["name"] for tool in tools]


def _declared(tool: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
        raise DataError(f"{where} is {excerpt(tool)}; it must be a tool of the type 'function'")
    function = tool.get("function")
    if not isinstance(function, Mapping) or set(tool) - {"type", "function"}:
        raise DataError(f"{where} must have the fields 'type' and 'function' alone")
    unknown = next((key for key in function if key not in _FIELDS), None)
    if unknown is not None:
        raise DataError(f"{where} has the unknown key {excerpt(unknown)!r}{nearest(str(unknown), _FIELDS)}")
    name, schema = function.get("name"), function.get("parameters")
    schema = {"type": "object", "properties": {}} if schema in (None, {}) else schema
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(f"{where}: its name is {excerpt(name)}; letters, digits, _ . and - make one")
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise DataError(f"{where}: its parameters must be a JSON schema of the type 'object'")
    if function.get("strict"):
        raise DataError(f"{where}: strict: arguments come as the model writes them; leave it out")
    description = "" if function.get("description") is None else function["description"]
    if not isinstance(description, str):
        raise DataError(f"{where}: its description is {excerpt(description)}; it must be text")
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": dict(schema)},
    }


def call_of(name: str, arguments: Any, id: str, where: str) -> ToolCall:
    """A call; its arguments are an object, or one in a text; raises DataError."""
    if isinstance(arguments, str):
        try:
            arguments = safe_json.parse(arguments)
        except ValueError as error:
            raise DataError(f"{where}: its arguments are no JSON: {error}") from None
    if not isinstance(arguments, Mapping):
        raise DataError(f"{where}: its arguments are {excerpt(arguments)}; they must be an object")
    return ToolCall(name, dict(arguments), id)


def calls_of(entries: Any, where: str) -> tuple[ToolCall, ...]:
    """The calls of a message (`tool_calls`); raises DataError."""
    if not isinstance(entries, list | tuple):
        raise DataError(f"{where} is {excerpt(entries)}; it must be a list of calls")
    return tuple(_call(entry, f"{where}[{i}]") for i, entry in enumerate(entries))


def _call(entry: Any, where: str) -> ToolCall:
    if isinstance(entry, ToolCall):
        return entry
    function = entry.get("function") if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping) or set(entry) - {"id", "type", "function", "index"}:
        raise DataError(f"{where} is {excerpt(entry)}; it must have the fields 'id', 'type' and 'function'")
    name, id = function.get("name"), entry.get("id", "")
    if not isinstance(name, str) or not isinstance(id, str) or set(function) - {"name", "arguments"}:
        raise DataError(f"{where}: its function is {excerpt(function)}; it must have a name and arguments")
    arguments = function.get("arguments")
    return call_of(name, {} if arguments in (None, "") else arguments, id, where)


def link_answers(messages: Sequence[Message]) -> list[Message]:
    """The messages, the call of each tool's answer being whole; raises DataError for one that answers none.

    At first an answer has the id of its call, perhaps the name of its tool; one without an id answers the first
    call that has no answer yet.
    """
    linked: list[Message] = []
    waiting: list[ToolCall] = []
    for number, message in enumerate(messages, 1):
        if message.role == "tool":
            name, id = ("", "") if message.call is None else (message.call.name, message.call.id)
            call = next((each for each in waiting if id in ("", each.id)), None)
            if call is None:
                raise DataError(f"message {number} answers the call {id!r}, which no message before it has")
            if name not in ("", call.name):
                raise DataError(f"message {number} is the answer of {name!r} to a call of {call.name!r}")
            waiting.remove(call)
            message = replace(message, call=call)
        elif waiting:
            raise DataError(f"message {number} stands where an answer to the call {waiting[0].name!r} should")
        waiting += message.calls
        linked.append(message)
    if waiting:
        raise DataError(f"the call {waiting[0].name!r} has no answer: there is nothing to go on from")
    return linked
