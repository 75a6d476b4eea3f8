"""What replays and imports of models that only draw share: prompts, teacher-forced codes, a stand-in tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.distribution.devices import fitting
from chiasm.heads import Ask, Span
from chiasm.inference.drawing import Positions
from chiasm.inference.session import Session
from chiasm.interop.mapping import NameMap, Rule, Split, Unused
from chiasm.model import Model
from chiasm.sequence import Document, Kind


def prompt(ids: Sequence[int]) -> Document:
    """A document of these ids, after which an image is written."""
    document = Document("a prompt of the case")
    document.add_text(ids, learn=False)
    return document


class DrawStep:
    """Reads what a drawing asks for, in all rows of a session: for cases that look at each step of a head."""

    def __init__(self, session: Session):
        assert session.model.image_head is not None
        self.session, self.head = session, session.model.image_head
        self.start = fitting(session.last, self.head)
        self.positions = Positions(self.head)

    def __call__(self, ask: Ask) -> Float[Tensor, "r s d"]:
        extension = self.positions.extension(ask, self.session.last.dtype)
        return fitting(self.session.extend([(range(len(self.session)), extension)])[0], self.head)


def forced(model: Model, prompts: Sequence[Document], span: Span) -> Float[Tensor, "n m d"]:
    """The hidden states that predict known codes, an image after each prompt."""
    assert model.image_head is not None
    session, layout = Session(model, prompts), model.image_head.layout()
    first = session.last[:, None]
    later = session.step(span.embeddings, Kind.WRITTEN, layout.opens, layout.exposed, layout.coordinates)
    return torch.cat([first, later], 1)[:, [row + 1 for row in layout.rows]]


def stand_in(grid: int, codebook_size: int) -> dict[str, Any]:
    """An image tokenizer for a case that has none: only how many codes there are counts."""
    return {
        "type": "vq",
        "size": 16 * grid,
        "downsample": 16,
        "codebook_size": codebook_size,
        "code_width": 4,
        "width": 8,
        "depth": 1,
    }


def behind(names: NameMap, prefix: str) -> list[Rule | Unused]:
    """The entries of another layout whose tensors begin with `prefix` here."""
    unused: list[Rule | Unused] = [Unused(prefix + each.text) for each in names.unused]
    return unused + [Rule(_prefixed(rule.theirs, prefix), rule.ours, rule.transform) for rule in names.rules]


def llama_rules(
    theirs: str, ours: str, *, width: int, heads: int, key_value_heads: int | None = None
) -> list[Rule]:
    """One stack of LlamaGen's layers; queries, keys and values are one matrix there."""
    groups = width // heads * (key_value_heads or heads)
    fused = tuple(f"{ours}{{n}}.{part}.weight" for part in ("query", "key", "value"))
    pairs: Mapping[str, str] = {
        "attention.wo.weight": "out.weight",
        "attention_norm.weight": "attention_norm.weight",
        "ffn_norm.weight": "network_norm.weight",
        "feed_forward.w1.weight": "gate.weight",
        "feed_forward.w3.weight": "up.weight",
        "feed_forward.w2.weight": "down.weight",
    }
    return [
        Rule(f"{theirs}{{n}}.attention.wqkv.weight", fused, Split((width, groups, groups))),
        *(Rule(f"{theirs}{{n}}.{a}", f"{ours}{{n}}.{b}") for a, b in pairs.items()),
    ]


def _prefixed(patterns: str | tuple[str, ...], prefix: str) -> str | tuple[str, ...]:
    return prefix + patterns if isinstance(patterns, str) else tuple(prefix + each for each in patterns)
