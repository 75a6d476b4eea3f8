"""The catalogue of the survey's references: each has a row, and what the row says is there."""

import re
import sys
from pathlib import Path

import pytest

from chiasm import parts
from chiasm.recipe import about, recipes

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import learn_catalogue  # noqa: E402
import learn_figures  # noqa: E402

PAGE = ROOT / "docs" / "systems.md"
FIGURES = {row["name"]: row for row in learn_figures.read(ROOT / "docs" / "learn" / learn_figures.FIGURES)}
# Their numbers on arXiv; a leaderboard (1), a list (14) and a blog's model (21) have none.
ARXIV = {
    2: "2304.08485", 3: "2312.06109", 4: "2310.05126", 5: "2311.06607", 6: "2403.11703", 7: "2404.06512",
    8: "2404.16821", 9: "2403.04473", 10: "2402.14767", 11: "2406.08418", 12: "2405.11850", 13: "2403.05525",
    15: "2403.12895", 16: "2404.12803", 17: "2405.14295", 18: "2403.14598", 19: "2312.02228", 20: "2305.12223",
    22: "2301.12597", 23: "2204.14198", 24: "2312.06742", 25: "2408.01800", 26: "2401.16420", 27: "2208.10442",
    28: "2312.13286", 29: "2309.11499", 30: "2309.05519", 31: "2404.14396", 32: "2309.04669", 33: "2312.17172",
    34: "1711.00937", 35: "2310.05737", 36: "2404.02905", 37: "2412.19806", 38: "2312.14125", 39: "2312.00785",
}  # fmt: skip


def rows():
    section = PAGE.read_text(encoding="utf-8").split("## The survey's references")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


ROWS = {int(row[0]): row for row in rows()}


def test_each_of_the_39_references_has_one_row():
    assert [int(row[0]) for row in rows()] == list(range(1, 40))


@pytest.mark.parametrize("number", ARXIV)
def test_a_row_names_its_paper(number):
    assert ARXIV[number] in ROWS[number][1]


@pytest.mark.parametrize("number", ROWS)
def test_what_a_row_names_is_there_and_what_is_not_there_is_said(number):
    _, _, here, _, _, missing = ROWS[number]
    names = re.findall(r"`([^`]+)`", here)
    assert here or missing
    known = set(recipes()) | {name for slot in parts.SLOTS for name in parts.names(slot)}
    assert [name for name in names if name not in known and not name.startswith("chiasm ")] == []


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_of_a_reference_stands_in_its_row(name):
    heading = about(recipes()[name]).partition(",")[0]  # whose recipe it is, before what it is like
    for number, paper in ARXIV.items():
        if f"(arXiv {paper})" in heading:
            assert f"`{name}`" in ROWS[number][2], f"docs/systems.md, reference {number}"


@pytest.mark.parametrize("number", ROWS)
def test_what_a_row_says_was_learnt_is_what_was_measured(number):
    _, _, here, _, learnt, _ = ROWS[number]
    assert learnt == learn_catalogue.learnt(here, FIGURES), "python benchmarks/learn.py --page writes it"


def test_learning_figures_of_a_row_stand_beside_their_controls_and_what_is_not_measured_is_said(tmp_path):
    figures = {"data": "world", "figures": {"tasks": {"questions": {"score": 0.5, "blind": 0.25}}}}
    drawn = {"data": "world", "figures": {"tasks": {"generation": {"score": 0.9, "shuffled": 0.06}}}}
    page = tmp_path / "systems.md"
    rows = [
        "| 1 | a | `llava` | yes | old | |",
        "| 2 | b | `var`, `emu2`, `vq` | | | |",
        "| 3 | c | words | | | |",
    ]
    page.write_text("\n".join(["| # | reference |", *rows]) + "\n")
    learn_catalogue.write_catalogue([{"name": "llava", **figures}, {"name": "var", **drawn}], page)
    assert page.read_text().splitlines() == [
        "| # | reference |",
        "| 1 | a | `llava` | yes | answers 50 % (blind 25 %) | |",
        "| 2 | b | `var`, `emu2`, `vq` | | `var` draws 90 % (shuffled 6 %); `emu2` not measured | |",
        "| 3 | c | words | | | |",
    ]
