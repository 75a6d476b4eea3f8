"""`chiasm check`: what the model will see and learn of the data, token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby

from rich.text import Text

from chiasm.data import Sample, Source, counts
from chiasm.data.corpus import corpus
from chiasm.data.documents import document
from chiasm.distribution.processes import Ranks
from chiasm.errors import DataError
from chiasm.evaluation.tasks import check as check_evaluation
from chiasm.language.text import TextTokenizer
from chiasm.model import Model
from chiasm.recipe import Recipe, check_sampling
from chiasm.sequence import Document, Kind
from chiasm.terminal.console import console, say
from chiasm.training.batches import describe
from chiasm.training.train import build_sources
from chiasm.training.usable import skipped, unusable

LEARNT, GIVEN, READ, WRITTEN = "bold green", "dim", "black on cyan", "black on magenta"
# By style, what stands round a stretch: with colours, and without.
Marks = Mapping[str, tuple[str, str]]
COLOURED: Marks = {LEARNT: ("", ""), GIVEN: ("", ""), READ: (" ", " "), WRITTEN: (" ", " ")}
PLAIN: Marks = {LEARNT: ("{+", "+}"), GIVEN: ("", ""), READ: ("[", "]"), WRITTEN: ("{+[", "]+}")}


def check(recipe: Recipe, samples: int, *, every: bool = False) -> None:
    """Print the first samples of every source, coloured by loss mask and kind, or marked where there is no colour.

    every: first verify every record from outside and decode all of its images, for each stage.
    """
    out = console()
    model = Model(recipe.model, texts=corpus(recipe), seed=recipe.seed)
    sources = build_sources(recipe)
    check_evaluation(recipe.evaluation)
    check_sampling(recipe)
    broken = {name: Counter(source.skipped) for name, source in sources.items()}
    if every:
        broken = skipped(sources, *unusable(recipe, model, sources, Ranks(), decode=True).values())
    marks = PLAIN if out.color_system is None or out.no_color else COLOURED
    legend = [("learnt", LEARNT), ("given", GIVEN), ("image read", READ), ("image written", WRITTEN)]
    out.print(Text("  ").join(_marked(words, style, marks) for words, style in legend))
    for name, source in sorted(sources.items()):
        usable = len(source) - (broken[name] - Counter(source.skipped)).total()
        verified = "every record verified, every image decoded: " if every and source.foreign else ""
        count = f": {verified}{usable:,} groups, {counts(broken[name])}"
        say(Text.assemble("\n", (name, "bold"), count))
        asking = [stage for stage in recipe.stages if stage.objective is not None and name in stage.data]
        listed = (sample for index in range(len(source)) for sample in source[index])
        for _, sample in zip(range(samples), listed, strict=False):
            say(Text(sample.name, "dim"))
            try:
                sequence = document(model.contract, sample)
            except DataError as error:
                if source.broken == "error":
                    raise
                say(f"  skipped: {error}")
                continue
            out.print(Text("  ") + coloured(sequence, model.language.tokenizer, marks))
            if asking:
                kinds = ", ".join(str((stage.objective or {})["type"]) for stage in asking)
                say(f"  objective {kinds} {_described(sample, source)}")


def _described(sample: Sample, source: Source) -> str:
    """What an objective reads of a sample, or why nothing; raises DataError if its source skips none."""
    try:
        described = describe(sample)
    except DataError as error:
        if source.broken == "error":
            raise
        return f"skips it: {error}"
    return f"reads an image, {described.text!r}, labels: {', '.join(described.labels)}"


def coloured(sequence: Document, tokenizer: TextTokenizer, marks: Marks = COLOURED) -> Text:
    """A document as text: what is learnt, what is not, and how many positions an image takes."""
    # A label stands at the position before its token.
    learnt = [False, *(label == id for label, id in zip(sequence.labels, sequence.ids[1:], strict=False))]
    columns = zip(sequence.kinds, learnt, sequence.ids, strict=True)
    text = Text()
    for (kind, learns), run in groupby(
        columns, key=lambda column: (column[0], column[1] and column[0] == Kind.TEXT)
    ):
        ids = [id for _, _, id in run]
        if kind == Kind.TEXT:
            words, style = str(tokenizer.inner.decode(ids)), LEARNT if learns else GIVEN
        else:
            style, word = (READ, "read") if kind == Kind.READ else (WRITTEN, "written")
            words = f"{word}: {len(ids)}"
        text.append(_marked(words, style, marks))
    return text


def _marked(words: str, style: str, marks: Marks) -> Text:
    before, behind = marks[style]
    return Text(f"{before}{words}{behind}", style)
