"""A family: one public checkpoint layout, recognised by its files and read in both directions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from chiasm.errors import CheckpointError, RecipeError, excerpt, reason
from chiasm.interop.config import Config, plain, refuse_unread
from chiasm.interop.mapping import NameMap
from chiasm.parts.registry import Registry
from chiasm.storage import safe_json, safe_yaml
from chiasm.storage.weights import read_choice

_registry: Registry[type[Family]] = Registry("checkpoint family", "chiasm.interop.families", CheckpointError)

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json"),
    "qwen.tiktoken",
)
# What reading a config of another form ends in: values of another type, and texts that are no literals.
WRONG_FORM = (
    *(TypeError, AttributeError, ValueError, ArithmeticError, LookupError, SyntaxError),
    *(RecursionError, MemoryError),
)
MOST_BYTES = 1 << 26  # of a JSON file, of which those of tokenizers are the largest


class Folder:
    """The files of a checkpoint; they are read when they are asked for, and once.

    averaged: of a training checkpoint, the moving average of its weights is read.
    unread: why a YAML file was not read, by its path in the folder.
    remark: which weights were read, where the folder has them twice.
    tensors_read: whether any tensors were read by `tensors` or `read`, which go by `averaged`.
    """

    def __init__(self, path: Path, *, averaged: bool = False):
        self.path, self.averaged = path, averaged
        self.unread: dict[str, str] = {}
        self.remark, self.tensors_read = "", False

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, or {} where there is none."""
        return self.json("config.json")

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file, or {} where there is no such file.

        Raises CheckpointError for a file that holds something else, or an object with a key twice.
        """
        path = self.path / name
        if not path.is_file():
            return {}
        try:
            if path.stat().st_size > MOST_BYTES:
                raise CheckpointError(f"{path} is larger than {MOST_BYTES:,} bytes, which no config is")
            content = safe_json.parse(path.read_text(encoding="utf-8"), safe_json.each_key_once)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds no object ({{...}}) but {excerpt(content)}")
        return content

    @cached_property
    def yamls(self) -> dict[str, Any]:
        """The content of every YAML file that can be read, by its path in the folder; `unread` has the others."""
        contents = {}
        for path in sorted(self.path.rglob("*")):
            if path.suffix in (".yaml", ".yml") and path.is_file():
                name = str(path.relative_to(self.path))
                try:
                    contents[name] = safe_yaml.read_foreign(path)
                except RecipeError as error:
                    self.unread[name] = str(error)  # not a file that describes a layout
        return contents

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by the names in the files; raises CheckpointError naming a broken or missing file."""
        return self.read(self.path)

    def read(self, path: Path) -> dict[str, Tensor]:
        """The tensors of one checkpoint of the folder; where it has them twice, `remark` says which these are."""
        tensors, choice = read_choice(path, averaged=self.averaged)
        self.tensors_read = True
        if choice:
            self.remark = (
                "the moving average of its weights"
                if self.averaged
                else "the raw weights, as they were trained; --averaged takes their moving average"
            )
        return tensors

    @property
    def tokenizer(self) -> Path | None:
        """Where the text tokenizer's files are."""
        return self.path if any((self.path / name).is_file() for name in TOKENIZER_FILES) else None


@dataclass
class Original:
    """A checkpoint in the names of its own project.

    config: all that decides the structure, in the family's own form.
    tensors: by the original's names.
    borrowed: names of tensors that came from elsewhere (a vision tower that the checkpoint only refers to) and
        are not written on export.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    borrowed: Collection[str] = ()

    def without(self, key: str) -> Original:
        """As it is written: a key of the config that was added on reading is left out."""
        config = {name: value for name, value in self.config.items() if name != key}
        return Original(config, self.tensors, self.borrowed)


@dataclass(frozen=True)
class Plan:
    """All that a family decides by an original's config: see the methods of `Family`."""

    model: dict[str, dict[str, Any]]
    names: NameMap
    chat_template: str | dict[str, str] | None
    added_tokens: dict[str, int]
    remark: str


