"""Text tokenizers in folders: their chat templates wherever a folder has them, and the ids that end an answer.

Nothing of a folder is ever run: a tokenizer that needs code of its own is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from chiasm.errors import CheckpointError, reason
from chiasm.language.qwen_tokenizer import FILE, qwen_tokenizer
from chiasm.storage.folders import read_object
from chiasm.storage.transformers_weights import quiet_transformers

SETTINGS = "generation_config.json"
JINJA, NAMED = "chat_template.jinja", "additional_chat_templates"
PROCESSORS = ("processor_config.json", "chat_template.json")

Templates = str | dict[str, str]  # one, or several by name of which one is called "default"


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """A fast tokenizer with the folder's chat template, or without any; raises CheckpointError."""
    place = Path(folder)
    if (place / FILE).is_file() and not (place / "tokenizer.json").is_file():
        qwen = qwen_tokenizer(place / FILE)
        qwen.chat_template = folder_template(place)
        return qwen
    try:
        with quiet_transformers():  # of the model type of a config.json, which is no concern of a tokenizer
            inner = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # files of all kinds of forms
        raise CheckpointError(f"no tokenizer can be read from {folder}: {reason(error)}") from None
    if not inner.is_fast:
        raise CheckpointError(
            f"the tokenizer of {folder} has no tokenizer.json, which says where tokens stand"
        )
    if place.is_dir():
        inner.chat_template = folder_template(folder)
    return inner


def folder_template(folder: str | Path) -> Templates | None:
    """The chat templates of a folder, in transformers' order: the processor's, a file, the tokenizer's."""
    place = Path(folder)
    files = {path.stem: path for path in sorted((place / NAMED).glob("*.jinja"))} | {"default": place / JINJA}
    sources = [_templates_of(place / name) for name in PROCESSORS]
    sources.append({name: _text(path) for name, path in files.items() if path.is_file()})
    sources.append(_templates_of(place / "tokenizer_config.json"))
    named = {name: text for source in reversed(sources) for name, text in source.items()}
    return named["default"] if list(named) == ["default"] else named or None


def write_template(templates: Templates, folder: Path) -> None:
    """Make these the folder's chat templates, whatever it has."""
    named = {"default": templates} if isinstance(templates, str) else templates
    (folder / "chat_template.json").unlink(missing_ok=True)
    for name in ("processor_config.json", "tokenizer_config.json"):
        config = _json(folder / name)
        if config.pop("chat_template", None) is not None:
            text = json.dumps(config, indent=2, ensure_ascii=False)
            (folder / name).write_text(text + "\n", encoding="utf-8")
    for name, text in named.items():
        path = folder / JINJA if name == "default" else folder / NAMED / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _templates_of(path: Path) -> dict[str, str]:
    """The templates of a JSON file: one, a list of named ones, or several by name."""
    value = _json(path).get("chat_template")
    if value is None:
        return {}
    try:
        if isinstance(value, list):
            value = {each["name"]: each["template"] for each in value}
    except (KeyError, TypeError):
        value = {"": None}
    named = value if isinstance(value, dict) else {"default": value}
    if not all(isinstance(text, str) for pair in named.items() for text in pair):
        raise CheckpointError(
            f"{path}: chat_template must be a text, texts by name, or a list of mappings with name and template"
        )
    return named


def stop_ids(folder: str | Path) -> list[int]:
    """The ids that end an answer by the model's settings; [] where the folder has none."""
    config = _json(Path(folder) / "config.json")
    nested = config.get("text_config")
    for settings in (_json(Path(folder) / SETTINGS), config, nested if isinstance(nested, dict) else {}):
        ids = settings.get("eos_token_id")
        ids = ids if isinstance(ids, list) else [ids]
        if any(isinstance(id, int) for id in ids):
            return [id for id in ids if isinstance(id, int)]
    return []


def save_tokenizer(inner: PreTrainedTokenizerBase, folder: Path, stops: Iterable[int]) -> None:
    inner.save_pretrained(folder)
    if stops:
        (folder / SETTINGS).write_text(json.dumps({"eos_token_id": sorted(stops)}) + "\n", encoding="utf-8")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def _json(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
