"""Writes docs/parts.md from the signatures of all parts: `python docs/parts.py`."""

import inspect
from pathlib import Path

from chiasm import parts

HEAD = """# Parts

Every slot of a recipe and the parts that fill it, from their signatures (`chiasm parts` prints the same). This page
is written by `python docs/parts.py`.
"""


def page() -> str:
    lines = [HEAD]
    for slot in parts.SLOTS:
        lines.append(f"## {slot}\n")
        for name in parts.names(slot):
            part = parts.lookup(slot, name)
            first = (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")
            lines.append(f"### `{name}`\n\n{first}\n")
            rows = [_row(option) for option in parts.options(part).values()]
            if rows:
                lines.append("| option | type | default | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(lines)


def _row(option: parts.Option) -> str:
    default = "required" if option.required else f"`{option.default!r}`"
    kind = option.type.replace("|", "\\|")
    return f"| `{option.name}` | `{kind}` | {default} | {option.help} |"


if __name__ == "__main__":
    (Path(__file__).parent / "parts.md").write_text(page(), encoding="utf-8")