class Family:
    """Interface. Subclass with `name=...` to add one, in a file of chiasm.interop.families or of one's own.

    looks_for: what `recognises` goes by, in words, for the error when no family knows a folder.
    without_effect: places in the config that do not reach the numbers, each with the reason; one stands for all
        below it, and `*.key` for that key at any depth. What no method reads and this does not list is refused.
    own_conversation: the original's code never asks the tokenizer for a chat template, even where it has one (of
        the language model that was taken); `chat_template` decides.
    """

    name: ClassVar[str] = ""
    looks_for: ClassVar[str] = ""
    without_effect: ClassVar[Mapping[str, str]] = {}
    own_conversation: ClassVar[bool] = False

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if name is not None:
            _registry.add(name, cls)
            cls.name = name

    def recognises(self, folder: Folder) -> bool:
        """Whether the folder is of this layout, by its small files (weights only where there is nothing else)."""
        raise NotImplementedError

    def read(self, folder: Folder) -> Original:
        return Original(folder.config, folder.tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        """The `model` section of the recipe, with configs and no checkpoints.

        keys: the original's tensor names, for layouts whose config does not tell all.
        Raises CheckpointError for an option that no part has.
        """
        raise NotImplementedError

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        """The rules between the original's tensors and ours; `keys` are the original's tensor names."""
        raise NotImplementedError

    def config(self, model: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The original's config for a model that was made here: `model` reversed. Raises CheckpointError."""
        raise CheckpointError(f"only models that were imported from {self.name!r} can be exported to it")

    def tokenizer(self, folder: Folder) -> Path | None:
        """Where the text tokenizer's files are."""
        return folder.tokenizer

    def plan(self, config: Mapping[str, Any], keys: Collection[str], where: str) -> Plan:
        """What the config decides; raises CheckpointError, also for a key that is not accounted for."""
        with reading_config(where, self):
            accounted = Config(config)
        plan = self._plan(accounted, keys, where)
        refuse_unread(accounted, self.without_effect, where, repr(self.name))
        return plan

    def _plan(self, config: Mapping[str, Any], keys: Collection[str], where: str) -> Plan:
        with reading_config(where, self):
            return Plan(
                plain(self.model(config, keys)),
                self.names(config, keys),
                self.chat_template(config),
                self.added_tokens(config),
                self.remark(config, keys),
            )

    def remark(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> str:
        """What is to be said of an import beyond its name: which weights were chosen, where there are several."""
        return ""

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        """Values of `Own` tensors that other files of the folder decide (a preprocessor's mean and deviation)."""
        return {}

    def chat_template(self, config: Mapping[str, Any]) -> str | dict[str, str] | None:
        """The conversation's form, where the tokenizer's own cannot be used; None keeps the tokenizer's.

        Several by name: the one for pictures that are drawn is called "draw".
        """
        return None

    def added_tokens(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Tokens with their ids that the original adds to its tokenizer when it runs, in the order of the ids."""
        return {}

    def is_special(self, token: str) -> bool:
        """Whether an added token is a mark, which no text holds and no answer shows; else it is a word."""
        return True

    def complete(
        self,
        original: Original,
        model: Mapping[str, Mapping[str, Any]],
        ours: Mapping[str, Tensor],
        folder: Path,
    ) -> None:
        """Add what their code needs beside a model that was made here: marker tokens, how images are prepared.

        folder: already has the tokenizer's files. model, ours: the parts, and the tensors by our names.
        """

    def write(self, original: Original, folder: Path) -> None:
        """Write the files; the default is config.json and model.safetensors."""
        from chiasm.storage.folders import write_json, write_tensors

        write_json(folder / "config.json", original.config)
        write_tensors(folder / "model.safetensors", original.tensors)


@contextmanager
def reading_config(where: str, layout: Family) -> Iterator[None]:
    """Within this context a config without a key, or of another form than the family's, is a CheckpointError."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(
            f"{where}: the config lacks {error.args[0]!r}, which {layout.name!r} needs"
        ) from error
    except WRONG_FORM as error:
        raise CheckpointError(
            f"{where}: the config is not as {layout.name!r} has it: {reason(error)}"
        ) from error


def all_families() -> dict[str, Family]:
    """All families by name."""
    return {name: family() for name, family in _registry.items().items()}


def find_family(name: str) -> Family:
    """The family called `name`; raises CheckpointError with the nearest name."""
    return _registry.lookup(name)()


def recognise(folder: Folder) -> Family:
    """The family of a folder; raises CheckpointError that says what was looked for."""
    if not folder.path.is_dir():
        raise CheckpointError(f"there is no folder {folder.path}")
    matching = [each for each in all_families().values() if _is_of(each, folder)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise CheckpointError(
            f"{folder.path} looks like {', '.join(f.name for f in matching)}; name one with --from"
        )
    from chiasm.interop.unknown import described

    raise CheckpointError(f"{folder.path}{described(folder)}")


def _is_of(layout: Family, folder: Folder) -> bool:
    try:
        return layout.recognises(folder)
    except (TypeError, AttributeError):  # a config of another form altogether
        return False
