"""The notebook's cells run one after another, and it is a notebook."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
SPEC = importlib.util.spec_from_file_location("notebook", DOCS / "notebook.py")
notebook = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebook)


@pytest.mark.slow
def test_its_cells_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    setup, *rest = notebook.cells()
    assert "\nTINY = False\n" in setup
    results = [notebook.run(cell, names) for cell in (setup.replace("TINY = False", "TINY = True"), *rest)]
    printed = "".join(text for text, _ in results)
    assert (tmp_path / "runs" / "notebook").is_dir()
    assert "questions: " in printed
    assert "read x 9: the image's tokens" in printed
    assert sum(isinstance(value, Image.Image) for _, value in results) == 4


def test_what_a_cell_prints_and_its_last_value_are_its_outputs():
    printed, value = notebook.run("x = 2\nprint(x)\nx + 1", {})
    assert (printed, value) == ("2\n", 3)
    stream, result = notebook.outputs(printed, value, 5)
    assert stream["text"] == ["2\n"]
    assert (result["execution_count"], result["data"]) == (5, {"text/plain": ["3"]})
    (drawn,) = notebook.outputs("", Image.new("RGB", (2, 2)), 1)
    assert set(drawn["data"]) == {"image/png", "text/plain"}
    assert notebook.outputs(*notebook.run("x = 1", {}), 1) == []


def test_it_is_a_notebook_whose_links_lead_somewhere():
    file = json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))
    assert (file["nbformat"], file["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in file["cells"]]
    assert len(set(ids)) == len(ids)
    links = [link for text in notebook.cells("markdown") for link in re.findall(r"\]\(([^)#]+)", text)]
    assert links
    for link in links:
        assert (DOCS / link).exists(), link
