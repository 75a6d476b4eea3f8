"""Public checkpoints to Chiasm's and back: exact, and loud about every tensor that has no place."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chiasm import parts
from chiasm.errors import CheckpointError
from chiasm.interop.family import Family, Folder, Original, find_family, reading_config, recognise
from chiasm.interop.mapping import NameMap, some
from chiasm.interop.shapes.preparation import check_colours, check_preprocessor
from chiasm.language.text import DRAW, PLAIN_TEMPLATE, is_numbered
from chiasm.language.tokenizer_folder import (
    JINJA,
    Templates,
    folder_template,
    load_tokenizer,
    stop_ids,
    write_template,
)
from chiasm.model.checkpoint import write_model
from chiasm.recipe import Recipe, load_recipe
from chiasm.recipe.checkpoints import find_checkpoint, read_parts, read_weights
from chiasm.recipe.slots import as_written
from chiasm.recipe.start import targets_alone
from chiasm.storage.folders import read_json, whole_folder, write_json, write_tensors
from chiasm.storage.integrity import check_seal, seal
from chiasm.storage.weights import load_into, read_tensors

# Kept with the model, so that an export restores what was imported.
ORIGIN = Path("origin/origin.json")
ASIDE = Path("origin/unused.safetensors")
FILES = Path("origin/files")
TRAINING = ("image_tokenizer.critics.", "image_tokenizer.quantize.revival.")
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
    _check_values(module, full, names, where, prefix)
    load_into(module, {key.removeprefix(prefix): tensor for key, tensor in full.items()}, where)


def _check_values(
    module: nn.Module, full: Mapping[str, Tensor], names: NameMap, where: str, prefix: str
) -> None:
    """Raise CheckpointError naming weights that are not numbers, or numbers of another kind than a weight's."""
    for name, parameter in module.named_parameters():
        tensor = full[prefix + name]
        their_name = " + ".join(names.their_names(prefix + name)) or name
        if parameter.is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{where}: {their_name} is of type {tensor.dtype}; a weight has to be a real number"
            )
        if not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise CheckpointError(f"{where}: {their_name} has {count} values that are not finite")


def check_fit(
    module: nn.Module, ours: Mapping[str, Tensor], names: NameMap, where: str, prefix: str = ""
) -> dict[str, Tensor]:
    """The tensors that a module takes, from names and shapes alone: it may stand on the meta device.

    Raises CheckpointError naming, in the original's words, those that are missing, left over or of another shape.
    """
    expected = {prefix + key: tensor for key, tensor in module.state_dict().items()}
    full = dict(ours)
    for twins in _tied(module, prefix):
        tied_keys = [key for key in twins if key in ours]
        if tied_keys and any(not torch.equal(ours[tied_keys[0]], ours[key]) for key in tied_keys[1:]):
            raise CheckpointError(f"{where}: the config ties {some(tied_keys)}, but they differ")
        full |= {key: ours[tied_keys[0]] for key in twins if tied_keys and key not in ours}
    full |= {key: tensor for key, tensor in expected.items() if key not in full and names.is_own(key)}

    def called(key: str) -> str:
        return " + ".join(names.their_names(key)) or key

    missing = [called(key) for key in expected if key not in full]
    surplus = [called(key) for key in full if key not in expected]
    reshaped = [
        f"{called(key)} is {tuple(full[key].shape)} but the config makes it {tuple(expected[key].shape)}"
        for key in expected
        if key in full and full[key].shape != expected[key].shape
    ]
    problems = [f"{len(missing)} tensors are missing: {some(missing)}"] if missing else []
    problems += (
        [f"{len(surplus)} tensors are more than the config asks for: {some(surplus)}"] if surplus else []
    )
    problems += [f"the config contradicts {len(reshaped)} tensors: {some(reshaped)}"] if reshaped else []
    if problems:
        raise CheckpointError(f"{where}{_alone(expected, ours)}: {'; '.join(problems)}")
    return full


def _alone(own: Iterable[str], ours: Iterable[str]) -> str:
    """What to add to the folder's name in a message where it has nothing of the language model."""
    present = {key.split(".")[0] for key in ours}
    if "language" in present or not any(key.startswith("language.") for key in own):
        return ""
    contents = "a projector" if "connector" in present else " and ".join(sorted(present)) or "nothing"
    return f" holds {contents} alone, without the language model that it belongs to"


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
        "borrowed": {name: _digest(original.tensors[name]) for name in original.borrowed},
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


