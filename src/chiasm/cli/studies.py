"""The command that compares models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from chiasm.cli.arguments import Plugins
from chiasm.cli.support import starting
from chiasm.terminal import completion

StudyFolder = Annotated[
    Optional[list[Path]],  # noqa: UP045 (one; more, such as overrides, are refused with a reason)
    typer.Argument(help="of the study (default: runs/studies/NAME-PRESET)", metavar="FOLDER"),
]
Preset = Annotated[Optional[str], typer.Option(help="how large: smoke, desk, night ...")]  # noqa: UP045


def study(
    source: Annotated[
        str,
        typer.Argument(
            help="a study's name or file; or `report`, or `check`",
            metavar="STUDY",
            autocompletion=completion.study_names,
        ),
    ],
    folder: StudyFolder = None,
    preset: Preset = None,
    jobs: Annotated[int, typer.Option(min=0, help="cells at a time; 0 = one a core")] = 0,
    ray: Annotated[
        str | None, typer.Option(help="cells run on Ray: local, or a cluster's address", metavar="ADDRESS")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Measure the arms of a study, compare them, and write its report.

    `study report FOLDER` writes the report alone; `study check` tries the statistics where the truth is known.
    """
    with starting():
        from chiasm.terminal.study import check, one_folder, refuse, report
        from chiasm.terminal.study import study as run

    place = one_folder(folder or ())
    options = {"preset": preset, "jobs": jobs, "ray": ray, "plugin": plugins}
    if source == "report":
        refuse(source, **options)
        report(place)
    elif source == "check":
        refuse(source, folder=place, **options)
        check()
    else:
        run(source, place, preset, jobs, plugins or (), ray)
