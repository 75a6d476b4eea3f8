"""The texts of a recipe's data, for a text tokenizer that is trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

from chiasm import parts

if TYPE_CHECKING:
    from chiasm.data import Source
    from chiasm.recipe import Recipe

MOST_GROUPS = 4_000  # of each source: enough for a small vocabulary, seconds to read


def corpus(recipe: Recipe) -> Corpus:
    """All texts of the first groups of every source that a stage trains on."""
    names = sorted({name for stage in recipe.stages for name in stage.data})
    return Corpus([parts.build("data", recipe.data[name], where=f"data.{name}") for name in names])


class Corpus:
    """The texts of the first groups of sources, as often as they are iterated over."""

    def __init__(self, sources: list[Source]):
        self.sources = sources

    def __iter__(self) -> Iterator[str]:
        for source in self.sources:
            for index in range(min(len(source), MOST_GROUPS)):
                for sample in source[index]:
                    for message in sample.messages:
                        yield from (item for item in message.content if isinstance(item, str))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what determines the texts."""
        sources = [(type(source).__qualname__, source.fingerprint) for source in self.sources]
        record = repr((MOST_GROUPS, sources))
        return blake2b(record.encode(), digest_size=16).hexdigest()
