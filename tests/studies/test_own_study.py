"""The study of `docs/studies.md`, run as a user would: own data, own metric, twenty lines of YAML."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from chiasm.cli import main

pytestmark = pytest.mark.usefixtures("nothing_left_behind")
PAGE = Path(__file__).parents[2] / "docs" / "studies.md"


@pytest.mark.slow
def test_the_study_of_the_documents_runs(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text(encoding="utf-8")
    (study,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^chiasm study mine\.yaml .*--plugin.*$", text, re.MULTILINE)
    assert len(study.splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(study)
    (tmp_path / "mine.py").write_text(
        "from chiasm.evaluation.metrics import metric\n\n\n"
        '@metric("first word")\ndef first_word(answer, truths):\n'
        "    return float(answer.split()[:1] == truths[0].split()[:1])\n"
    )
    for name, shades in (("ours", (0, 80, 160)), ("unseen", (40, 200))):
        lines = []
        for shade in shades:
            Image.new("RGB", (96, 96), (shade, shade, shade)).save(tmp_path / f"{shade}.png")
            answer = "dark" if shade < 100 else "bright"
            lines.append(
                {
                    "messages": [
                        {"role": "user", "content": "<image>How bright?"},
                        {"role": "assistant", "content": answer},
                    ],
                    "images": [f"{shade}.png"],
                }
            )
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")

    monkeypatch.setattr(sys, "argv", shlex.split(command))
    main()
    folder = tmp_path / "runs" / "studies" / "depth-smoke"
    records = [json.loads(path.read_text()) for path in (folder / "records").glob("*.json")]
    assert {record["arm"] for record in records} == {"two", "four"}  # the baseline, and what the preset names
    assert all(len(record["items"]) == 2 for record in records)
    assert "too small to conclude anything" in (folder / "report.md").read_text()
