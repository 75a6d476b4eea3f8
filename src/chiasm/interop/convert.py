"""Public checkpoints to Chiasm's: exact, and loud about every tensor that has no place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chiasm import parts
from chiasm.errors import CheckpointError, check_flag
from chiasm.interop.family import Family, Folder, Original, find_family, reading_config, recognise
from chiasm.interop.fit import check_fit, check_values
from chiasm.interop.mapping import NameMap
from chiasm.interop.origin import ASIDE, FILES, ORIGIN, digest_of_values
from chiasm.interop.shapes.preparation import check_colours, check_preprocessor
from chiasm.language.text import DRAW, PLAIN_TEMPLATE, is_numbered
from chiasm.language.tokenizer_folder import (
    JINJA,
    Templates,
    folder_template,
    load_tokenizer,
    stop_ids,
)
from chiasm.model.checkpoint import write_model
from chiasm.recipe import Recipe, load_recipe
from chiasm.recipe.slots import as_written
from chiasm.storage.folders import whole_folder, write_json, write_tensors
from chiasm.storage.integrity import seal
from chiasm.storage.weights import load_into

SIDE_SUFFIXES = (".json", ".txt", ".yaml", ".yml", ".model", ".jinja", ".tiktoken")


@dataclass
class Loaded:
    """A model with an original's weights.

    model: a `chiasm.model.Model`; without a language model its parts by slot, in an `nn.ModuleDict`.
    unused: tensors of the original that it does without, by the original's names.
    """

    model: Any
    recipe: Recipe
    unused: dict[str, Tensor]


def load(
    layout: Family,
    original: Original,
    *,
    tokenizer: Path | None = None,
    constants: Mapping[str, Tensor] | None = None,
    name: str = "imported",
    remark: str = "",
    where: str = "the checkpoint",
) -> Loaded:
    """Build the recipe's model with the original's weights; without `tokenizer`, its text tokens are numbers.

    remark: on the files, in addition to the family's remark on the config.
    Raises CheckpointError naming tensors that are missing, left over, or contradict the config.
    """
    plan = layout.plan(original.config, original.tensors.keys(), where)
    remarks = "; ".join(each for each in (plan.remark, remark) if each)
    about = f"imported from {name} ({layout.name})" + (remarks and f": {remarks}")
    recipe = load_recipe({"name": name, "about": about, "model": plan.model, "data": {}, "stages": []})
    ours, unused = plan.names.to_ours(original.tensors, where)
    ours |= constants or {}
    with torch.device("meta"):  # what does not fit is refused before anything is allocated
        check_fit(build_model(recipe.model, tokenizer), ours, plan.names, where)
    model = build_model(recipe.model, tokenizer)
    load_named(model, ours, plan.names, where)
    return Loaded(model.eval(), recipe, unused)


def load_named(
    module: nn.Module, ours: Mapping[str, Tensor], names: NameMap, where: str, prefix: str = ""
) -> None:
    """Load tensors of our names into a module; `prefix` is what the module's own names lack in front.

    Weights that the module ties may be given once. Errors name the original's tensors and both shapes.
    """
    full = check_fit(module, ours, names, where, prefix)
    check_values(module, full, names, where, prefix)
    load_into(module, {key.removeprefix(prefix): tensor for key, tensor in full.items()}, where)


def import_checkpoint(
    source: str | Path,
    destination: str | Path,
    *,
    layout: str | None = None,
    tokenizer: str | Path | None = None,
    averaged: bool = False,
) -> Path:
    """Make a Chiasm checkpoint of a public one; returns its folder.

    layout: the family's name, where the files are not enough. tokenizer: a folder, where the source has none.
    averaged: of a training checkpoint that keeps both, the moving average of the weights and not the weights.
    Raises CheckpointError.
    """
    check_flag("averaged", averaged)
    folder = Folder(Path(source), averaged=averaged)
    family = find_family(layout) if layout else recognise(folder)
    with reading_config(str(source), family):
        original = family.read(folder)
        constants = family.constants(folder)
    if averaged and not folder.tensors_read:
        raise CheckpointError(
            f"checkpoints of {family.name!r} are known without a moving average of their weights"
        )
    plan = family.plan(original.config, original.tensors.keys(), str(source))
    check_preprocessor(folder, plan.model)
    tokenizer_folder = Path(tokenizer) if tokenizer else family.tokenizer(folder)
    if tokenizer_folder is None and _reads_text(plan.model):
        raise CheckpointError(f"{source} has no tokenizer files; give a folder that has them (--tokenizer)")
    template = plan.chat_template if family.own_conversation else None
    template = template or _template(tokenizer_folder, folder.path, plan.chat_template)
    if template is None and _reads_text(plan.model) and plan.model["language"]["type"] == "causal":
        raise CheckpointError(
            f"{source} has no chat template, and none is known for this language model of {family.name!r}; put a "
            f"{JINJA} into it, or give the folder of a tokenizer that has one (--tokenizer)"
        )
    with _with_added(tokenizer_folder, plan.added_tokens, family.is_special) as texts:
        loaded = load(
            family,
            original,
            tokenizer=texts,
            constants=constants,
            name=folder.path.resolve().name,
            remark=folder.remark,
            where=str(source),
        )
    if "encoder.mean" not in constants:
        with reading_config(str(source), family):
            check_colours(folder, getattr(loaded.model, "encoder", None))
    if hasattr(loaded.model, "language"):
        text_tokenizer = loaded.model.language.tokenizer
        text_tokenizer.stops |= frozenset(stop_ids(folder.path))
        _finish_tokenizer(text_tokenizer, template, plan.added_tokens)
    origin = {
        "family": family.name,
        "averaged": averaged,
        "config": original.config,
        "borrowed": {name: digest_of_values(original.tensors[name]) for name in original.borrowed},
        "tensors": {
            name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
            for name, tensor in original.tensors.items()
            if name not in original.borrowed
        },
    }
    unused = {key: tensor for key, tensor in loaded.unused.items() if key not in original.borrowed}
    with whole_folder(Path(destination)) as draft:
        _write(loaded, draft)
        (draft / FILES).mkdir(parents=True)
        write_json(draft / ORIGIN, origin)
        write_tensors(draft / ASIDE, {key: tensor.clone() for key, tensor in unused.items()})
        for path in _side_files(folder.path):
            (draft / FILES / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder.path / path, draft / FILES / path)
        seal(draft)
    return Path(destination)


def _side_files(folder: Path) -> list[Path]:
    """The files other than weights, in subfolders too, but for hidden ones; relative to the folder."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path
        for path in paths
        if path.suffix in SIDE_SUFFIXES
        and not path.name.endswith(".index.json")
        and not any(part.startswith(".") for part in path.parts)
    ]


