"""docs/learn.md: what the tiny recipes were measured to have learnt, in tables, pictures and a few sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learn_sheet import write_sheet

Record = Mapping[str, Any]
SEEING, DRAWING = "questions", "generation"

INTRODUCTION = """# What the recipes learn on a laptop

```bash
make learn
```

trains the `tiny` overlay of every recipe, the system's structure in a small size, on the
[built-in world](world.md) and measures it. This page is what came out. A stopped `make learn` goes on where it
was, and a recipe that has not changed is not trained again; `python benchmarks/learn.py llava fuyu` takes single
recipes.

These are models of a few million parameters after minutes of training. The page shows that each structure
**learns**, under equal controls. It does not rank the systems: their towers, data and sizes differ.
"""

EXPLAINED = """Exact match of greedy answers on held-out scenes: pairs of emoji that never meet in training. In
brackets the 95 % interval ([Clopper and Pearson's](evaluation.md#intervals) for the effective number of questions).
*Blind*: the same model and question without the picture. *Shuffled*: with another question's picture. *Learnt*:
parameters that some stage trains. *FLOPs*: of reading one question with its picture. *CPU min*: processor time of
the training on one thread; features of a frozen encoder are in it where no recipe before had left them in the
cache.
"""

EXPLAINED_DRAWING = """Pictures drawn from held-out captions and read by the exact checker. *Place*: share of the
asked things in the cell they were asked for; *object*: anywhere in the picture; *count*: pictures with as many
things as asked; *all*: pictures right in every cell. *Ceiling*: *place* of the true pictures after the image
tokenizer alone. *Diversity*: how much pictures of one prompt differ, relative to those of different prompts.
*Passes*: how often the language model runs for one picture, one behind the other, the reading of the prompt
included. *Questions*: the score in the table above, of those that also see.
"""


EXPLAINED_TOKENIZERS = """
Held-out clips of moving scenes, coded and decoded. *Mean picture*: the PSNR of always answering with the mean of
all frames, which a tokenizer must exceed to have learnt anything. *Use*: share of the codes that occur.
"""


def write_page(records: Sequence[Record], path: Path) -> None:
    """Write the page, and its pictures into a folder beside it that has its name."""
    done = [record for record in records if "failed" not in record]
    failed = [record for record in records if "failed" in record]
    seeing = [record for record in done if SEEING in _tasks(record)]
    drawing = [record for record in done if DRAWING in _tasks(record)]
    parts = [INTRODUCTION, _origin(done), reading(seeing, drawing, failed)]
    if seeing:
        parts += ["## Answering questions about pictures", EXPLAINED, _seeing(seeing)]
    if drawing:
        parts += ["## Drawing", EXPLAINED_DRAWING, _drawing(drawing), *_sheets(drawing, path)]
    if alone := [record for record in done if "tokenizer" in record["figures"]]:
        parts += ["## Image tokenizers alone", EXPLAINED_TOKENIZERS, _tokenizers(alone)]
    if others := _others(done):
        parts += ["## Other measures", others]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(part.strip() for part in parts if part) + "\n", encoding="utf-8")


def looks(record: Record) -> bool:
    """Whether a model beats its blind control by more than the intervals of both."""
    task = _tasks(record)[SEEING]
    return task["ci"][0] > task["blind_ci"][1]


def reading(seeing: Sequence[Record], drawing: Sequence[Record], failed: Sequence[Record]) -> str:
    """What may be said of the figures, the worst first."""
    lines = ["## In short", ""]
    lines += [f"- **{record['name']} failed**: {record['failed']}" for record in failed]
    guessing = [record for record in seeing if not looks(record)]
    if guessing:
        lines.append(
            f"- **Not shown to look at the picture**: {_names(guessing)}. The score does not stand above that of "
            "the same model without the picture by more than the intervals."
        )
    if seeing:
        shown = [record for record in seeing if looks(record)]
        lines.append(
            f"- {len(shown)} of {len(seeing)} recipes that answer questions beat their blind control by more than "
            f"the intervals{_range(shown, SEEING)}."
        )
        lines.append(f"- {_weakest(seeing)}")
    if drawing:
        lines.append(
            f"- Recipes that draw: {len(drawing)}{_range(drawing, DRAWING)} for *place*. {_right_in_all(drawing)}"
        )
    return "\n".join(lines)


def _names(records: Sequence[Record]) -> str:
    return ", ".join(f"`{record['name']}`" for record in records)


def _range(records: Sequence[Record], task: str) -> str:
    if not records:
        return ""
    ordered = sorted(records, key=lambda record: _tasks(record)[task]["score"])
    low, high = ordered[0], ordered[-1]
    ends = [f"{_percent(_tasks(each)[task]['score'])} (`{each['name']}`)" for each in (low, high)]
    return f", from {ends[0]} to {ends[1]}" if low is not high else f": {ends[0]}"


def _weakest(seeing: Sequence[Record]) -> str:
    """The type of question that is answered worst, on average over the recipes that are asked it."""
    scores: dict[str, list[tuple[float, float]]] = {}
    for record in seeing:
        for name, told in _tasks(record)[SEEING]["by_type"].items():
            scores.setdefault(name, []).append((told["score"], told["blind"]))
    means = {name: [sum(each) / len(told) for each in zip(*told)] for name, told in scores.items()}
    worst = min(means, key=lambda name: means[name][0] - means[name][1])
    score, blind = means[worst]
    return (
        f"The type that gains least from the picture is *{worst}*: {_percent(score)} on average, {_percent(blind)} "
        "without it."
    )


def _right_in_all(drawing: Sequence[Record]) -> str:
    none = [record for record in drawing if _tasks(record)[DRAWING]["all"] == 0]
    return f"Without a single picture right in every cell: {_names(none)}." if none else ""


def _origin(done: Sequence[Record]) -> str:
    """Where and when the figures were measured; machines and commits are told as often as they differ."""
    if not done:
        return ""
    machines = {
        f"{r['machine']['cpu']}, {r['machine']['cores']} cores, {r['machine']['device']}" for r in done
    }
    commits = sorted({str(record["commit"])[:7] for record in done if record["commit"]})
    days = sorted(record["finished"][:10] for record in done)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return (
        f"Measured {when} on {'; '.join(sorted(machines))}; one thread a recipe; commit {', '.join(commits)}."
    )


def _seeing(records: Sequence[Record]) -> str:
    types = sorted({name for record in records for name in _tasks(record)[SEEING]["by_type"]})
    head = [
        "recipe",
        "score",
        "blind",
        "shuffled",
        *types,
        "parameters",
        "learnt",
        "image tokens",
        "FLOPs",
        "CPU min",
    ]
    rows = []
    for record in sorted(records, key=lambda record: -_tasks(record)[SEEING]["score"]):
        task, cost = _tasks(record)[SEEING], record["figures"]["cost"]
        by_type = [
            _percent(task["by_type"][name]["score"]) if name in task["by_type"] else "" for name in types
        ]
        rows.append([
            _link(record), _with_interval(task, "score", "ci"), _with_interval(task, "blind", "blind_ci"),
            _percent(task["shuffled"]), *by_type, _large(cost["parameters"]["total"]),
            _large(cost["parameters"]["trainable"]), str(cost["image_tokens"].get("read", "")),
            _large(cost["flops"].get("question")), _minutes(record),
        ])  # fmt: skip
    return _table(head, rows)


def _drawing(records: Sequence[Record]) -> str:
    head = ["recipe", "place", "object", "count", "all", "ceiling", "diversity", "codes", "passes", "s a picture",
            "parameters", "questions", "CPU min"]  # fmt: skip
    rows = []
    for record in sorted(records, key=lambda record: -_tasks(record)[DRAWING]["place"]):
        task, cost = _tasks(record)[DRAWING], record["figures"]["cost"]
        seconds = cost["seconds"].get("picture")
        asked = _tasks(record).get(SEEING)
        rows.append([
            _link(record), _with_interval(task, "score", "ci"),
            *(_percent(task[measure]) for measure in ("object", "count", "all")),
            _percent(task["reconstruction"]["place"]), f"{task['diversity']:.2f}",
            str(cost["image_tokens"].get("written", "")), str(cost.get("passes", {}).get("picture", "")),
            "" if seconds is None else f"{seconds:.2f}", _large(cost["parameters"]["total"]),
            _percent(asked["score"]) if asked else "", _minutes(record),
        ])  # fmt: skip
    return _table(head, rows)


def _sheets(records: Sequence[Record], path: Path) -> list[str]:
    """A sheet of drawn pictures for each recipe, as they came out, and what they were asked to be."""
    told = []
    for record in records:
        sheet = path.parent / path.stem / f"{record['name']}.webp"
        prompts = write_sheet(Path(record["folder"]), sheet)
        if not prompts:
            continue
        told.append(f"### {record['name']}")
        told.append(f"![The first {len(prompts)} pictures of {record['name']}]({path.stem}/{sheet.name})")
        listed = "\n".join(f"{number}. {prompt}" for number, prompt in enumerate(prompts, 1))
        told.append(f"<details><summary>What was asked, row by row</summary>\n\n{listed}\n\n</details>")
    return told


def _tokenizers(records: Sequence[Record]) -> str:
    """Image tokenizers without a language model: how well, and in how many bits."""
    head = ["recipe", "PSNR dB", "mean picture", "bits a clip", "frames", "use", "CPU min"]
    rows = []
    for record in records:
        told = record["figures"]["tokenizer"]
        half = (told["psnr_ci"][1] - told["psnr_ci"][0]) / 2
        quality = [f"{told['psnr']:.2f} ± {half:.2f}", f"{told['mean_psnr']:.2f}"]
        rate = [f"{told['bits']:,.0f}", str(told["frames"]), _percent(told["use"])]
        rows.append([_link(record), *quality, *rate, _minutes(record)])
    return _table(head, rows)


def _others(records: Sequence[Record]) -> str:
    """Every task that has no table of its own."""
    rows = [
        [_link(record), name.replace("_", " "), _with_interval(task, "score", "ci"), _control(task), _n(task)]
        for record in records
        for name, task in _tasks(record).items()
        if name not in (SEEING, DRAWING)
    ]
    return _table(["recipe", "measure", "score", "control", "n"], rows) if rows else ""


def _control(task: Mapping[str, Any]) -> str:
    """What the score is to be held against, in the task's own terms."""
    known = ("copying", "untrained", "chance")
    return ", ".join(f"{name} {_percent(task[name])}" for name in known if isinstance(task.get(name), float))


def _n(task: Mapping[str, Any]) -> str:
    return str(task.get("n", ""))


def _tasks(record: Record) -> Mapping[str, Any]:
    return record["figures"]["tasks"]


def _link(record: Record) -> str:
    return f"[{record['name']}](../recipes/{record['name']}.yaml)"


def _minutes(record: Record) -> str:
    return f"{record['training_seconds'] / 60:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _with_interval(task: Mapping[str, Any], key: str, interval: str) -> str:
    low, high = task[interval]
    return f"{100 * task[key]:.0f} % ({100 * low:.0f} - {100 * high:.0f})"


def _large(number: float | None) -> str:
    if number is None:
        return ""
    units: list[tuple[float, str]] = [(1e9, " G"), (1e6, " M"), (1e3, " k")]
    size, unit = next(((size, unit) for size, unit in units if number >= size), (1.0, ""))
    return f"{number / size:.3g}{unit}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
