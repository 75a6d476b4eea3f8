"""docs/extend.md as a stranger follows it: its files are written, its commands run, and nothing else is done."""

import csv
import importlib
import json
import re
import shlex
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import chiasm
from chiasm import parts
from chiasm.cli import main
from chiasm.data.world.assets import emoji_set
from chiasm.encoders.vit import ViT
from chiasm.errors import ChiasmError, RecipeError
from chiasm.evaluation.tasks import tasks
from chiasm.interop import find_family, import_checkpoint
from chiasm.parts.registry import Registry
from chiasm.serving.app import create_app
from served import served
from tiny_recipe import TINY

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
# `averaged.py`: and behind it, before any other block, the file.
FILES = dict(re.findall(r"`(\w+\.(?:py|yaml))`:\n\n```\w+\n(.*?)^```", PAGE, re.M | re.S))
COMMANDS = [
    line for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines()
]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder of a reader's, with the files of the page."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    def run_as_typed(command):
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        main()
        return capsys.readouterr().out

    return run_as_typed


def commands(file):
    return [line for line in COMMANDS if f"--plugin {file}" in line]


def recipe(path, **changes):
    raw = deepcopy(TINY) | changes
    path.write_text(yaml.safe_dump(raw))
    return path.name


def test_the_page_has_the_files_that_it_speaks_of():
    assert set(FILES) == {
        "averaged.py",
        "mirrored.py",
        "serpentine.py",
        "tunes.py",
        "tunes.yaml",
        "length.py",
        "table.py",
        "pets.yaml",
        "glance.py",
    }
    assert all(commands(file) for file in FILES if file.endswith(".py"))


def test_a_connector(desk, run):
    listed, shown = (run(line) for line in commands("averaged.py") if line.startswith("chiasm"))
    assert "gain" in listed
    assert "factor on the tokens." in listed
    assert re.search(r"connector\s+averaged\s+3 visual tokens", shown)  # a row of 3 x 3 features
    assert "averaged.py:7" in shown


def test_a_connector_is_trained_with_and_its_run_needs_the_file_again(desk, run):
    model = {**TINY["model"], "connector": {"type": "averaged"}}
    name = recipe(desk / "mine.yaml", model=model, stages=TINY["stages"][1:])
    run(f"chiasm train {name} --out mine stages.joint.steps=2 --plugin averaged.py")
    assert json.loads((desk / "mine/run.json").read_text())["plugins"] == ["averaged.py"]
    assert run("chiasm chat mine -m 'What is it?' --plugin averaged.py") is not None
    Registry.kinds["connector"]._definitions.pop("averaged")
    with pytest.raises(RecipeError, match=r"there is no connector 'averaged'.*--plugin FILE"):
        chiasm.load("mine")


@pytest.mark.slow
def test_a_connector_faces_the_contract_tests_of_every_part(desk):
    command = [*next(line for line in commands("averaged.py") if line.startswith("pytest")).split()]
    command[1:4] = [str(ROOT / command[1]), command[2], str(desk / command[3])]
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (desk / "averaged.py").write_text(
        FILES["averaged.py"].replace("return grid[0]\n", "return grid[0] + 1\n")
    )
    done = subprocess.run([sys.executable, "-m", *command, "-x"], cwd=ROOT, capture_output=True, text=True)
    assert "'averaged'" in done.stdout, "a broken promise of tokens names the part"
    assert done.returncode == 1


def test_an_alphabet_and_an_order(desk, run):
    shown = run(next(line for line in commands("mirrored.py") if line.startswith("chiasm")))
    assert re.search(r"serpentine", shown)
    model = {**TINY["model"], "heads": {"image": {"type": "serpentine", "alphabet": {"type": "mirrored"}}}}
    name = recipe(desk / "mine.yaml", model=model)
    plugins = "--plugin serpentine.py --plugin mirrored.py"
    run(f"chiasm train {name} --out mine stages.codes.steps=1 stages.joint.steps=2 {plugins}")
    run(f"chiasm generate mine 'Draw: a cat.' {plugins}")
    assert len(list((desk / "drawn").iterdir())) == 1
    head = chiasm.load("mine").heads["image"]
    rows, columns = head.space.grid
    codes = torch.arange(rows * columns).view(1, rows, columns) % head.space.size
    first, second = head.prepare(codes).targets[0, : 2 * columns].split(columns)
    assert (first.tolist(), second.tolist()) == (codes[0, 0].tolist(), codes[0, 1].flip(0).tolist())
    assert head.layout().coordinates[columns] == (columns, 1, columns - 1)


