"""The command line: `chiasm COMMAND --help`. Heavy imports stand inside the commands, so that help is quick."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from chiasm.terminal import completion

# Frames are for terminals; what is piped or kept is plain.
MARKUP: Literal["rich"] | None = "rich" if sys.stdout.isatty() and sys.stderr.isatty() else None
app = typer.Typer(
    name="chiasm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={} if MARKUP else {"terminal_width": 110},
)

RecipeName = Annotated[
    str,
    typer.Argument(
        help="a recipe that comes with Chiasm, or a YAML file",
        metavar="RECIPE",
        autocompletion=completion.recipe_names,
    ),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads this form on every Python)
    typer.Argument(help="dotted.key=value, such as model.connector.depth=3", metavar="[KEY=VALUE]..."),
]
Tiny = Annotated[bool, typer.Option("--tiny", help="the recipe's overlay for a laptop")]
Folder = Annotated[Path, typer.Argument(help="a run's folder or a checkpoint", metavar="RUN")]
tokenizer_app = typer.Typer(help="Look at image tokenizers.", no_args_is_help=True, rich_markup_mode=MARKUP)


def _use(plugins: list[str] | None) -> list[str] | None:
    if plugins:
        from chiasm import use

        use(*plugins)
    return plugins


# Loaded before the command begins, which needs to do nothing with it.
Plugins = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--plugin",
        callback=_use,
        help="a Python file or module with parts, tasks, metrics or checkpoint families of your own",
    ),
]
app.add_typer(tokenizer_app, name="tokenizer")
data_app = typer.Typer(help="Work on data files.", no_args_is_help=True, rich_markup_mode=MARKUP)
app.add_typer(data_app, name="data")
Seed = Annotated[int, typer.Option(help="of the sampling")]
Device = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="cuda, cuda:1, mps or cpu; default: the first of these that there is"),
]
Dtype = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="fp32, bf16 or fp16; default: as the checkpoint has it, in training as the recipe says"
    ),
]
Guidance = Annotated[Optional[float], typer.Option(help="classifier-free guidance; 1 = none")]  # noqa: UP045
Temperature = Annotated[Optional[float], typer.Option(help="0 = greedy")]  # noqa: UP045
TopK = Annotated[Optional[int], typer.Option(help="codes to choose from at each place; 0 = all")]  # noqa: UP045
TopP = Annotated[Optional[float], typer.Option(help="the likeliest codes whose chances reach this; 1 = all")]  # noqa: UP045

# What other libraries print of themselves; a variable that the user has set stays.
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}


def _print_version(requested: bool) -> None:
    if requested:
        from chiasm import __version__

        typer.echo(f"chiasm {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Build, train, compare and serve models that both see and draw."""


StudyFolder = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Argument(help="of the study (default: runs/studies/NAME-PRESET)"),
]
Preset = Annotated[Optional[str], typer.Option(help="how large: smoke, desk, night ...")]  # noqa: UP045


@app.command()
def quickstart(
    folder: Annotated[Path, typer.Option("--out", help="the run's folder")] = Path("runs/quickstart"),
    overrides: Overrides = None,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Train a model that answers questions about pictures and draws, evaluate it, and write a report."""
    from chiasm.evaluation.evaluate import is_evaluated

    train("quickstart", overrides, folder=folder, tiny=False, device=device, dtype=dtype)
    if not is_evaluated(folder):
        evaluate(folder, device=device, dtype=dtype)
    _say(f"\nreport: {(folder / 'report.html').resolve()}")


@app.command()
def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    folder: Annotated[
        Optional[Path], typer.Option("--out", help="the run's folder; default: runs/NAME")  # noqa: UP045
    ] = None,
    tiny: Tiny = False,
    device: Device = None,
    dtype: Dtype = None,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="go on although the data has changed since the run began")
    ] = False,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="processes that make batches ahead; default: by the device and its cores"),
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Train a recipe. The same command continues a run that was stopped, bit for bit."""
    from chiasm.recipe import load_recipe
    from chiasm.terminal.next_steps import next_steps
    from chiasm.training.train import train as run

    loaded = load_recipe(recipe, overrides or (), tiny=tiny)
    place = folder or Path("runs") / (loaded.name + ("-tiny" if tiny else ""))
    _say(
        next_steps(
            loaded, run(loaded, place, device=device, dtype=dtype, other_data=other_data, workers=workers)
        )
    )


@app.command("eval")
def evaluate(
    folder: Folder,
    overrides: Overrides = None,
    plugins: Plugins = None,
    device: Device = None,
    dtype: Dtype = None,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--only", help="a task by name, if not all; may be given again"),
    ] = None,
) -> None:
    """Measure a trained run: every task with its controls, into eval.json and report.html."""
    from chiasm.evaluation.evaluate import evaluate as run

    run(
        folder,
        overrides=overrides or (),
        only=only or (),
        say=_say,
        device=device,
        dtype=dtype,
    )


