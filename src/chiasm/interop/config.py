"""A config that keeps account of its keys: each is read, known to be without effect, or refused by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from chiasm.errors import CheckpointError
from chiasm.storage.transformers_config import BOOKKEEPING

SHOWN = 8  # keys in an error before it only counts
REQUIRED: Any = object()

# What transformers writes into any config.json, and what does not reach the numbers of a forward pass.
TRANSFORMERS = {
    "_commit_hash": "where the config came from",
    "_name_or_path": "where the config came from",
    "architectures": "the family is recognised by model_type",
    "auto_map": "code, which is never run",
    "dtype": "how the weights are stored, which the tensors say",
    "initializer_range": "the weights are loaded",
    "initializer_factor": "the weights are loaded",
    "model_type": "the family is recognised by it",
    "torch_dtype": "how the weights are stored, which the tensors say",
    "transformers_version": "where the config came from",
    "use_cache": "speed only",
}
# The same at any depth of a config.
EVERYWHERE = {f"*.{key}": "bookkeeping of transformers, or how texts are drawn" for key in BOOKKEEPING}
EVERYWHERE |= {f"*.{key}": reason for key, reason in TRANSFORMERS.items()}


class Config(Mapping[str, Any]):
    """Reads like the dict of an original's configuration and remembers which keys were read.

    Mappings inside come out as `Config` too, also those in lists, and are accounted for key by key. `in`, `len` and
    iterating over keys read nothing; `{**config}` reads this level; `plain(config)` reads everything below and
    gives dicts, for a part that takes a config whole.

    place: where it stands in the original's config, for messages.
    """

    def __init__(self, values: Mapping[str, Any], place: str = ""):
        self.place = place
        self._raw = {str(key): value for key, value in plain(values).items()}
        self._wrapped = {key: _wrapped(value, place + key) for key, value in self._raw.items()}
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        if key not in self._raw:
            raise KeyError(self.place + key)
        self._read.add(key)
        return self._wrapped[key]

    def __contains__(self, key: object) -> bool:
        return key in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __repr__(self) -> str:
        return repr(self._raw)

    def only(self, key: str, *accepted: Any, default: Any = REQUIRED) -> Any:
        """The value of an option of which Chiasm knows these values alone; raises CheckpointError for another.

        default: what the original takes where the key is absent; the first of `accepted` unless given.
        """
        value = self.get(key, accepted[0] if default is REQUIRED else default)
        return known_value(self.place + key, value, *accepted)

    def unread(self) -> dict[str, Any]:
        """What nobody has read, by dotted place; a mapping that was opened appears by its own keys."""
        unread: dict[str, Any] = {}
        for key, value in self._wrapped.items():
            if key not in self._read:
                unread[self.place + key] = self._raw[key]
            for inner in _configs(value) if key in self._read else ():
                unread |= inner.unread()
        return unread


def reader(config: Mapping[str, Any]) -> Config:
    """A family's methods may be called with a dict too; the account is then nobody's."""
    return config if isinstance(config, Config) else Config(config)


def plain(value: Any) -> Any:
    """Dicts and lists of a `Config`, or of anything that holds one; all below it counts as read."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def known_value(place: str, value: Any, *accepted: Any) -> Any:
    """`value`, or a CheckpointError that says which values are known of the option at `place`."""
    if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in accepted):
        raise CheckpointError(
            f"{place} is {value!r}, but is known as {' or '.join(map(repr, accepted))} only"
        )
    return value


def refuse_unread(config: Config, without_effect: Collection[str], where: str, reader: str) -> None:
    """Raise CheckpointError naming the keys that were not read, but for those that are `without_effect`.

    A key that holds null says nothing.
    without_effect: dotted places; one stands for all below it, and `*.key` for that key at any depth.
    """
    remaining = {
        place: value
        for place, value in config.unread().items()
        if value is not None and not _listed(place, without_effect)
    }
    if remaining:
        named = ", ".join(f"{place} = {_short(value)}" for place, value in list(remaining.items())[:SHOWN])
        rest = f", and {len(remaining) - SHOWN} more" if len(remaining) > SHOWN else ""
        raise CheckpointError(
            f"{where}: {reader} neither uses nor knows to be without effect: {named}{rest}; without "
            f"{'it' if len(remaining) == 1 else 'them'} the numbers might be others than the original's"
        )


def _listed(place: str, without_effect: Collection[str]) -> bool:
    parts = place.split(".")
    above = {".".join(parts[: i + 1]) for i in range(len(parts))}
    return bool((above | {f"*.{part}" for part in parts}) & set(without_effect))


def _wrapped(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        return Config(value, place + ".")
    if type(value) in (list, tuple):
        return [_wrapped(item, f"{place}.{i}") for i, item in enumerate(value)]
    return value


def _configs(value: Any) -> Iterator[Config]:
    if isinstance(value, Config):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _configs(item)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