def build_model(spec: Mapping[str, Mapping[str, Any]], tokenizer: Path | None) -> nn.Module:
    from chiasm.model import Model
    from chiasm.model.wiring import decoder_context

    if "language" not in spec:
        slots = [slot for slot in spec if slot != "image_decoder"]
        built = {slot: parts.build(slot, spec[slot], where=f"model.{slot}") for slot in slots}
        if "image_decoder" in spec:
            context = decoder_context(built.get("image_tokenizer"))
            built["image_decoder"] = parts.build(
                "image_decoder", spec["image_decoder"], context, where="model.image_decoder"
            )
        return nn.ModuleDict(built)
    if tokenizer is None and not _reads_text(spec):
        return Model(spec)
    with tempfile.TemporaryDirectory() as draft:
        if tokenizer is None:
            config = spec["language"].get("config") or spec["language"]
            # What only reads features made elsewhere has no vocabulary.
            size = config.get("vocab_size", 8) - len(_markers(spec))
            text_tokenizer = _numbers(size)
            text_tokenizer.chat_template = PLAIN_TEMPLATE
            text_tokenizer.save_pretrained(draft)
        options = {**spec["language"], "tokenizer": str(tokenizer or draft)}
        return Model({**spec, "language": options})


def _markers(spec: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The tokens round images, which are added to a tokenizer that lacks them."""
    language = spec["language"]
    begin = language.get("read_marker")
    markers = {None if begin and is_numbered(begin) else begin, language.get("read_end")}
    markers |= set(language.get("special_tokens") or ())
    if "heads.image" in spec:
        markers |= {language.get("draw_marker", DRAW), language.get("draw_end")}
    return {marker for marker in markers if marker is not None}


def _reads_text(spec: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the model needs a tokenizer of texts: not where its prompts are numbers of classes, or images."""
    language = spec.get("language")
    return language is not None and not language.get("classes") and language.get("vocabulary") != 0


def _template(tokenizer: Path | None, folder: Path, default: Templates | None) -> Templates | None:
    """The tokenizer's chat template, else the folder's, else the family's; for images the family's in any case."""
    own = (tokenizer and folder_template(tokenizer)) or folder_template(folder)
    if isinstance(own, str) and isinstance(default, dict):
        return {**default, "default": own}
    return own or default


@contextmanager
def _with_added(
    tokenizer: Path | None, added: Mapping[str, int], is_special: Callable[[str], bool]
) -> Iterator[Path | None]:
    """A folder of the tokenizer that has the tokens too which the original adds when it runs."""
    if tokenizer is None or not added:
        yield tokenizer
        return
    inner = load_tokenizer(tokenizer)
    for special, tokens in groupby(added, key=is_special):
        inner.add_tokens(list(tokens), special_tokens=special)
    with tempfile.TemporaryDirectory() as draft:
        inner.save_pretrained(draft)
        yield Path(draft)


def _finish_tokenizer(
    tokenizer: Any, template: str | dict[str, str] | None, added: Mapping[str, int]
) -> None:
    for token, id in added.items():
        actual = tokenizer.inner.convert_tokens_to_ids(token)
        if actual != id:
            raise CheckpointError(
                f"the tokenizer has {token} at {actual}, but the model at {id}: it is not the one of the model"
            )
    if template:
        tokenizer.inner.chat_template = template


def _numbers(size: int) -> Any:
    """A tokenizer whose words are the ids 0 to size - 1."""
    from transformers import PreTrainedTokenizerFast

    from tokenizers import Tokenizer, models

    words = {f"<{i}>": i for i in range(size)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<0>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<0>", bos_token="<1>", eos_token="<2>")


def _write(loaded: Loaded, folder: Path) -> None:
    if isinstance(loaded.model, nn.ModuleDict):
        built: dict[str, Any] = dict(loaded.model.items())
        spec = {
            slot: {**options, **(built[slot].standalone() if slot in built else {})}
            for slot, options in loaded.recipe.model.items()
        }
        loaded.recipe.save(folder / "recipe.yaml")
        write_json(folder / "parts.json", {"model": as_written(spec), "tied": {}})
        write_tensors(folder / "model.safetensors", loaded.model.state_dict())
    else:
        write_model(loaded.model, loaded.recipe, folder)