@pytest.mark.slow
def test_a_modality(desk, run, monkeypatch, capsys):
    """The world's sounds are learnt: heard, written where they are asked for, and each thing's own."""
    shown, _, writes, hears = commands("tunes.py")
    assert re.search(r"modalities\.sound\s+waves\s+64 numbers in 4 positions", run(shown))
    model = {**TINY["model"], "modalities": {"sound": {"type": "waves"}}}
    train = {"connector": 6e-3, "language": 6e-3, "modalities": {"sound": 6e-3}, "heads.image": 1e-3}
    stage = TINY["stages"][1] | {"train": train, "data": {"tunes": 1.0}, "steps": 120, "rows": 4}
    data = {"tunes": {"type": "tunes", "things": 6, "scenes": 60, "canvas": 32}}
    name = recipe(desk / "mine.yaml", model=model, data=data, evaluation={}, stages=[stage])
    run(f"chiasm train {name} --out runs/tunes --plugin tunes.py")
    lines = [
        json.loads(line)["losses"] for line in (desk / "runs/tunes/metrics.jsonl").read_text().splitlines()
    ]
    assert {"text", "image", "sound"} <= set().union(*lines)
    sounds = [each["sound"] for each in lines if "sound" in each]
    assert np.mean(sounds[-10:]) < 0.5 * np.mean(sounds[:10])
    monkeypatch.syspath_prepend(str(desk))
    (script,) = [
        block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S) if "synthesise" in block
    ]
    space = {"__name__": "docs"}
    exec(compile(script, "extend.md", "exec"), space)
    assert capsys.readouterr().out.startswith("(64,) ")
    tunes, trained = sys.modules.pop("tunes"), space["model"]
    things = [each.english for each in emoji_set(6)]
    made = [tunes.periods(trained.synthesise("sound", f"Sound: {thing}.")) for thing in things]
    assert sum(periods == i for i, periods in enumerate(made, 1)) >= 4, made
    run(writes)
    written = np.load(desk / "drawn/sound-001.npy", allow_pickle=False)
    assert np.array_equal(written, trained.synthesise("sound", "Sound: cat."))
    question = [{"role": "user", "content": [{"signal": written, "modality": "sound"}, "What is heard?"]}]
    assert trained.chat(question).text in run(hears)
    served_as_the_page_says(trained, question)


def served_as_the_page_says(model, question):
    """By the functions of docs/serve.md."""
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    (script,) = [
        block for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "/signals" in block
    ]
    with served(create_app({"tunes": model})) as place:
        space = {"__name__": "docs"}
        exec(script.replace("127.0.0.1:8000", "{}:{}".format(*place)), space)
        sound, words = question[0]["content"]
        made = space["synthesise"]([space["heard"](sound["signal"]), {"type": "text", "text": words}])
    assert np.array_equal(made, model.synthesise("sound", question, seed=1))


def test_an_evaluation_task(desk, run):
    name = recipe(desk / "mine.yaml")
    run(f"chiasm train {name} --out runs/quickstart stages.codes.steps=1 stages.joint.steps=1")
    (command,) = commands("length.py")
    said = run(command)
    measured = json.loads((desk / "runs/quickstart/eval.json").read_text())
    assert set(measured["tasks"]) == {"length"}
    assert measured["tasks"]["length"]["words"] >= 0
    assert measured["settings"]["evaluation"]["tasks"] == {"length": {"most": 5}}
    assert "length: words " in said
    assert 'id="task-length"' in (desk / "runs/quickstart/report.html").read_text()


