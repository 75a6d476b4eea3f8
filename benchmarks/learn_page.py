"""docs/learn.md: what the tiny recipes were measured to have learnt, in tables, pictures and a few sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import learn_tables
from learn_figures import MIXED, MIXED_PAGE, TILES, folder_of, read
from learn_tables import DRAWING, MASKS, QUESTIONS, RESOLUTION, ZOOM, Row, answers, percent, reads, tasks

OLDER_INTERVALS = " Their intervals are by a bootstrap over pictures, which was the way of those days."

INTRODUCTION = """# What the recipes learn on a laptop

```bash
make learn
```

trains the `tiny` overlay of every recipe, the system's structure in a small size, on the
[built-in world](world.md) and measures it. This page is what came out. A stopped `make learn` goes on where it
was, and a recipe that has not changed is not trained again; `python benchmarks/learn.py llava fuyu` takes single
recipes, and the rows of the others stay as they were measured.

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

EXPLAINED_READING = """Questions about [written pages](world.md#written-pages) that training never saw. *ANLS*:
DocVQA's measure, the similarity of the letters of answer and truth, 0 below a half. *Exact*: every letter right.
The controls are those above, by ANLS too.
"""

EXPLAINED_RESOLUTION = """The same questions by the least pixels of a page's longer side with which all that must be
read is legible (capitals 7 pixels high), up to each band's end. ANLS; in brackets *blind*, and how many were asked.
"""

EXPLAINED_ZOOM = """[Two looks](inference.md#two-looks): the model names the part that is asked about, and answers
again beside that part, enlarged; the likelier answer stays. Scores as above. *Looked*: questions for which it named
a part; *chosen*: for which the second answer was the likelier one.
"""

WIDE_LINES = """`dualfocus` gains nothing by it. The lines of these pages are nearly as wide as the page, and what
is cut out is a square: 159 pixels of 192 on average in the 100 questions, which enlarges letters by a fifth.
"""

EXPLAINED_TILES = """```bash
python benchmarks/tiles.py
```

trains one recipe, `internvl-1.5`, twice on the same written letters and scenes: with up to twelve tiles of 32
pixels and a thumbnail, and with the whole picture in one view of 32 pixels. Parameters, steps and, nearly, the
documents of a step are the same. All tiles of a letter show it 128 pixels high: *small text* is what is legible
then (capitals 7 pixels high), *smaller text* what is not. The things of the scenes fill a quarter of the picture.
Exact match; *blind* as above. The two kinds of text were told apart after a first measurement, in which they were
one task of 200 questions: 56 % (49 - 63) with tiles and 52 % (45 - 60) with a single view.
"""

EXPLAINED_MIXED = """```bash
python benchmarks/mixed_page.py
```

trains one recipe, `{recipe}`, on letters whose title and sentence are each in Chinese or in English, and has it
read the first held-out page that has both, whatever comes out. ANLS of {n} questions about held-out pages: {score},
blind {blind}; by kind: {kinds}. {minutes} processor minutes of training, commit {commit}.
"""

EXPLAINED_MARKING = """Masks of what a question names, on held-out scenes. *gIoU*: intersection over union, on
average over the questions; *cIoU*: all intersections over all unions. *Shuffled*: gIoU of masks of another
question's picture. *Whole image*: gIoU of marking everything. Behind it gIoU by what is asked for: things of a name
(*segment*), what a *box*, a *point* or a red *stroke* is on, and things that are not there (*unanswerable*).
*Questions*: the score of those that also answer in words; where a recipe is asked for names of regions too, they
stand by kind in the first table.
"""

EXPLAINED_DRAWING = """Pictures drawn from held-out captions and read by the exact checker. *Place*: share of the
asked things in the cell they were asked for; *shuffled*: the same for another caption's things, what drawing
without heed of the words gives; *object*: anywhere in the picture; *count*: pictures with as many things as asked;
*all*: pictures right in every cell. *Ceiling*: *place* of the true pictures after the image tokenizer alone.
*Diversity*: how much pictures of one prompt differ, relative to those of different prompts. *Positions*: of a
picture in the sequence. *Passes*: how often the language model runs for one picture, one behind the other, the
reading of the prompt included. *Questions*: the score in the table above, of those that also see.
"""

