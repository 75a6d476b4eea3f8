"""What the documents say is tried: every Python block runs, every command is run as written."""

import re
import runpy
import shlex
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from PIL import Image

import chiasm
from chiasm import parts
from chiasm.cli import main
from chiasm.parts.registry import Registry
from chiasm.serving.app import create_app
from served import served

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").glob("*.md"))]
CHINESE = [page for page in PAGES if page.stem.endswith(".zh")]
# The code of a Chinese page is that of the English one; `test_extend.py` follows the files of extend.md.
TRIED = [page for page in PAGES if page not in CHINESE and page.stem != "extend"]
# What takes minutes is run on the recipe's tiny overlay; what needs files or hardware of the reader's is not run.
SHORTER = {
    "chiasm quickstart": "chiasm train quickstart --tiny --out runs/quickstart",
    "chiasm train quickstart": "chiasm train quickstart --tiny",
}
NOT_RUN = (
    *("make ", "git ", "pip ", "torchrun ", "tensorboard ", "python ", "cd "),
    *("chiasm import ", "chiasm export ", "chiasm verify ", "chiasm merge "),
    *("chiasm data ", "chiasm upgrade ", "chiasm serve ", "chiasm study ", "chiasm evolve "),
    *("chiasm train smol", "chiasm train llava", "chiasm train fuyu", "chiasm train mine"),
    *("chiasm train gvt", "chiasm eval runs/gvt", "chiasm train psalm", "chiasm eval runs/psalm"),
    *("chiasm train caption", "chiasm generate runs/caption", "chiasm train benchmarks/"),
    *("chiasm generate runs/grounded",),
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@contextmanager
def listening(folder):
    """The address of a server of one model, as `chiasm serve FOLDER` starts it."""
    with served(create_app({Path(folder).name: chiasm.load(folder)})) as place:
        yield "{}:{}".format(*place)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder as the reader has it after the quickstart: a trained run, and a picture."""
    folder = tmp_path_factory.mktemp("desk")
    for command in (["train", "quickstart", "--tiny"], ["eval", "runs/quickstart"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            if command[0] == "train":
                command += ["--out", "runs/quickstart"]
            patch.setattr(sys, "argv", ["chiasm", *command])
            main()
    Image.new("RGB", (192, 192), "white").save(folder / "scene.png")
    Image.new("RGBA", (192, 192)).save(folder / "mask.png")
    return folder


@pytest.mark.parametrize("page", TRIED, ids=lambda page: page.stem)
def test_python_blocks_run_in_order(page, desk, monkeypatch):
    monkeypatch.chdir(desk)
    names: dict = {"__name__": "docs"}
    for block in blocks(page, "python"):
        with listening("runs/quickstart") if "127.0.0.1:8000" in block else nullcontext("") as address:
            block = block.replace("127.0.0.1:8000", address)
            exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", TRIED, ids=lambda page: page.stem)
def test_commands_run(page, desk, monkeypatch):
    monkeypatch.chdir(desk)
    for line in (line for block in blocks(page, "bash") for line in block.splitlines()):
        command = line.split("  #")[0].strip()
        if not command or command.startswith(("#", *NOT_RUN)):
            continue
        for long, short in SHORTER.items():
            if command == long or command.startswith(long + " "):
                command = command.replace(long, short)
                break
        assert command.startswith("chiasm "), f"{page.name}: {line!r} is not a command that this test knows"
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        main()


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.stem)
def test_a_chinese_page_keeps_step_with_the_english_one(page):
    english = page.with_name(page.name.replace(".zh", ""))
    texts = [each.read_text(encoding="utf-8") for each in (english, page)]
    assert f"[中文]({page.name})" in texts[0]
    assert f"[English]({english.name})" in texts[1]
    outlines = [re.findall(r"^(#+) |^(```.*?^```)", text, re.MULTILINE | re.DOTALL) for text in texts]
    assert outlines[0] == outlines[1]  # sections of the same levels, and the same code between them
    items = [len(re.findall(r"^- \*\*", text, re.MULTILINE)) for text in texts]
    assert items[0] == items[1]
    if english.name != "README.md":  # whose figures stand in English alone
        rows = [
            [
                sorted(re.findall(r"`[^`]+`|\d[\d.,]*", row))
                for row in re.findall(r"^\|.*", text, re.MULTILINE)
            ]
            for text in texts
        ]
        assert rows[0] == rows[1]  # the same figures and names in the tables


def test_pages_for_those_who_only_use_a_model_are_there_in_chinese():
    assert {page.name for page in CHINESE} >= {"README.zh.md", "limits.zh.md", "serve.zh.md", "studio.zh.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target, section in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http", "mailto")):
            continue
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}, which is not there"
        if section and there.suffix == ".md":
            assert section in sections(there), (
                f"{page.name} links to {section} of {there.name}, which is not there"
            )


def sections(page: Path) -> set[str]:
    """The names by which sections of a page are linked to, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        for title in re.findall(r"^#+ +(.*?)\s*$", text, re.MULTILINE)
    }


def test_the_page_of_parts_is_up_to_date(monkeypatch):
    """Without what other tests define here."""
    for slot in parts.SLOTS:
        registry = Registry.kinds[slot]
        own = {name: each for name, each in registry.items().items() if each.__module__.startswith("chiasm.")}
        monkeypatch.setattr(registry, "_definitions", own)
    page = runpy.run_path(str(ROOT / "docs" / "parts.py"))["page"]()
    assert (ROOT / "docs" / "parts.md").read_text(encoding="utf-8") == page, "run python docs/parts.py"


def test_the_grid_is_up_to_date_and_shows_the_pictures_that_there_are():
    text = (ROOT / "docs" / "grid.md").read_text(encoding="utf-8")
    drawn = {path.stem for path in (ROOT / "docs" / "learn").glob("*.webp")}
    assert text == runpy.run_path(str(ROOT / "docs" / "grid.py"))["page"](drawn), "run python docs/grid.py"


def test_the_command_by_which_the_quickstart_learns_chinese_reaches_all_of_its_data():
    text = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    (names,) = re.findall(r"`chiasm train quickstart data\.\{([\w,-]+)\}\.language=zh ", text)
    recipe = chiasm.load_recipe("quickstart", [f"data.{name}.language=zh" for name in names.split(",")])
    assert [options["language"] for options in recipe.data.values()] == ["zh"] * 7
    assert "左上是什么?" in text
