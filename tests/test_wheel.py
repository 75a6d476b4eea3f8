"""A wheel, away from the repository: recipes, studies, templates and pages are in it, and commands work."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from chiasm.recipe import recipes, shipped

pytest.importorskip("hatchling", reason="builds wheels")
ROOT = Path(__file__).parents[1]
# In one process, as each takes its time to start.
AS_A_USER = """
import sys

import chiasm
from chiasm.cli import main
from chiasm.recipe import recipes, shipped

for arguments in (["recipes"], ["doctor"], ["show", "llava", "--tiny"], ["study", "connectors", "--help"]):
    sys.argv = ["chiasm", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments

from starlette.testclient import TestClient
from chiasm.serving.app import create_app

page = TestClient(create_app({})).get("/")
assert page.status_code == 200, page
print("PAGE", len(page.content))
print("FROM", chiasm.__file__)
print("STUDIES", *shipped("studies", "study-files"))
print("RECIPES", *recipes())
"""


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (file,) = folder.glob("*.whl")
    return file


def test_every_file_of_the_package_is_in_it(wheel):
    package = ROOT / "src" / "chiasm"
    files = {
        f"chiasm/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    for name, folder in (("recipes", "recipes"), ("studies", "study-files")):
        files |= {
            f"chiasm/{folder}/{path.relative_to(ROOT / name).as_posix()}"
            for path in (ROOT / name).rglob("*.*")
        }
    assert files <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_commands_and_pages_work_from_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip("install", "--no-deps", "--no-index", "--target", site, wheel)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", AS_A_USER]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = {first: rest for first, *rest in map(str.split, done.stdout.splitlines()[-4:])}
    assert Path(printed["FROM"][0]).is_relative_to(site)
    assert printed["RECIPES"] == list(recipes())
    assert printed["STUDIES"] == list(shipped("studies", "study-files"))
    assert int(printed["PAGE"][0]) == (ROOT / "src/chiasm/serving/playground.html").stat().st_size
    assert list(empty.iterdir()) == []
    entry = next((site / "bin").glob("chiasm*"))
    version = subprocess.run([entry, "--version"], cwd=empty, env=environment, capture_output=True, text=True)
    assert version.stdout.startswith("chiasm ")