VECTORS = """**Of those that write vectors.** `transfusion`, `nextstep-1` and `janusflow` draw 16 x 16 pixels, which
the checker still reads without a mistake (*ceiling*), in vectors of 48 numbers, and predict the image itself, not
the noise or the velocity. Their training shows scenes of one to three things.

- `nextstep-1` was at 62 % (55 - 70) after 600 steps at uniform times, two a vector, and took another for the second
  thing of a pair that training never showed. In 1,000 steps at four times a vector, of which more lie near the
  noise (`shift: 3`), it draws such pairs. A vector of 48 numbers gives itself away when a third of it is no longer
  noise; before that only the words say what it shall be. Which of the three changes did most was not measured.
- `janusflow` was at 5 % (2 - 9): other words changed its pixels by half a level of 255, and its loss of images
  stood at 0.024 from step 240 to 450. The loss of words held it back: with a tenth of the weight on words, on a
  longer schedule and with nothing else changed, it is 0.015 after 280 steps and falls on. The overlay now has
  that weight, more of the times near the noise (`shift: 4`), and positions that say which cell they stand for
  (`cells: true`). The last makes no difference: the loss at steps 281 to 317 is 0.020 without and 0.023 with
  it.

**Of those whose image decoder diffuses.** `dreamllm` writes eight vectors, after which a transformer of 1.2 million
parameters denoises the same 16 x 16 pixels. It was at 1.0 % after 660 steps in which the decoder learnt at 0.002 by
AdamW and words weighed as much as images. Whether AdamW or Muon takes the decoder makes little difference at that
rate (loss of images 0.059 after 130 steps with either, a tenth of the weight on words); at 0.01 by Muon, 0.003 for
language model and head, it is 0.044 there and 0.014 after 430. The three rates were changed together. The questions
are not learnt: words weigh a tenth in every stage, and answers follow from the question alone.
"""

EXPLAINED_TOKENIZERS = """
Held-out clips of moving scenes, coded and decoded. *Mean picture*: the PSNR of always answering with the mean of
all frames, which a tokenizer must exceed to have learnt anything. *Use*: share of the codes that occur.
"""


def write_page(rows: Sequence[Row], path: Path) -> None:
    """Write the page of these figures, and of those that `tiles.py` and `mixed_page.py` left beside it."""
    tiles, mixed = (read(folder_of(path) / name) for name in (TILES, MIXED))
    done = [row for row in rows if "failed" not in row]
    failed = [row for row in rows if "failed" in row]
    seeing = [row for row in done if answers(row)]
    pages = [row for row in done if reads(row)]
    marking = [row for row in done if MASKS in tasks(row)]
    drawing = [row for row in done if DRAWING in tasks(row)]
    parts = [INTRODUCTION, _origin(done), in_short(seeing, pages, marking, drawing, failed)]
    if seeing:
        parts += ["## Answering questions about pictures", EXPLAINED, learn_tables.answering(seeing)]
    if pages:
        parts += ["## Reading pages", EXPLAINED_READING, learn_tables.reading(pages)]
    if bands := [row for row in pages if RESOLUTION in tasks(row)]:
        parts += ["### By resolution", EXPLAINED_RESOLUTION, learn_tables.by_resolution(bands)]
    if zooming := [row for row in done if ZOOM in tasks(row)]:
        parts += ["### With a second look", EXPLAINED_ZOOM, learn_tables.zooming(zooming)]
        if any(row["name"] == "dualfocus" for row in zooming):
            parts.append(WIDE_LINES)
    if tiles:
        parts += [
            "## Tiles against a single view",
            EXPLAINED_TILES,
            learn_tables.tiles(tiles),
            compared(tiles),
        ]
    for row in mixed:
        parts += ["## A page in two languages", *_mixed(row, path)]
    if marking:
        parts += ["## Marking", EXPLAINED_MARKING, learn_tables.marking(marking)]
    if drawing:
        parts += ["## Drawing", EXPLAINED_DRAWING, learn_tables.drawing(drawing)]
        if any(row["name"] == "transfusion" for row in drawing):
            parts.append(VECTORS)
        parts += _sheets(drawing, path)
    if alone := [row for row in done if "tokenizer" in row["figures"]]:
        parts += ["## Image tokenizers alone", EXPLAINED_TOKENIZERS, learn_tables.tokenizers(alone)]
    if others := learn_tables.others(done):
        parts += ["## Other measures", others]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(part.strip() for part in parts if part) + "\n", encoding="utf-8")