def pets(folder):
    random = np.random.default_rng(0)
    rows = [("image", "question", "answer")]
    for i in range(8):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        rows.append((f"{i}.png", "What is it,\nsay?", f"pet number {i}"))
    with (folder / "pets.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_a_data_format(desk, run):
    pets(desk)
    (command,) = commands("table.py")
    assert "pet number" in run(command)
    name = recipe(desk / "mine.yaml", data={"pets": {"type": "table", "path": "pets.csv"}}, evaluation={},
                  stages=[TINY["stages"][1] | {"data": {"pets": 1.0}}])  # fmt: skip
    run(f"chiasm train {name} --out mine stages.joint.steps=2 --plugin table.py")
    lines = (desk / "mine/metrics.jsonl").read_text().splitlines()
    assert all("text" in json.loads(line)["losses"] for line in lines)
    (desk / "3.png").unlink()
    with pytest.raises(ChiasmError, match=r"image 3\.png of row 4 of pets\.csv"):
        chiasm.train(name, desk / "other")


# Of the project that the page's family reads: its words for what our vision transformer names.
WORDS = {
    "patchify": "patch",
    "positions": "place",
    "blocks": "layers",
    "mlp.0": "up",
    "mlp.2": "down",
    "attention_norm": "before_attention",
    "mlp_norm": "before_mlp",
}


def glance(folder):
    """A checkpoint as that project writes it, and a case of its outputs; what it computes is our own ViT's."""
    torch.manual_seed(0)
    ours = ViT(**ViT.example()).eval()
    theirs = {}
    for name, tensor in ours.state_dict().items():
        for old, new in WORDS.items():
            name = name.replace(old, new)
        theirs[name] = tensor.clone()
    config = {
        "model_type": "glance",
        "patch": 8,
        "width": 16,
        "layers": 2,
        "heads": 2,
        "image": 32,
        "dropout": 0.1,
    }
    (folder / "glance-small").mkdir()
    (folder / "glance-small/config.json").write_text(json.dumps(config))
    save_file(theirs, folder / "glance-small/model.safetensors")
    case = {"system": "glance", "case": "one", "reference": {"class": "Glance"}, "config": config,
            "outputs": {"features": {"atol": 1e-6, "rtol": 1e-5}}}  # fmt: skip
    (folder / "parity/glance").mkdir(parents=True)
    (folder / "parity/glance/one.json").write_text(json.dumps(case))
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        tensors = {"input/pixels": pixels, "output/features": ours(pixels)}
    save_file(
        tensors | {f"param/{k}": v for k, v in theirs.items()}, folder / "parity/glance/one.safetensors"
    )
    return theirs, config


def test_a_checkpoint_family(desk, run):
    theirs, config = glance(desk)
    listed, imported, exported, verified = (run(line) for line in commands("glance.py"))
    assert "The vision transformer of the Glance project." in listed
    assert "imported into imported" in imported
    assert "exported into back" in exported
    assert "1 of 1 cases agree" in verified
    back = load_file(desk / "back/model.safetensors")
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())
    config["rotary"] = True
    (desk / "glance-small/config.json").write_text(json.dumps(config))
    with pytest.raises(ChiasmError, match=r"glance-small: 'glance' neither uses nor knows .*: rotary = True"):
        import_checkpoint("glance-small", "again")


PLACES = {
    "averaged.py": ("chiasm.connectors", "connector", lambda: parts.lookup("connector", "averaged")),
    "mirrored.py": ("chiasm.heads.alphabets", "alphabet", lambda: parts.lookup("alphabet", "mirrored")),
    "serpentine.py": ("chiasm.heads.orders", "order", lambda: parts.lookup("order", "serpentine")),
    "tunes.py": ("chiasm.modalities", "modality", lambda: parts.lookup("modality", "waves")),
    "length.py": ("chiasm.evaluation.tasks", "task", lambda: tasks()["length"]),
    "table.py": ("chiasm.data", "data", lambda: parts.lookup("data", "table")),
    "glance.py": ("chiasm.interop.families", "checkpoint family", lambda: find_family("glance")),
}


@pytest.mark.parametrize("file", PLACES)
def test_inside_the_package_the_same_file_is_found_by_lying_in_its_folder(desk, monkeypatch, file):
    package, kind, look_up = PLACES[file]
    with pytest.raises((ChiasmError, KeyError)):
        look_up()
    folder = importlib.import_module(package)
    (desk / "inside").mkdir()
    (desk / file).rename(desk / "inside" / file)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(desk / "inside")])
    for each in Registry.kinds.values():  # a file may define more than its folder is for
        each.items()
        monkeypatch.setattr(each, "_definitions", dict(each._definitions))
    monkeypatch.setattr(Registry.kinds[kind], "_discovered", False)
    assert look_up()
    monkeypatch.delitem(sys.modules, f"{package}.{file.removesuffix('.py')}")


def test_the_pages_python_runs(desk, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    own, _ = [block for block in blocks if block not in FILES.values()]
    exec(compile(own, "extend.md", "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out.strip() == "{'type': 'averaged', 'gain': 2.0}"
