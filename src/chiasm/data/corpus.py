"""The texts of a recipe's data, for a text tokenizer that is trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chiasm import parts

if TYPE_CHECKING:
    from chiasm.recipe import Recipe

MOST_GROUPS = 4_000  # of each source: enough for a small vocabulary, seconds to read


def corpus(recipe: Recipe) -> Iterator[str]:
    """All texts of the first groups of every source that a stage trains on."""
    for name in sorted({name for stage in recipe.stages for name in stage.data}):
        source = parts.build("data", recipe.data[name], where=f"data.{name}")
        for index in range(min(len(source), MOST_GROUPS)):
            for sample in source[index]:
                for message in sample.messages:
                    yield from (item for item in message.content if isinstance(item, str))
