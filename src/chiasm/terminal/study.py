"""`chiasm study`: arms and seeds, measured and compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chiasm.errors import ChiasmError, quoted
from chiasm.terminal.console import say


def study(
    source: str,
    folder: Path | None,
    preset: str | None,
    jobs: int,
    plugins: Sequence[str] = (),
    ray: str | None = None,
) -> None:
    """Run what has no record yet, and write the report."""
    from chiasm.studies.plan import load_study
    from chiasm.studies.runner import run_study

    plan = load_study(source, preset)
    place = folder or Path("runs") / "studies" / "-".join(filter(None, (plan.name, preset)))
    run_study(plan, place, jobs=jobs, ray=ray, plugins=plugins, say=say)
    report(place)


def refuse(source: str, **options: object) -> None:
    """Raise ChiasmError naming what `chiasm study report` or `chiasm study check` has no use for."""
    for name, value in options.items():
        if value:
            raise ChiasmError(f"{name}: `chiasm study {source}` has no use for it; leave it out")


def one_folder(words: Sequence[Path]) -> Path | None:
    """The folder behind a study's name, if there is one; raises ChiasmError for what else stands there."""
    for word in words:
        key, equals, value = str(word).partition("=")
        if equals and "/" not in key and not word.exists():
            raise ChiasmError(
                f"{quoted(str(word))}: a study takes no overrides; write `{key}: {value}` into its `set:`, which "
                "all arms share, or into that of a preset or an arm"
            )
    if len(words) > 1:
        raise ChiasmError(f"{quoted(str(words[1]))}: a study has one folder, {words[0]}; leave it out")
    return words[0] if words else None


def check() -> None:
    """Check the statistics and the controls where the truth is known; raises ChiasmError where one fails."""
    with _needing_statistics():
        from chiasm.studies.check import check as findings

    failed = []
    for each in findings():
        say(f"{'ok' if each.passed else 'WRONG'}  {each.name}: {each.sentence}")
        if not each.passed:
            failed.append(each.name)
    if failed:
        raise ChiasmError(f"studies cannot be trusted here: {', '.join(failed)}")


def report(folder: Path | None) -> None:
    """Write the report of a study's folder from its records."""
    if folder is None:
        raise ChiasmError("chiasm study report FOLDER: name the folder of a study")
    with _needing_statistics():
        from chiasm.studies.report import write_report
    headline, page = write_report(folder)
    say(headline)
    say(f"report: {page}")


@contextmanager
def _needing_statistics() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ChiasmError(f"a study's statistics need {error.name}: pip install 'chiasm[study]'") from None
