"""The results in docs/studies are what their records give."""

import shutil
from pathlib import Path

import pytest

from chiasm.studies.report import write_report

RESULTS = Path(__file__).parents[2] / "docs" / "studies"
STUDIES = sorted(folder for folder in RESULTS.iterdir() if folder.is_dir())


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_a_report_is_written_again_from_its_records(folder, tmp_path):
    again = shutil.copytree(folder, tmp_path / folder.name)
    for name in ("report.md", "report.html"):
        (again / name).unlink()
    verdict, _ = write_report(again)
    for name in ("report.md", "report.html"):
        assert (again / name).read_text(encoding="utf-8") == (folder / name).read_text(encoding="utf-8")
    assert f"**{verdict}**" in (folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_page_of_studies_says_the_verdict_and_leads_to_the_report(folder):
    page = (RESULTS.parent / "studies.md").read_text(encoding="utf-8")
    report = (folder / "report.md").read_text(encoding="utf-8")
    verdict = report.split("**")[1]
    assert verdict in " ".join(page.split())
    assert f"studies/{folder.name}/report.md" in page
