"""The kinds of input of the fuzz: each is a function that makes one from a seed, in a folder of its own."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_stock as stock
import mutated
import numpy as np
import yaml
from fuzz_api import call
from fuzz_commands import command_line
from fuzz_worker import Action, Kind
from mutated import odd
from rich.console import Console

import chiasm
from chiasm import parts
from chiasm.data.files import PictureFile, picture_of_base64
from chiasm.data.filtering.stream import Filters, filter_documents
from chiasm.data.images import opacity, open_image
from chiasm.interop import export_checkpoint, import_checkpoint
from chiasm.interop.family import all_families
from chiasm.interop.merging import merge_checkpoint
from chiasm.recipe import load_recipe
from chiasm.storage.integrity import seal
from chiasm.studies.design import cells_of
from chiasm.studies.plan import load_study
from chiasm.terminal.show import show
from chiasm.terminal.upgrade import upgrade

TEMPLATES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch RAN') }}",
    "{% for i in range(10**9) %}x{% endfor %}", "{{ 'x' * 10**10 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{{ raise_exception('no') }}", "{{ messages",
    "{% if %}",
    "{{ messages[9]['role'] }}", "", "\ud800", "{{ 1 / 0 }}", "{{ '%999999999d' % 1 }}",
    "{{ ''.format_map(messages) }}",
    "{% for a in range(999) %}{% for b in range(999)%}{% for c in range(99) %}{% endfor %}{% endfor %}{% endfor %}",
    "{{ 10 ** 10 ** 10 }}", "{% set ns = namespace(a=1) %}{{ ns.__init__ }}", "{{ strftime_now('%Y') }}",
    "{" * 10_000,
)  # fmt: skip
CODE = "open({canary!r}, 'w')\nimport os\nos.system('touch ' + {canary!r})\nclass Tokenizer: pass\n"


def kinds(root: Path) -> dict[str, Kind]:
    """By name. root: `stock` in it holds what they are made of, `canary` is what nothing may touch."""
    _zeros(10**8)  # before processes are forked
    kinds = _Kinds(root / "stock", root / "canary" / "ran")
    return {
        "recipe": Kind(28, kinds.recipe),
        "study": Kind(4, kinds.study),
        "record": Kind(18, kinds.record),
        "source": Kind(5, kinds.source),
        "picture": Kind(20, kinds.picture),
        "checkpoint": Kind(8, kinds.checkpoint),
        "run": Kind(3, kinds.run),
        "import": Kind(4, kinds.foreign),
        "command": Kind(10, lambda dice, here: command_line(dice, here, kinds.stock)),
        "call": Kind(8, lambda dice, here: call(dice, here, kinds.stock)),
    }


class _Kinds:
    """canary: a file that is made where something of an input runs."""

    def __init__(self, stock: Path, canary: Path):
        self.stock, self.canary = stock, canary

    def recipe(self, dice: random.Random, here: Path) -> Action:
        """A shipped recipe with something wrong in it or in its file: loaded, or shown as well."""
        name = dice.choice(sorted(stock.recipe_texts()))
        tiny, path = dice.random() < 0.5, here / "recipe.yaml"
        if dice.random() < 0.25:
            path.write_bytes(self._armed(mutated.text(stock.recipe_texts()[name], dice)))
        else:
            other = stock.recipe_trees()[dice.choice(sorted(stock.recipe_trees()))]
            raw = stock.recipe_trees()[name]
            part = "tiny" if tiny and "tiny" in raw and dice.random() < 0.5 else None
            wrong = mutated.tree(raw[part] if part else raw, dice, other)
            path.write_text(_yaml({**raw, part: wrong} if part else wrong), encoding="utf-8")
        overrides = []
        if dice.random() < 0.2:
            keys = [".".join(map(str, at)) for at in mutated.places(stock.recipe_trees()[name])]
            overrides = [f"{dice.choice(keys)}={dice.choice([json.dumps, str])(odd(dice))}"]
        if tiny and dice.random() < 0.15:
            return lambda: show(load_recipe(path, overrides, tiny=True), whole=True)
        return lambda: load_recipe(path, overrides, tiny=tiny)

    def study(self, dice: random.Random, here: Path) -> Action:
        """A shipped study with something wrong in it."""
        trees = stock.study_trees()
        tree, path = trees[dice.choice(sorted(trees))], here / "study.yaml"
        path.write_text(_yaml(mutated.tree(tree, dice, trees[dice.choice(sorted(trees))])), encoding="utf-8")
        preset = dice.choice([None, "smoke", "smoke", dice.choice(list(tree.get("presets", {"x": 1}))), "no"])
        return lambda: cells_of(load_study(path, preset))

    def record(self, dice: random.Random, here: Path) -> Action:
        """A file of records of which some are wrong, read whole."""
        shutil.copytree(self.stock / "data", here / "data")
        path = here / "data" / dice.choice(["a.jsonl", "a.jsonl", "a.json", "a.txt"])
        known = (*stock.RECORDS, *stock.MORE_RECORDS)
        lines = [stock.written(mutated.tree(dice.choice(known), dice, dice.choice(known))) for _ in range(2)]
        lines.insert(dice.randrange(3), stock.written(dice.choice(known)))
        text = f"[{','.join(lines)}]" if path.suffix == ".json" else "\n".join(lines)
        content = text.encode(dice.choice(["utf-8"] * 8 + ["utf-16", "utf-8-sig"]))
        if dice.random() < 0.2:
            content = mutated.damaged(content, dice)
        path.write_bytes(
            content + dice.choice([b"\n", b"", b"\r\n", b"[" * mutated.DEEP, b'{"a":' * mutated.DEEP])
        )
        broken = dice.choice(["error", "skip"])
        if dice.random() < 0.25:
            filters = Filters(*(dice.random() < 0.5 for _ in range(4)))
            out = here / "out.jsonl"
            return lambda: filter_documents(path, out, filters, broken=broken)  # type: ignore[arg-type]
        spec = {"type": "chat", "path": str(path), "broken": broken}
        if dice.random() < 0.3:
            form = dice.choice(["head", "polygons", "runs", "image"])
            spec |= {"mask_form": form, "placeholders": True, "special_tokens": True}
        if dice.random() < 0.2:
            spec = mutated.tree(spec, dice)
        return lambda: _read(spec)

    def source(self, dice: random.Random, here: Path) -> Action:
        """A source of samples with odd options."""
        name = dice.choice([each for each in parts.names("data") if each != "chat"])
        options = list(parts.options(parts.lookup("data", name)))
        size = {"scenes": 2, "lists": 2, "pages": 2, "emoji": 8, "unseen": 4}
        spec = {"type": name} | {key: value for key, value in size.items() if key in options}
        if name == "denoising":
            spec["of"] = {"type": "world", "scenes": 2}
        spec |= {dice.choice(options): odd(dice) for _ in range(dice.choice([1, 1, 2]))}
        return lambda: _read(spec, 1)

    def picture(self, dice: random.Random, here: Path) -> Action:
        """An image of any format that is broken, or something else at its path."""
        images = stock.images()
        name = dice.choice(sorted(images))
        data = mutated.damaged(images[name], dice) if dice.random() < 0.9 else _no_image(images[name], dice)
        path = here / dice.choice([name, "a.png", "a", "\u202ea.png", "[bold].jpg"])
        path.write_bytes(data)
        if dice.random() < 0.05:
            _special(path, dice)
        where = "it"
        if dice.random() < 0.2:
            return lambda: opacity(open_image(data, where), where)
        if dice.random() < 0.2:
            text = base64.b64encode(data).decode()
            text = dice.choice(["", "data:image/png;base64,", "data:,", "DATA:x;base64,"]) + text
            return lambda: _opened(picture_of_base64(text, where))
        return lambda: _opened(PictureFile(path))

    def checkpoint(self, dice: random.Random, here: Path) -> Action:
        """A model's folder with something wrong in it: loaded and asked, exported, merged or brought up to date."""
        folders = [*(self.stock / "models").iterdir(), *[self.stock / "runs" / "small" / "final"] * 6]
        folder = shutil.copytree(dice.choice(sorted(folders)), here / "model")
        self._break(folder, dice)
        if dice.random() < 0.6:
            _seal(folder)
        what = dice.randrange(10)
        if what == 0:
            return lambda: export_checkpoint(folder, here / "out")
        if what == 1:
            return lambda: upgrade(folder)
        if what == 2:
            return lambda: merge_checkpoint(folder, here / "out")
        return lambda: _used(folder)

    def run(self, dice: random.Random, here: Path) -> Action:
        """A run's folder with something wrong in it, in which training goes on, or which is measured."""
        folder = shutil.copytree(
            self.stock / "runs" / dice.choice(["small", "stopped", "stopped"]), here / "run", symlinks=True
        )
        folders = [folder, folder, *folder.glob("checkpoints/*"), *folder.glob("final")]
        broken = dice.choice(folders)
        self._break(broken, dice)
        if dice.random() < 0.5:
            _seal(broken)
        recipe = stock.small_recipe(str(self.stock / "data" / "records.jsonl"))
        if dice.random() < 0.15:
            return lambda: chiasm.evaluate(folder, ["evaluation.samples=2"])
        return lambda: chiasm.training.train(load_recipe(recipe), folder, console=Console(quiet=True))

    def foreign(self, dice: random.Random, here: Path) -> Action:
        """A folder of another project with something wrong in it, imported."""
        folder = shutil.copytree(dice.choice(sorted((self.stock / "public").iterdir())), here / "theirs")
        for _ in range(dice.choice([1, 1, 2])):
            self._break(folder, dice)
        layout = dice.choice([None, None, None, *sorted(all_families())])
        averaged = dice.random() < 0.05
        return lambda: import_checkpoint(folder, here / "ours", layout=layout, averaged=averaged)

    def _break(self, folder: Path, dice: random.Random) -> None:
        """Something wrong with a file of a folder, or a file too many."""
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "checksums.json")
        path, chance = dice.choice(files or [folder / "x"]), dice.random()
        if chance < 0.15:
            self._add_hostile(folder, dice)
        elif chance < 0.25:
            _special(path, dice)
        elif chance < 0.35:
            like = sorted(each for each in self.stock.rglob(path.name) if each.is_file())
            path.write_bytes(dice.choice(like or [path]).read_bytes())
        elif chance < 0.45:
            path.write_bytes(mutated.damaged(path.read_bytes(), dice))
        else:
            path.write_bytes(self._wrong(path, dice))

    def _wrong(self, path: Path, dice: random.Random) -> bytes:
        """The content of a file with something wrong that its format knows of."""
        data = path.read_bytes()
        if path.suffix in (".json", ".yaml") and dice.random() < 0.8:
            like = [each for each in sorted(self.stock.rglob(path.name)) if each.is_file()] or [path]
            own, other = _parsed(path), _parsed(dice.choice(like))
            wrong = mutated.tree(own, dice, other)
            return (json.dumps(wrong) if path.suffix == ".json" else _yaml(wrong)).encode()
        if path.suffix in (".json", ".yaml", ".jsonl"):
            return self._armed(mutated.text(data.decode(errors="replace"), dice))
        if path.suffix == ".safetensors":
            return mutated.safetensors(data, dice)
        if path.suffix == ".jinja":
            return self._armed(dice.choice(TEMPLATES).encode("utf-8", "surrogatepass"))
        if path.suffix == ".bin":
            return mutated.pickles(self.canary, dice)
        return mutated.damaged(data, dice)

    def _add_hostile(self, folder: Path, dice: random.Random) -> None:
        """Code that a library might run: named in a config, in a pickle or in a template."""
        kind = dice.randrange(4)
        if kind == 0:
            names = ("pytorch_model.bin", "model.pt", "model.ckpt", "model.safetensors", "training_args.bin")
            (folder / dice.choice(names)).write_bytes(mutated.pickles(self.canary, dice))
            return
        config = dice.choice(sorted(folder.rglob("*config*.json")) or [folder / "config.json"])
        parsed = _parsed(config) if config.is_file() else {}
        content = parsed if isinstance(parsed, dict) else {}
        if kind == 1:
            content["chat_template"] = self._armed(dice.choice(TEMPLATES).encode("utf-8", "replace")).decode()
        else:
            (config.parent / "code.py").write_text(CODE.format(canary=str(self.canary)))
            classes = (
                "AutoTokenizer",
                "AutoConfig",
                "AutoModel",
                "AutoModelForCausalLM",
                "AutoProcessor",
                "AutoImageProcessor",
            )
            content["auto_map"] = dict.fromkeys(classes, "code.Tokenizer")
            content["tokenizer_class"] = dice.choice(
                ["Tokenizer", "LlamaTokenizer", "PreTrainedTokenizerFast"]
            )
            if dice.random() < 0.5:
                content["model_type"] = "stranger"
        config.write_text(json.dumps(content))

    def _armed(self, content: bytes) -> bytes:
        return content.replace(b"RAN", str(self.canary).encode())