@app.command()
def chat(
    folder: Folder,
    message: Annotated[Optional[str], typer.Option("-m", "--message", help="ask once and leave")] = None,  # noqa: UP045
    picture: Annotated[list[Path] | None, typer.Option("-p", "--picture", help="read an image first")] = None,
    save: Annotated[Path, typer.Option(help="folder for drawn images")] = Path("drawn"),
    tokens: Annotated[Optional[int], typer.Option(help="most tokens of an answer")] = None,  # noqa: UP045
    word_temperature: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="how freely words are drawn; 0 = always the likeliest"),
    ] = None,
    word_top_k: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="how many of the likeliest words the next may be; 0 = all"),
    ] = None,
    word_top_p: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="the next word is of the likeliest whose chances reach this together; 1 = all"),
    ] = None,
    repetition_penalty: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="by how much words that stand there already are less likely; 1 = none"),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="a text that ends an answer; may be given several times")
    ] = None,
    zoom: Annotated[
        bool,
        typer.Option("--zoom", help="look twice: at the whole image, and at the part that is asked about"),
    ] = False,
    tools: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="JSON file of tools that answers may call; what a call gives is asked of you"),
    ] = None,
    guidance: Guidance = None,
    temperature: Annotated[Optional[float], typer.Option(help="of images; 0 = greedy")] = None,  # noqa: UP045
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Talk to a model in the terminal; images whose paths stand in a message are read."""
    with _starting():
        from chiasm.terminal.chat import converse

    sampling = {
        "tokens": tokens,
        "word_temperature": word_temperature,
        "word_top_k": word_top_k,
        "word_top_p": word_top_p,
        "repetition_penalty": repetition_penalty,
        "stop": stop or None,
        "guidance": guidance,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    converse(
        folder,
        message=message,
        images=picture or [],
        save=save,
        seed=seed,
        device=device,
        dtype=dtype,
        sampling=sampling,
        zoom=zoom,
        tools=tools,
    )


@app.command()
def generate(
    folder: Folder,
    prompts: Annotated[list[str], typer.Argument(help="one image is drawn for each", metavar="PROMPT...")],
    out: Annotated[Path, typer.Option(help="folder for the images")] = Path("drawn"),
    count: Annotated[int, typer.Option(help="images of each prompt, of this seed and the next ones")] = 1,
    verbatim: Annotated[
        bool,
        typer.Option(
            "--verbatim", help="draw after the prompts' own words, which the model would else write"
        ),
    ] = False,
    guidance: Guidance = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Draw pictures from words."""
    with _starting():
        from chiasm.model.checkpoint import load_model
        from chiasm.terminal.pictures import save_picture, words_of

        model = load_model(folder, device, dtype)
    sampling = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    pictures = model.generate(prompts, count=count, seed=seed, verbatim=verbatim, **sampling)
    for i, picture in enumerate(pictures):
        _say(f"{save_picture(picture, out)}  {prompts[i // count]}{words_of(picture)}")


@app.command()
def edit(
    folder: Folder,
    picture: Annotated[Path, typer.Argument(help="the image's file", metavar="PICTURE")],
    prompt: Annotated[str, typer.Argument(help="what shall be seen (--mask), or what shall be changed")],
    mask: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="an image of the same size; what is transparent in it is drawn anew, all else stays"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for the images")] = Path("drawn"),
    count: Annotated[int, typer.Option(help="images that are drawn, of this seed and the next ones")] = 1,
    guidance: Guidance = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Draw a part of a picture anew, under a mask, or all of it after an instruction."""
    with _starting():
        from chiasm.model.checkpoint import load_model
        from chiasm.terminal.pictures import save_picture, words_of

        model = load_model(folder, device, dtype)
    sampling = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    for each in model.edit(picture, prompt, mask=mask, count=count, seed=seed, **sampling):
        _say(f"{save_picture(each, out)}{words_of(each)}")


@app.command()
def complete(
    folder: Folder,
    pictures: Annotated[
        list[Path], typer.Argument(help="files, such as an example's two and a third", metavar="PICTURE...")
    ],
    out: Annotated[Path, typer.Option(help="folder for the images")] = Path("drawn"),
    count: Annotated[int, typer.Option(help="how many images follow")] = 1,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Draw what follows in a row of pictures, without words or guidance; all must fit into the context."""
    with _starting():
        from chiasm.model.checkpoint import load_model
        from chiasm.terminal.pictures import save_picture

        model = load_model(folder, device, dtype)
    for picture in model.complete(
        pictures, count=count, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    ):
        _say(str(save_picture(picture, out)))


@app.command()
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
    plugins: Plugins = None,
) -> None:
    """Measure the arms of a study, compare them, and write its report.

    `study report FOLDER` writes the report alone; `study check` tries the statistics where the truth is known.
    """
    with _starting():
        from chiasm.terminal.study import check, report
        from chiasm.terminal.study import study as run

    if source == "report":
        report(folder)
    elif source == "check":
        check()
    else:
        run(source, folder, preset, jobs, plugins or ())


