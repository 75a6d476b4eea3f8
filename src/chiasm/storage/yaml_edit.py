"""A YAML text changed in the places where its value changes; all else, comments too, stays as it was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from chiasm.errors import RecipeError
from chiasm.storage import safe_yaml


class Edit(NamedTuple):
    """The letters from `start` to `end` are replaced by `text`."""

    start: int
    end: int
    text: str


def edited(text: str, old: Any, new: Any) -> str | None:
    """The text of the value `old`, changed so that it is read as `new`; None where its form is too intricate."""
    try:
        edits = sorted(_edits(text, safe_yaml.nodes(text), old, new), reverse=True)
        for edit in edits:
            text = text[: edit.start] + edit.text + text[edit.end :]
        return text if safe_yaml.parse(text, "the recipe") == new else None
    except (RecipeError, yaml.YAMLError):
        return None


def flow(value: Any) -> str:
    """A value on one line, as it may stand behind a key."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{flow(key)}: {flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    return safe_yaml.write([value], flow=True).strip()[1:-1]


def _edits(text: str, node: yaml.Node, old: Any, new: Any) -> Iterator[Edit]:
    if old == new:
        return
    if isinstance(node, yaml.MappingNode) and isinstance(new, Mapping):
        if all(key in new for key in old) and len(old) == len(new):
            for name, child in node.value:
                key = safe_yaml.value_of(name)
                yield from _edits(text, child, old[key], new[key])
            return
        if not node.flow_style:
            yield from _other_keys(text, node, old, new)
            return
    if isinstance(node, yaml.SequenceNode) and isinstance(new, Sequence) and len(node.value) == len(new):
        for child, before, after in zip(node.value, old, new, strict=True):
            yield from _edits(text, child, before, after)
        return
    yield Edit(node.start_mark.index, _end(text, node), flow(new))


def _other_keys(
    text: str, node: yaml.MappingNode, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Edit]:
    """Of a mapping with a key a line: lines of keys that are gone give way to those of new ones."""
    indent = " " * node.start_mark.column
    lines = [f"{flow(key)}: {flow(new[key])}" for key in new if key not in old]
    for name, child in node.value:
        key = safe_yaml.value_of(name)
        if key in new:
            yield from _edits(text, child, old[key], new[key])
            continue
        start, end = name.start_mark.index, _end(text, child)
        if lines:
            yield Edit(start, end, f"\n{indent}".join(lines))
            lines = []
        else:  # the whole line, with its break
            yield Edit(text.rfind("\n", 0, start) + 1, text.find("\n", end) + 1 or len(text), "")
    if lines:
        end = _end(text, node)
        yield Edit(end, end, "".join(f"\n{indent}{line}" for line in lines))


def _end(text: str, node: yaml.Node) -> int:
    """Where a value ends, without the comments and empty lines that stand behind it."""
    start, end = node.start_mark.index, node.end_mark.index
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        return end
    lines = text[start:end].split("\n")
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return start + len("\n".join(lines))
