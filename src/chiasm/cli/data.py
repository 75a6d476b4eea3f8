"""Commands about data files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from chiasm.cli.arguments import MARKUP, Commands, Device, Dtype, Folder, Plugins, Seed

data_app = Commands(help="Work on data files.", no_args_is_help=True, rich_markup_mode=MARKUP)
Place = Annotated[
    str, typer.Argument(help="a run's folder or a checkpoint, or a server's address (http://.../v1)")
]
ServedModel = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--model", help="by which name the server knows the model"),
]
KeyVariable = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="the environment variable that holds the server's key"),
]
AnswerTokens = Annotated[int, typer.Option("--tokens", min=1, help="most of an answer")]
Wordings = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="YAML with other words to ask, judge and reason in"),
]
FilterNames = Annotated[
    list[str] | None,
    typer.Option("--filter", help="self, prompts or contexts, if not all; may be given again"),
]
QuestionCount = Annotated[int, typer.Option("--questions", min=1, help="that the model asks of an image")]
AskingTemperature = Annotated[float, typer.Option(min=0, help="of the model's questions")]


@data_app.command("filter")
def data_filter(
    source: Annotated[Path, typer.Argument(help="JSON or JSON Lines of interleaved documents")],
    destination: Annotated[Path, typer.Argument(help="JSON Lines of those that stay")],
    text: Annotated[bool, typer.Option(help="OmniCorpus's rules for English texts")] = True,
    duplicates: Annotated[bool, typer.Option(help="exact and near duplicates of texts go")] = True,
    images: Annotated[
        bool, typer.Option(help="images are opened; small, narrow and frequent ones go")
    ] = True,
    textual: Annotated[bool, typer.Option("--textual", help="documents without images stay")] = False,
    folder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="where relative paths of images start; default: the file's folder"),
    ] = None,
    outside: Annotated[bool, typer.Option("--outside", help="images may lie outside that folder")] = False,
    retain: Annotated[
        list[str] | None, typer.Option(help="a field of records that is retained unread; may be given again")
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="records that cannot be used are counted, and no error")
    ] = False,
    plugins: Plugins = None,
) -> None:
    """Filter interleaved documents: their text, duplicates of it, and their images."""
    from chiasm.data.filtering.stream import Filters
    from chiasm.terminal.data import run

    run(
        source,
        destination,
        Filters(text, duplicates, images, textual),
        images=folder,
        outside=outside,
        others=tuple(retain or ()),
        broken="skip" if skip else "error",
    )


@data_app.command("select")
def data_select(
    folder: Folder,
    files: Annotated[list[Path], typer.Argument(help="JSON or JSON Lines of conversations: a set each")],
    target: Annotated[
        list[Path], typer.Option(help="a file of what the model shall be good at; may be given again")
    ],
    base: Annotated[
        list[Path] | None, typer.Option(help="a file that it is trained on anyway; may be given again")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of the result, which appears whole")] = Path("selection"),
    steps: Annotated[int, typer.Option(min=0, help="of a trial; 0: no trials, scores alone")] = 100,
    rates: Annotated[
        list[str] | None, typer.Option("--train", help="SLOT=RATE; default: connector and language at 1e-4")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="of a batch in trials")] = 8,
    length: Annotated[int, typer.Option(min=16, help="tokens of a row")] = 512,
    seeds: Annotated[int, typer.Option(min=1, help="trials of each set")] = 3,
    by: Annotated[
        Literal["loss", "gradient", "diversity"], typer.Option(help="score that samples are ranked by")
    ] = "gradient",
    share: Annotated[float, typer.Option(min=0, max=1, help="of the samples in sets that stay")] = 1.0,
    images: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="where relative paths of images start; default: each file's folder"),
    ] = None,
    outside: Annotated[bool, typer.Option("--outside", help="images may lie outside that folder")] = False,
    ignore: Annotated[
        list[str] | None, typer.Option(help="a key of records without a meaning; may be given again")
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="records that cannot be used are counted, and no error")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Choose what to train a model on: what adding each set does to the targets, and scores of samples."""
    from chiasm.curation.trials import Trial, read_rates
    from chiasm.terminal.select import SelectionFiles, run

    trial = Trial(steps, read_rates(rates or ()), rows, length) if steps else None
    reading = SelectionFiles(images, outside, tuple(ignore or ()), skip, by, share)
    run(
        folder,
        files,
        targets=target,
        base=base or [],
        out=out,
        trial=trial,
        seeds=seeds,
        reading=reading,
        device=device,
        dtype=dtype,
    )


@data_app.command("make")
def data_make(
    place: Place,
    images: Annotated[
        Path, typer.Argument(help="a folder of images, or JSON Lines of image, text, questions")
    ],
    out: Annotated[Path, typer.Option(help="JSON Lines of conversations")] = Path("made.jsonl"),
    folder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="where relative paths of a JSON file start; default: its folder"),
    ] = None,
    questions: QuestionCount = 4,
    temperature: AskingTemperature = 0.7,
    filters: FilterNames = None,
    reasons: Annotated[bool, typer.Option(help="a second turn says why")] = True,
    wordings: Wordings = None,
    model: ServedModel = None,
    key_variable: KeyVariable = None,
    tokens: AnswerTokens = 128,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Have a model ask, answer, reason and check: instruction data from images. The same command goes on."""
    from chiasm.terminal.make import SpeakerChoice, make, making_of

    choice = SpeakerChoice(place, model, key_variable, tokens, seed, device, dtype)
    make(choice, images, out, making_of(questions, temperature, filters, reasons, wordings), folder=folder)


@data_app.command("precision")
def data_precision(
    place: Place,
    source: Annotated[str, typer.Argument(help="data whose answers are known: pages, world, chat ...")],
    options: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="of the data: option=value", metavar="[OPTION=VALUE]..."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="how many")] = 100,
    own: Annotated[bool, typer.Option("--own", help="the model asks, not the data")] = False,
    questions: QuestionCount = 4,
    temperature: AskingTemperature = 0.7,
    filters: FilterNames = None,
    wordings: Wordings = None,
    model: ServedModel = None,
    key_variable: KeyVariable = None,
    tokens: AnswerTokens = 128,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """How much of the data that a model makes is right, behind each filter, against known answers."""
    from chiasm.terminal.make import SpeakerChoice, making_of, precision

    choice = SpeakerChoice(place, model, key_variable, tokens, seed, device, dtype)
    making = making_of(questions, temperature, filters, False, wordings)
    precision(choice, source, options or (), making, images=images, own=own)
