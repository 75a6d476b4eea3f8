"""Tables of OmniCorpus's text filters (arXiv 2406.08418)."""

from __future__ import annotations

from typing import Any

from chiasm.data.filtering.document import dropped_by
from chiasm.data.filtering.paragraphs import RULES
from chiasm.data.filtering.tree import parse, write
from chiasm.errors import CheckpointError, nearest
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays_table


@replays_table("omnicorpus", "text filter table")
def replay_filters(case: Case) -> list[dict[str, Any]]:
    """Which rules change a document, what they leave, and whether it is dropped."""
    steps = case.record.get("steps", list(RULES))
    for name in steps:
        if name not in RULES:
            raise CheckpointError(f"{case.name} has the filter {name!r}{nearest(name, RULES)}")
    return [_row(row["xml"], steps) for row in case.record["rows"]]


def _row(xml: str, steps: list[str]) -> dict[str, Any]:
    root, changed = parse(xml), []
    for name in steps:
        before = write(root)
        root = RULES[name](root)
        if write(root) != before:
            changed.append(name)
    text = write(root)
    # The released driver counts images only where it writes XML, so that a document never has any.
    return {
        "xml": xml,
        "changed_by": changed,
        "after_paragraph_filters": text,
        "final": None if dropped_by(root, images=0) else text,
    }
