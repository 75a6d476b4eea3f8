"""Command lines of every command, with something wrong in them, run as `chiasm` runs them."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fuzz_stock as stock
import typer
import uvicorn
from fuzz_worker import Action, NoSentence
from mutated import odd

import chiasm.cli
from chiasm.errors import ChiasmError

# What each command is given where nothing is wrong; words in capitals are files of the folder.
SOUND: dict[str, str] = {
    "quickstart": "--out RUN model.connector.type=nothing",  # else it would train for minutes
    "train": "RECIPE --out OUT",
    "eval": "RUN evaluation.samples=2",
    "chat": "MODEL -m What? -p IMAGE --tokens 3",
    "generate": "MODEL dog --out OUT",
    "edit": "MODEL IMAGE dog --mask IMAGE --out OUT",
    "complete": "MODEL IMAGE IMAGE --out OUT",
    "study": "STUDY OUT --preset smoke",
    "evolve": "RUN told --out OUT --rounds 1 --problems 2 --tries 1 --steps 1 --tokens 2",
    "serve": "MODEL --port 0",
    "show": "RECIPE --tiny",
    "check": "RECIPE --samples 2",
    "doctor": "",
    "parts": "connector",
    "recipes": "",
    "world": "--show --scenes 2 --out OUT emoji=4",
    "import": "PUBLIC OUT",
    "families": "",
    "export": "MODEL OUT",
    "merge": "MODEL OUT",
    "upgrade": "RUN",
    "verify": "PUBLIC",
    "tokenizer report": "RUN --pictures 2 --out OUT",
    "data filter": "DATA OUT",
    "data select": "RUN DATA --target DATA --steps 0 --out OUT",
    "data make": "MODEL IMAGES --out OUT --tokens 2 --questions 1",
    "data precision": "MODEL world scenes=2 --images 1 --tokens 2 --questions 1",
}
# A large number of these is honest work, for as long as it takes.
WORK = (
    "--steps", "--problems", "--tries", "--rounds", "--samples", "--images", "--pictures", "--scenes",
    "--questions",
    "--tokens", "--count", "--seeds", "--workers", "--jobs",
)  # fmt: skip
PATHS = ("RUN", "MODEL", "PUBLIC", "RECIPE", "STUDY", "DATA", "IMAGE", "IMAGES", "OUT", "TOOLS", "PIPE",
"LOCKED", ".", "..", "")  # fmt: skip
WORDS = ("told", "smoke", "world", "exact", "cuda", "bf16", "fp64", "mps:9", "model.connector.depth=3",
"stages=1", "=", "a=",
         "--", "-", "-h", "--help", "--version", "dog", "RUN=MODEL", "http://127.0.0.1:9/v1", "http://[",
         "report", "check")  # fmt: skip


def command_line(dice: random.Random, here: Path, source: Path) -> Action:
    """source: the stock, of which the folder gets copies."""
    name = dice.choice(sorted(SOUND))
    words = SOUND[name].split()
    options = [option for each in _parameters(name) for option in each.opts if option.startswith("-")]
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3])):
        place, kind = dice.randrange(len(words) + 1), dice.randrange(6)
        if kind == 0:
            del words[place : place + 1]
        elif kind == 1 and options:
            option = dice.choice(options)
            words[place:place] = [option, _value(option, dice)]
        elif kind == 2:
            words[place:place] = [
                dice.choice(["--nothing", "--out=", "--seed=x", "--tiny", _value("", dice)])
            ]
        elif kind == 3:
            words[place:place] = words[place : place + 2]
        elif place < len(words):
            words[place] = _value(words[place - 1] if place else "", dice)
    if name == "quickstart" and SOUND[name].split()[-1] not in words:
        words.append(SOUND[name].split()[-1])
    files = _files(here, source, dice)
    arguments = [*name.split(), *[files.get(word, word) for word in words]]
    return lambda: _run(arguments, here.parents[1] / "output")


def _parameters(name: str) -> list[Any]:
    command: Any = typer.main.get_command(chiasm.cli.app)
    for part in name.split():
        command = command.commands[part]
    return list(command.params)


def _value(option: str, dice: random.Random) -> str:
    """A word that a shell could pass on, and that asks for no honest work of hours."""
    chance = dice.random()
    if option in WORK:
        return dice.choice(["1", "2", "0", "-1", "x", "", "nan", "1.5", "99999999999999999999999"])
    if chance < 0.35:
        return dice.choice(PATHS)
    if chance < 0.6:
        return dice.choice(WORDS)
    value = odd(dice)
    text = value if isinstance(value, str) else json.dumps(value)
    return os.fsdecode(text.replace("\0", "").encode("utf-8", "replace"))[:100_000] + dice.choice(
        ["", "", "\udcff"]
    )


def _files(here: Path, source: Path, dice: random.Random) -> dict[str, str]:
    shutil.copytree(source / "data", here / "data")
    shutil.copytree(source / "runs" / dice.choice(["small", "small", "stopped"]), here / "run")
    model = here / "run"
    if dice.random() < 0.3:
        model = shutil.copytree(dice.choice(sorted((source / "models").iterdir())), here / "model")
    recipe = stock.small_recipe(str(here / "data" / "records.jsonl"))
    recipe["tiny"] = {"model": {"connector": {"depth": 1}}}
    (here / "recipe.yaml").write_text(json.dumps(recipe))
    study = {"name": "s", "question": "?", "base": "recipe.yaml", "arms": {"a": {}, "b": {"set": {}}},
    "baseline": "a",
             "endpoint": "questions", "margin": 0.1, "seeds": [0, 1], "presets": {"smoke": {}}}  # fmt: skip
    (here / "study.yaml").write_text(json.dumps(study))
    (here / "tools.json").write_text(json.dumps(stock.MORE_RECORDS[2]["tools"]))
    os.mkfifo(here / "pipe")
    names = {
        "RUN": "run", "MODEL": str(model), "PUBLIC": str(source / "public" / "llava"),
        "RECIPE": "recipe.yaml",
        "STUDY": "study.yaml", "DATA": "data/records.jsonl", "IMAGE": "data/RGB.png", "IMAGES": "data",
        "OUT": "out",
        "TOOLS": "tools.json", "PIPE": "pipe", "LOCKED": "/proc/nothing", "RUN=MODEL": f"a={model}",
    }  # fmt: skip
    return names


def _run(arguments: list[str], output: Path) -> None:
    """Serving ends when the server would begin, and cells of a study when they would."""
    print("chiasm", *map(repr, arguments), flush=True)
    with (
        patch.object(sys, "argv", ["chiasm", *arguments]),
        patch.object(uvicorn.Server, "run", lambda self, sockets: None),
        patch("chiasm.studies.runner.run_apart", lambda *arguments: False),
    ):
        try:
            chiasm.cli.main()
            code: object = 0
        except SystemExit as end:
            code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    text = "".join(output.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[1:])
    if "Traceback (most recent call last)" in text:
        raise NoSentence(text)
    if code not in (None, 0):
        if not text.strip() or not isinstance(code, int):
            raise NoSentence(f"ended with {code!r} and the words {text!r}")
        raise ChiasmError(text.strip()[-1000:])
