"""`chiasm data select`: sets and samples in order of what they do for the targets, and files of what stays."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from chiasm.curation.selection import Score, Selection, select
from chiasm.curation.trials import Trial
from chiasm.data import counts
from chiasm.data.chat import Chat
from chiasm.errors import ChiasmError
from chiasm.model.checkpoint import load_model
from chiasm.storage import safe_yaml
from chiasm.storage.folders import whole_folder, write_json
from chiasm.terminal.console import console, say


@dataclass(frozen=True)
class SelectionFiles:
    """How files are read, and which samples stay: the best `share` by a score, of the sets that are retained."""

    images: Path | None = None
    outside: bool = False
    ignore: tuple[str, ...] = ()
    skip: bool = False
    by: Score = "gradient"
    share: float = 1.0

    def read(self, files: Sequence[Path]) -> dict[str, Chat]:
        """A source for each file, called as the file without its ending."""
        sources: dict[str, Chat] = {}
        for file in files:
            if file.stem in sources:
                raise ChiasmError(
                    f"two files are called {file.stem}; sets are told apart by their files' names"
                )
            sources[file.stem] = Chat(
                path=str(file),
                images=None if self.images is None else str(self.images),
                outside=self.outside,
                ignore=self.ignore,
                broken="skip" if self.skip else "error",
            )
        return sources


def run(
    folder: Path,
    files: Sequence[Path],
    *,
    targets: Sequence[Path],
    base: Sequence[Path],
    out: Path,
    trial: Trial | None,
    seeds: int,
    reading: SelectionFiles,
    device: str | None,
    dtype: str | None,
) -> None:
    if out.exists():
        raise ChiasmError(f"{out} is there already; name another folder, or remove it")
    candidates = reading.read(files)
    selection = select(
        load_model(folder, device, dtype),
        candidates,
        reading.read(targets),
        base=reading.read(base),
        trial=trial,
        seeds=range(seeds),
        by=reading.by,
        say=say,
    )
    with whole_folder(out) as draft:
        _write(draft, out, selection, candidates, reading)
    for name, skipped in selection.skipped.items():
        say(f"{name}: {counts(skipped)}")
    console().print(_table(selection))
    retained = selection.retained(reading.share)
    say(
        f"{len(retained):,} of {len(selection.samples):,} samples stay, named for a recipe in {out / 'data.yaml'}"
    )


def _write(
    draft: Path, out: Path, selection: Selection, candidates: Mapping[str, Chat], reading: SelectionFiles
) -> None:
    """The report, all samples in order, and the records of those that stay, as data of a recipe."""
    write_json(draft / "report.json", selection.as_data())
    with (draft / "samples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(vars(each), ensure_ascii=False) + "\n" for each in selection.samples)
    groups: dict[str, set[int]] = defaultdict(set)
    for each in selection.retained(reading.share):
        groups[each.source].add(each.group)
    data = {}
    (draft / "retained").mkdir()
    for name, chosen in groups.items():
        source = candidates[name]
        with (draft / "retained" / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(source.record(i), ensure_ascii=False) + "\n" for i in sorted(chosen))
        images = (reading.images or source.path.parent).resolve()
        data[name] = {
            "type": "chat",
            "path": str((out / "retained" / f"{name}.jsonl").resolve()),
            "images": str(images),
            **({"outside": True} if reading.outside else {}),
            **({"ignore": list(reading.ignore)} if reading.ignore else {}),
        }
    (draft / "data.yaml").write_text(safe_yaml.write({"data": data}))


def _table(selection: Selection) -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("set", "samples", "adding it", "targets' loss", "loss", "gradient", "diversity"):
        table.add_column(name, justify="left" if name in ("set", "adding it") else "right")
    for each in selection.sets:
        change = ""
        if each.change is not None and each.interval is not None:
            low, high = each.interval
            change = f"{each.change:+.3f} [{low:+.3f}, {high:+.3f}]"
        scores = (f"{score:.3f}" for score in (each.loss, each.gradient, each.diversity))
        table.add_row(each.source, f"{each.samples:,}", each.verdict, change, *scores)
    return table