def _parsed(path: Path) -> Any:
    """What a file of JSON or YAML holds; {} where it is neither any more."""
    try:
        return json.loads(path.read_bytes()) if path.suffix == ".json" else yaml.safe_load(path.read_bytes())
    except (ValueError, yaml.YAMLError, RecursionError):
        return {}


def _yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1000)


def _read(spec: Any, most: int = 1000) -> None:
    """Every sample of a source, its images and masks."""
    source = parts.build("data", spec)
    for index in range(min(len(source), most)):
        for sample in source[index]:
            for message in sample.messages:
                for item in message.content:
                    if not isinstance(item, str):
                        _opened(item)
            if sample.masks is not None:
                sample.masks.open()
    assert source.fingerprint


def _opened(picture: Any) -> None:
    size, image = picture.size, picture.open()
    if image.mode != "RGB" or (image.height, image.width) != tuple(size) or not picture.key:
        raise AssertionError(f"measured as {size}, but opened as {image}")


def _used(folder: Path) -> None:
    model = chiasm.load(folder, "cpu")
    if model.speaks and model.language is not None:
        model.chat("What?", tokens=3)
    if model.draws and model.follows_words:
        model.generate("a dog")


@cache
def _zeros(size: int) -> bytes:
    """So many bytes, compressed."""
    return zlib.compress(bytes(size))


