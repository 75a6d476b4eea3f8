"""What is in a folder that no family knows, in a sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from chiasm.errors import excerpt
from chiasm.storage.weights import SUFFIXES

if TYPE_CHECKING:
    from chiasm.interop.family import Folder

LISTED = 12  # names of files in an error
LONGEST = 300  # letters of the reason why one was not read
KNOWN = "`chiasm families` lists those that it can"


def described(folder: Folder) -> str:
    """What the folder is, and what can be done with it; a sentence that continues its name."""
    files = sorted(path.name for path in folder.path.iterdir())
    if "parts.json" in files or (folder.path / "final/parts.json").is_file():
        return " is a checkpoint of Chiasm's already: it needs no import"
    if "adapter_config.json" in files:
        base = folder.json("adapter_config.json").get("base_model_name_or_path") or "its model"
        return (
            f" holds an adapter alone; merge it into {base} first, and import the folder of the whole model"
        )
    if set(files) & {"mm_projector.bin", "mm_projector.safetensors"}:
        return " holds a projector alone, without the language model that it belongs to"
    name = _name(folder)
    if name is None:
        listed = ", ".join(files[:LISTED]) or "nothing"
        return (
            f" is of no known layout; it holds {listed}. `chiasm families` lists those that Chiasm can "
            f"import, and by what it recognises them{_unread(folder)}"
        )
    known = _use(folder) or _layouts(name) or f"which Chiasm cannot import yet; {KNOWN}"
    return f": this is {name}, {known}{_without_weights(folder)}"


def _unread(folder: Folder) -> str:
    """Why YAML files of the folder could not be read."""
    reasons = [excerpt(" ".join(each.split()), LONGEST) for each in folder.unread.values()]
    return f". Not read: {'; '.join(reasons[:LISTED])}" if reasons else ""


def _name(folder: Folder) -> str | None:
    """What the folder's config calls its model."""
    config = folder.config
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    named = (config.get("model_type"), config.get("_class_name"), first)
    return next((name for name in named if isinstance(name, str) and name), None)


def _layouts(name: str) -> str | None:
    """By what the families of this name are recognised, none of which is there."""
    from chiasm.interop.family import all_families

    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    families = [each for each in all_families().values() if word.search(f"{each.name} {each.looks_for}")]
    listed = "; ".join(f"{each.name} by {each.looks_for}" for each in families)
    return f"but lacks what it is recognised by: {listed}" if families else None


def _without_weights(folder: Folder) -> str:
    if any(path.suffix in SUFFIXES for path in folder.path.rglob("*")):
        return ""
    return f". It holds no weights: no file {', '.join(f'*{suffix}' for suffix in SUFFIXES)}"


def _use(folder: Folder) -> str | None:
    """How a recipe takes the folder as it is, where it holds a part alone."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForZeroShotImageClassification,
    )
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = folder.config.get("model_type")
    settings = CONFIG_MAPPING[kind] if isinstance(kind, str) and kind in CONFIG_MAPPING else None
    if settings is None:
        return None
    classifiers = (AutoModelForImageClassification, AutoModelForZeroShotImageClassification)
    if any(settings in each._model_mapping for each in classifiers):
        return (
            f"a vision model: a recipe takes it as encoder: {{type: transformers, checkpoint: {folder.path}}}"
        )
    if settings in AutoModelForCausalLM._model_mapping and "vision_config" not in settings.sub_configs:
        return f"a language model alone: a recipe takes it as language: {{type: causal, checkpoint: {folder.path}}}"
    return None
