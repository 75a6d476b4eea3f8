"""Commands that have a model answer: in words, in images, to others over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from chiasm.cli.arguments import Device, Dtype, Folder, Plugins, Seed
from chiasm.cli.support import loaded, say, starting
from chiasm.terminal import completion

Guidance = Annotated[Optional[float], typer.Option(help="classifier-free guidance; 1 = none")]  # noqa: UP045
Temperature = Annotated[Optional[float], typer.Option(help="0 = greedy")]  # noqa: UP045
TopK = Annotated[Optional[int], typer.Option(help="codes to choose from at each place; 0 = all")]  # noqa: UP045
Signals = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--signal", help="MODALITY=FILE.npy: a signal that is read first; may be given again"),
]
TopP = Annotated[Optional[float], typer.Option(help="the likeliest codes whose chances reach this; 1 = all")]  # noqa: UP045
Negative = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="words that guidance leads away from; default: no words at all"),
]


def chat(
    folder: Folder,
    message: Annotated[Optional[str], typer.Option("-m", "--message", help="ask once and leave")] = None,  # noqa: UP045
    picture: Annotated[list[Path] | None, typer.Option("-p", "--picture", help="read an image first")] = None,
    signals: Signals = None,
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
    with starting():
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
        signals=signals or [],
        save=save,
        seed=seed,
        device=device,
        dtype=dtype,
        sampling=sampling,
        zoom=zoom,
        tools=tools,
    )


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
    negative: Negative = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Draw pictures from words."""
    from chiasm.terminal.pictures import save_picture, words_of

    model = loaded(folder, device, dtype, into=out)
    sampling = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    pictures = model.generate(
        prompts, count=count, seed=seed, verbatim=verbatim, negative=negative, **sampling
    )
    for i, picture in enumerate(pictures):
        say(f"{save_picture(picture, out)}  {prompts[i // count]}{words_of(picture)}")


def synthesise(
    folder: Folder,
    modality: Annotated[
        str, typer.Argument(help="of the signal, by its name in the recipe", metavar="MODALITY")
    ],
    prompt: Annotated[str, typer.Argument(help="what is asked")],
    picture: Annotated[list[Path] | None, typer.Option("-p", "--picture", help="read an image first")] = None,
    signals: Signals = None,
    out: Annotated[Path, typer.Option(help="folder for the files")] = Path("drawn"),
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Answer with a signal of a modality beside text and images, into a file of its numbers (.npy)."""
    with starting():
        from chiasm.terminal.questions import question
        from chiasm.terminal.signals import save_signal, signal_items

    messages = question(prompt, picture or [], signal_items(signals or []))
    model = loaded(folder, device, dtype, into=out)
    say(str(save_signal(model.synthesise(modality, messages, seed=seed), modality, out)))


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
    negative: Negative = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    plugins: Plugins = None,
) -> None:
    """Draw a part of a picture anew, under a mask, or all of it after an instruction."""
    from chiasm.terminal.pictures import save_picture, words_of

    model = loaded(folder, device, dtype, into=out)
    sampling = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    for each in model.edit(picture, prompt, mask=mask, count=count, seed=seed, negative=negative, **sampling):
        say(f"{save_picture(each, out)}{words_of(each)}")


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
    from chiasm.terminal.pictures import save_picture

    model = loaded(folder, device, dtype, into=out)
    for picture in model.complete(
        pictures, count=count, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    ):
        say(str(save_picture(picture, out)))


def serve(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="runs or checkpoints; NAME=FOLDER gives one a name",
            metavar="FOLDER...",
            autocompletion=completion.served_folders,
        ),
    ],
    host: Annotated[str, typer.Option(help="0.0.0.0 = reachable from other machines")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    pending: Annotated[int, typer.Option(min=1, help="requests of a model under way or waiting")] = 64,
    body: Annotated[int, typer.Option(min=1, help="most MiB of a request")] = 32,
    images: Annotated[int, typer.Option(min=0, help="most images of a request")] = 16,
    pixels: Annotated[int, typer.Option(min=1, help="most megapixels of all images of a request")] = 64,
    prefixes: Annotated[
        int,
        typer.Option(min=0, help="positions kept of what a model has read, for requests that begin alike"),
    ] = 8192,
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
    with starting():
        from chiasm.terminal.serve import serve as run

    limits = {"pending": pending, "body": body << 20, "images": images, "pixels": pixels << 20}
    run(folders, host, port, **limits, prefixes=prefixes, hosts=hosts or (), device=device, dtype=dtype)