def compared(tiles: Sequence[Row]) -> str:
    """Where tiles beat a single view by more than both intervals."""
    sentences = []
    for task, group in groupby(tiles, key=lambda row: row["task"]):
        scores = {row["arm"]: row["scores"] for row in group}
        cut, single = scores["tiles"], scores["single view"]
        verdict = "beat a single view by more than both intervals"
        if cut["ci"][0] <= single["ci"][1]:
            verdict = "do not " + verdict
        if cut["ci"][1] < single["ci"][0]:
            verdict = "are beaten by a single view by more than both intervals"
        sentences.append(f"On {task} tiles {verdict}.")
    return " ".join(sentences)


def _mixed(row: Row, path: Path) -> list[str]:
    """How well mixed pages are read, one of them, and what was read on it, as it came."""
    scores = row["scores"]
    explained = EXPLAINED_MIXED.format(
        recipe=row["recipe"],
        n=scores["n"],
        score=learn_tables.with_interval(scores, "score", "ci"),
        blind=learn_tables.with_interval(scores, "blind", "blind_ci"),
        kinds=", ".join(f"*{name}* {percent(each['score'])}" for name, each in scores["by_type"].items()),
        minutes=f"{row['seconds'] / 60:.0f}",
        commit=row["commit"],
    )
    cells = [
        [each[key].replace("\n", "<br>") for key in ("question", "answer", "truth")] for each in row["asked"]
    ]
    picture = f"![A held-out page in Chinese and English]({path.stem}/{MIXED_PAGE})"
    return [explained, picture, learn_tables.table(["question", "answer", "true"], cells)]


def beats(scores: Mapping[str, Any], control: str) -> bool:
    """Whether a score stands above its control by more than the intervals of both."""
    low, high = scores["ci"][0], scores[f"{control}_ci"][1]
    return bool(low > high)


def in_short(
    seeing: Sequence[Row],
    pages: Sequence[Row],
    marking: Sequence[Row],
    drawing: Sequence[Row],
    failed: Sequence[Row],
) -> str:
    """What may be said of the figures, the worst first."""
    lines = ["## In short\n"]
    lines += [f"- **{row['name']} failed**: {row['failed']}" for row in failed]
    for rows, what in ((seeing, "answer questions about pictures"), (pages, "read pages")):
        lines += _against(rows, QUESTIONS, "blind", what, "that of the same model without the picture")
    if seeing:
        lines.append(_weakest(seeing))
    if marking:
        lines.append(f"- Recipes that mark: {len(marking)}{_range(marking, MASKS)} for gIoU.")
    controlled = [row for row in drawing if "shuffled_ci" in tasks(row)[DRAWING]]
    same = "that of the same pictures against another caption"
    lines += _against(controlled, DRAWING, "shuffled", "draw (of those measured with this control)", same)
    if drawing:
        lines.append(
            f"- Recipes that draw: {len(drawing)}{_range(drawing, DRAWING)} for *place*. {_never(drawing)}"
        )
    return "\n".join(line.rstrip(" ") for line in lines if line)