def _no_image(data: bytes, dice: random.Random) -> bytes:
    """What is no image that is read, or one that is too large."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    def png(width: int, height: int, more: bytes = b"") -> bytes:
        header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, 8, 0, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + more
            + chunk(b"IDAT", pixels)
            + chunk(b"IEND", b"")
        )

    pixels = _zeros(dice.choice([10, 10**7]))
    saved = io.BytesIO()
    np.save(saved, np.zeros((4, 4, 3), np.uint8))
    choices: Sequence[bytes] = (
        b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(RAN) (w) file\n", b"%PDF-1.4\n", b"<svg/>",
        b"BM",
        png(2**31 - 1, 2**31 - 1), png(0, 0), png(30_000, 30_000), png(9_999, 9_999), png(-1, 1),
        png(8, 8, chunk(b"zTXt", b"a\0\0" + _zeros(10**8))),
        png(8, 8, chunk(b"iCCP", b"a\0\0" + _zeros(10**8))),
        png(8, 8, chunk(b"eXIf", b"MM\0*\0\0\0\x08" + b"\xff" * 60_000)), saved.getvalue(), data[:8] * 1000,
        b"P6\n99999 99999\n255\n", b"P6 1 1 255 abc", b"II*\0\x08\0\0\0\xff\xff" + b"\x01" * 400_000,
        b"GIF89a\xff\xff\xff\xff",
        b"RIFF\xff\xff\xff\xffWEBPVP8X" + b"\xff" * 30, b"\xff\xd8" + b"\xff\xe1\xff\xff" * 1000,
        b"8BPS\0\x01" + b"\0" * 60,
    )  # fmt: skip
    return dice.choice(choices)


def _special(path: Path, dice: random.Random) -> None:
    """Something else at the path of a file, or nothing."""
    path.unlink(missing_ok=True)
    choices: Sequence[Callable[[], object]] = (
        lambda: None,
        lambda: path.mkdir(),
        lambda: os.mkfifo(path),
        lambda: path.write_bytes(b""),
        lambda: path.symlink_to(path),
        lambda: path.symlink_to(
            dice.choice(["/dev/zero", "/dev/null", "/dev/tty", "/proc/self/mem", "/", "nowhere"])
        ),
    )
    dice.choice(choices)()


def _seal(folder: Path) -> None:
    """Write the checksums of what is there now, so that what is wrong is met by what reads it."""
    if (folder / "checksums.json").is_file():
        files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
        if all(path.is_file() and not path.is_symlink() for path in files):
            seal(folder)