def export_checkpoint(folder: str | Path, destination: str | Path, layout: str | None = None) -> Path:
    """Write a Chiasm checkpoint in a family's layout; without `layout`, the one it was imported from.

    What was imported from that layout comes back bit for bit, in its types and with its other files.
    """
    checkpoint = find_checkpoint(folder)
    record = read_parts(checkpoint)
    if record["model"].get("routing", {}).get("type") == "lora":
        raise CheckpointError(
            f"{folder} has low-rank updates beside its weights; `chiasm merge {folder} OUT` adds them, and OUT "
            "can be exported"
        )
    check_seal(checkpoint)
    tensors = read_weights(checkpoint, record)
    # What only judged or made targets in training; no public layout has room for it.
    training = (*TRAINING, *(f"{slot}." for slot in targets_alone(record["model"])))
    tensors = {name: value for name, value in tensors.items() if not name.startswith(training)}
    origin = read_json(checkpoint / ORIGIN) if (checkpoint / ORIGIN).is_file() else None
    family_name = layout or (origin or {}).get("family")
    if family_name is None:
        raise CheckpointError(f"{folder} was not imported; say to which family it is to be exported (--to)")
    family = find_family(family_name)
    if origin is not None and origin["family"] == family.name:
        original = _restored(
            family, origin, tensors, read_tensors(checkpoint / ASIDE), set(record["tied"]), str(folder)
        )
        side = checkpoint / FILES
    else:
        config = family.config(record["model"])
        untied = {name: tensor for name, tensor in tensors.items() if name not in record["tied"]}
        original = Original(config, family.names(config).to_theirs(untied, str(folder)))
        side = checkpoint / "tokenizer"
    with whole_folder(Path(destination)) as draft:
        if side.is_dir():
            shutil.copytree(side, draft, dirs_exist_ok=True)
            _keep_template(checkpoint / "tokenizer", draft)
        if side != checkpoint / FILES:
            family.complete(original, record["model"], tensors, draft)
        family.write(original, draft)
    return Path(destination)


def _restored(
    layout: Family,
    origin: Mapping[str, Any],
    ours: Mapping[str, Tensor],
    unused: Mapping[str, Tensor],
    tied: set[str],
    where: str,
) -> Original:
    """The original's tensors, in its types: what was imported, with the values as they are now."""
    borrowed = origin["borrowed"]
    names = layout.names(origin["config"], [*origin["tensors"], *borrowed])
    theirs = {**unused, **names.to_theirs(ours, where)}
    redundant = {name for ours_name in tied for name in names.their_names(ours_name)}
    restored: dict[str, Tensor] = {}
    places: set[int] = set()  # in memory, of what is restored
    for name, (dtype, shape) in origin["tensors"].items():
        if name not in theirs:
            raise CheckpointError(f"{where}: nothing in the model gives {name}")
        if list(theirs[name].shape) != shape:
            raise CheckpointError(
                f"{where}: {name} is {tuple(theirs[name].shape)} now but was {tuple(shape)}"
            )
        tensor = theirs[name].to(getattr(torch, dtype))
        # Tied here, but the original may have it twice.
        restored[name] = tensor.clone() if tensor.data_ptr() in places else tensor
        places.add(tensor.data_ptr())
    if any(name in theirs and _digest(theirs[name]) != digest for name, digest in borrowed.items()):
        restored |= {name: theirs[name] for name in borrowed if name in theirs}  # it was trained since
    surplus = [n for n in theirs if n not in restored and n not in borrowed and n not in redundant]
    if surplus:
        raise CheckpointError(
            f"{where} has {len(surplus)} tensors that the original had not: {some(surplus)}"
        )
    return Original(origin["config"], restored)


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


def _keep_template(tokenizer: Path, folder: Path) -> None:
    """Give an exported folder the chat template that was trained with, where its own is another."""
    templates, theirs = (each and _default(each) for each in map(folder_template, (tokenizer, folder)))
    if templates is not None and templates != theirs:
        write_template(folder_template(tokenizer) or templates, folder)


def _default(templates: Templates) -> str | None:
    return templates if isinstance(templates, str) else templates.get("default")


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


def _tied(module: nn.Module, prefix: str) -> list[list[str]]:
    """Names of one and the same parameter."""
    groups: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(prefix + name)
    return [names for names in groups.values() if len(names) > 1]


def _digest(tensor: Tensor) -> str:
    """A hash of the values, whatever the type they are stored in."""
    plain = tensor.detach().float().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(plain.numpy().tobytes(), digest_size=16).hexdigest()