def _against(rows: Sequence[Row], task: str, control: str, what: str, named: str) -> list[str]:
    """Which stand above a control, those first that do not."""
    above = [row for row in rows if beats(tasks(row)[task], control)]
    below = [row for row in rows if not beats(tasks(row)[task], control)]
    lines = []
    if below:
        lines.append(
            f"- **Not shown to have learnt it**: {_names(below)}. The score does not stand above {named} by more "
            "than the intervals."
        )
    if rows:
        lines.append(
            f"- {len(above)} of {len(rows)} recipes that {what} beat their {control} control by more than the "
            f"intervals{_range(above, task)}."
        )
    return lines


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(f"`{row['name']}`" for row in rows)


def _range(rows: Sequence[Row], task: str) -> str:
    if not rows:
        return ""
    ordered = sorted(rows, key=lambda row: tasks(row)[task]["score"])
    low, high = ordered[0], ordered[-1]
    ends = [f"{percent(tasks(each)[task]['score'])} (`{each['name']}`)" for each in (low, high)]
    return f", from {ends[0]} to {ends[1]}" if low is not high else f": {ends[0]}"


def _weakest(seeing: Sequence[Row]) -> str:
    """The type of question that is answered worst, on average over the recipes that are asked it."""
    by_type: dict[str, list[tuple[float, float]]] = {}
    for row in seeing:
        for name, scores in tasks(row)[QUESTIONS]["by_type"].items():
            if "blind" in scores:
                by_type.setdefault(name, []).append((scores["score"], scores["blind"]))
    if not by_type:
        return ""
    means = {name: [sum(each) / len(pairs) for each in zip(*pairs)] for name, pairs in by_type.items()}
    worst = min(means, key=lambda name: means[name][0] - means[name][1])
    score, blind = means[worst]
    return (
        f"- The type that gains least from the picture is *{worst}*: {percent(score)} on average, {percent(blind)} "
        "without it."
    )


def _never(drawing: Sequence[Row]) -> str:
    none = [row for row in drawing if tasks(row)[DRAWING]["all"] == 0]
    return f"Without a single picture right in every cell: {_names(none)}." if none else ""


def _origin(done: Sequence[Row]) -> str:
    """Where and when the figures were measured, day by day; of what was measured last by name."""

    def day(row: Row) -> str:
        return str(row["finished"][:10])

    days = [(when, list(rows)) for when, rows in groupby(sorted(done, key=day), key=day)]
    lines = []
    for when, rows in days:
        machines = {
            f"{r['machine']['cpu']}, {r['machine']['cores']} cores, {r['machine']['device']}" for r in rows
        }
        commits = sorted({commit for row in rows for commit in row["commits"]})
        line = f"Measured {when} on {'; '.join(sorted(machines))}; one thread a recipe; commit {', '.join(commits)}"
        if len(days) > 1:
            line += f": {_names(rows)}" if when != days[0][0] else ": all that is not named below"
        lines.append(f"{line}.{OLDER_INTERVALS if any(row.get('intervals') for row in rows) else ''}")
    return "\n\n".join(lines)


def _sheets(rows: Sequence[Row], path: Path) -> list[str]:
    """A sheet of drawn pictures for each recipe, as they came out, and below those of one task what was asked."""

    def prompts(row: Row) -> list[str]:
        return list(row.get("prompts", ()))

    parts = []
    for asked, group in groupby(sorted(rows, key=prompts), key=prompts):
        if not asked:
            continue
        for row in group:
            sheet = f"{path.stem}/{row['name']}.webp"
            parts.append(f"### {row['name']}")
            parts.append(f"![The first {len(asked)} pictures of {row['name']}]({sheet})")
        listed = "\n".join(f"{number}. {prompt}" for number, prompt in enumerate(asked, 1))
        parts.append(f"<details><summary>What was asked, row by row</summary>\n\n{listed}\n\n</details>")
    return parts