@app.command()
def serve(
    folders: Annotated[
        list[str],
        typer.Argument(help="runs or checkpoints; NAME=FOLDER gives one a name", metavar="FOLDER..."),
    ],
    host: Annotated[str, typer.Option(help="0.0.0.0 = reachable from other machines")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    pending: Annotated[int, typer.Option(min=1, help="requests of a model under way or waiting")] = 64,
    body: Annotated[int, typer.Option(min=1, help="most MiB of a request")] = 32,
    images: Annotated[int, typer.Option(min=0, help="most images of a request")] = 16,
    pixels: Annotated[int, typer.Option(min=1, help="most megapixels of all images of a request")] = 64,
    hosts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--allow-url",
            metavar="HOST",
            help="images at addresses of this host are fetched; may be given again; default: none is",
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Answer over HTTP in the shapes of OpenAI's API, images in and out; CHIASM_API_KEY: the key of its clients."""
    with _starting():
        from chiasm.terminal.serve import serve as run

    limits = {"pending": pending, "body": body << 20, "images": images, "pixels": pixels << 20}
    run(folders, host, port, **limits, hosts=hosts or (), device=device, dtype=dtype)


@app.command()
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    tiny: Tiny = False,
    whole: Annotated[bool, typer.Option("--recipe", help="print the resolved recipe too")] = False,
    plugins: Plugins = None,
) -> None:
    """Print the shapes through every slot, where its code lies, parameters, FLOPs and image tokens."""
    from chiasm.recipe import load_recipe
    from chiasm.terminal.show import show as run

    run(load_recipe(recipe, overrides or (), tiny=tiny), whole=whole)


@app.command()
def check(
    recipe: RecipeName,
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(min=0, help="how many of each data source")] = 6,
    every: Annotated[bool, typer.Option("--all", help="verify every record and decode every image")] = False,
    tiny: Tiny = False,
    plugins: Plugins = None,
) -> None:
    """Decode the first samples of a recipe's data, coloured by loss mask and kind."""
    from chiasm.recipe import load_recipe
    from chiasm.terminal.check import check as run

    run(load_recipe(recipe, overrides or (), tiny=tiny), samples, every=every)


@app.command()
def doctor() -> None:
    """Say what this machine has, what is missing for what, and how to get it."""
    from chiasm.terminal.doctor import doctor as run

    run()


@app.command()
def parts(
    slot: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="only this slot", autocompletion=completion.slot_names),
    ] = None,
    plugins: Plugins = None,
) -> None:
    """List the parts of every slot with their options."""
    from chiasm.terminal.parts import table

    table(slot)


@app.command()
def recipes() -> None:
    """List the recipes that come with Chiasm."""
    from rich.table import Table

    from chiasm.recipe import about
    from chiasm.recipe import recipes as shipped
    from chiasm.terminal.console import console

    rows = Table("recipe", "about", box=None, header_style="bold")
    for name, path in shipped().items():
        rows.add_row(name, about(path))
    console().print(rows)


