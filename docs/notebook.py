"""Runs the cells of notebook.ipynb in this process and writes what comes of them into it.

python docs/notebook.py          # about ten minutes on a laptop's CPU
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")


def cells(kind: str = "code") -> list[str]:
    """The sources of the notebook's cells of a kind."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def run(source: str, names: dict[str, Any]) -> tuple[str, Any]:
    """What a cell prints, and the value of its last line where that is an expression, as a kernel has it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(tree, "a cell", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "a cell", "eval"), names)
    return printed.getvalue(), value


def outputs(printed: str, value: Any, number: int) -> list[dict[str, Any]]:
    """In the notebook's format."""
    result: list[dict[str, Any]] = []
    if printed:
        result.append({"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)})
    if value is not None:
        data: dict[str, Any] = {"text/plain": [repr(value)]}
        if isinstance(value, Image.Image):
            file = io.BytesIO()
            value.save(file, "png", optimize=True)
            data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": ["an image"]}
        result.append(
            {"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}}
        )
    return result


def main() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, 1):
        printed, value = run("".join(cell["source"]), names)
        printed = printed.replace(str(Path.home()), "~")
        cell["execution_count"], cell["outputs"] = number, outputs(printed, value, number)
        print(f"cell {number} of {len(code)}\n{printed}", file=sys.stderr, flush=True)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
