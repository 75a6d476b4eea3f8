"""Making data in steps that survive a stop: what is done stands in a journal, and the same command goes on."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chiasm.curation.making import TOGETHER, DraftAnswer, Making, Material
from chiasm.curation.speakers import Speaker
from chiasm.errors import ChiasmError


def journaled(
    path: Path, speaker: Speaker, materials: Sequence[Material], making: Making, answers: Mapping[str, Any]
) -> Iterator[DraftAnswer]:
    """All drafts, those of an earlier run from its journal.

    answers: plain data that decides what the speaker answers: which model it is, the length of its answers, a seed.
    Raises ChiasmError for a journal of other options, another speaker or other images.
    """
    images = [(each.reference, each.text, each.questions) for each in materials]
    settings = json.loads(json.dumps({**asdict(making), "answers": answers, "images": images}))
    done = _read(path, settings)
    pending = [number for number in range(len(materials)) if number not in done]
    with path.open("a", encoding="utf-8") as file:
        if not file.tell():
            file.write(json.dumps({"settings": settings}) + "\n")
        for start in range(0, len(pending), TOGETHER):
            group = pending[start : start + TOGETHER]
            drafts: dict[str, list[DraftAnswer]] = defaultdict(list)
            for draft in making.drafts(speaker, [materials[number] for number in group]):
                drafts[draft.material.name].append(draft)
            for number in group:
                done[number] = [_as_data(draft) for draft in drafts[materials[number].name]]
                file.write(json.dumps({"number": number, "drafts": done[number]}, ensure_ascii=False) + "\n")
            file.flush()
    for number, material in enumerate(materials):
        yield from (DraftAnswer(material, **entry) for entry in done[number])


def _as_data(draft: DraftAnswer) -> dict[str, Any]:
    return {key: value for key, value in vars(draft).items() if key != "material"}


def _read(path: Path, settings: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """What is done, by the images' numbers. A last line that was cut off goes."""
    if not path.exists():
        return {}
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    try:
        entries = [json.loads(line) for line in whole.splitlines()]
        begun = entries[0]["settings"] if entries else settings
        done = {entry["number"]: entry["drafts"] for entry in entries[1:]}
    except (ValueError, LookupError, TypeError):
        raise ChiasmError(f"{path} is no journal of `chiasm data make`; remove it to begin anew") from None
    if begun != settings:
        raise ChiasmError(
            f"{path} was begun with other options, another model or other images; give the same ones, or remove it"
        )
    return done