@app.command()
def world(
    show: Annotated[bool, typer.Option("--show", help="write a contact sheet")] = False,
    out: Annotated[Path, typer.Option(help="the contact sheet")] = Path("world.png"),
    scenes: Annotated[int, typer.Option(min=1, max=10_000, help="scenes on the sheet")] = 8,
    options: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            help="options of the world, such as emoji=64 language=zh", metavar="[OPTION=VALUE]..."
        ),
    ] = None,
) -> None:
    """Look at the built-in world, and measure how fast it streams."""
    from chiasm.terminal.world import world as run

    run(options or [], out if show else None, scenes)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="folder of a public checkpoint")],
    destination: Annotated[Path, typer.Argument(help="folder of the new Chiasm checkpoint")],
    layout: Annotated[
        Optional[str], typer.Option("--from", help="the family, where the files alone do not tell")  # noqa: UP045
    ] = None,
    tokenizer: Annotated[
        Optional[Path], typer.Option(help="folder of a text tokenizer, where the source has none")  # noqa: UP045
    ] = None,
    averaged: Annotated[
        bool,
        typer.Option(
            "--averaged",
            help="of a training checkpoint, the moving average of its weights (EMA), not the weights",
        ),
    ] = False,
    plugins: Plugins = None,
) -> None:
    """Turn an original project's checkpoint into one of Chiasm."""
    from chiasm.interop import import_checkpoint
    from chiasm.recipe import load_recipe

    import_checkpoint(source, destination, layout=layout, tokenizer=tokenizer, averaged=averaged)
    _say(load_recipe(destination / "recipe.yaml").about)
    _say(f"imported into {destination}; look at it: chiasm show {destination / 'recipe.yaml'}")


@app.command()
def families(plugins: Plugins = None) -> None:
    """List the public checkpoints that `chiasm import` knows."""
    from chiasm.terminal.families import table

    table()


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="folder of a Chiasm checkpoint")],
    destination: Annotated[Path, typer.Argument(help="folder of the new public checkpoint")],
    to: Annotated[Optional[str], typer.Option(help="the family; default: the one it came from")] = None,  # noqa: UP045
    plugins: Plugins = None,
) -> None:
    """Turn a Chiasm checkpoint into an original project's layout."""
    from chiasm.interop import export_checkpoint

    export_checkpoint(source, destination, to)
    _say(f"exported into {destination}")


@app.command()
def merge(
    folder: Folder,
    destination: Annotated[Path, typer.Argument(help="folder of the new checkpoint")],
    plugins: Plugins = None,
) -> None:
    """Add the low-rank updates of a run (routing: lora) to its weights: a model that can be exported."""
    from chiasm.interop.merging import merge_checkpoint

    merge_checkpoint(folder, destination)
    _say(f"merged into {destination}; in another layout: chiasm export {destination} OUT")


@app.command()
def upgrade(
    place: Annotated[
        Path, typer.Argument(help="a run, a checkpoint, or a recipe's YAML file", metavar="FOLDER_OR_RECIPE")
    ],
    plugins: Plugins = None,
) -> None:
    """Bring what an earlier Chiasm wrote up to date: recipes, and the names of tensors."""
    from chiasm.terminal.upgrade import upgrade as run

    for line in run(place) or ["nothing to change: all of it is of today's form"]:
        _say(line)


@app.command()
def verify(
    cases: Annotated[list[Path], typer.Argument(help="parity cases or folders of them", metavar="CASE...")],
    as_json: Annotated[bool, typer.Option("--json", help="print data")] = False,
    plugins: Plugins = None,
) -> None:
    """Replay recorded runs of the originals with Chiasm's parts and compare every output."""
    from chiasm.terminal.verify import run

    if not run(cases, as_json=as_json):
        raise typer.Exit(1)


@tokenizer_app.command("report")
def tokenizer_report(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="runs, checkpoints, or recipes trained into runs/NAME", metavar="RUN_OR_RECIPE..."
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("tokenizers"),
    pictures: Annotated[int, typer.Option(min=1, help="held-out images, or clips, of each")] = 256,
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="run or recipe whose held-out images all are measured on; else each its own"),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Measure rate and distortion of image tokenizers on held-out pictures: table, plot, reconstructions."""
    from chiasm.terminal.tokenizer import report

    report(runs, out, count=pictures, data=data, device=device, dtype=dtype)


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


def main() -> None:
    """Run the command line; errors of the user's making are printed without a traceback."""
    import os
    import warnings

    from chiasm.errors import ChiasmError

    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(?!chiasm\b)")
    try:
        if code := app(standalone_mode=False):  # of typer.Exit, which is not raised but returned
            sys.exit(code)
    except ChiasmError as error:
        _fail(error)
    except BrokenPipeError:  # as in `chiasm recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {(error.strerror or type(error).__name__).lower()}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # click's own errors (usage, missing arguments) know how to show themselves
        display = getattr(error, "show", None)
        if display is None:
            raise
        display()
        sys.exit(getattr(error, "exit_code", 2))


@contextmanager
def _starting() -> Iterator[None]:
    """What is imported and loaded here stays, so nothing in it is searched for garbage, now or later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _say(text: str) -> None:
    from chiasm.terminal.console import say

    say(text)


def _fail(error: object) -> None:
    from chiasm.terminal.console import fail

    fail(error)
    sys.exit(1)


if __name__ == "__main__":
    main()
