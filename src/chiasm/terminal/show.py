"""`chiasm show`: a recipe from end to end, without training it."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from rich.syntax import Syntax
from rich.table import Table

import chiasm
from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.data.documents import document, writes_picture
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Picture, Sample
from chiasm.evaluation.cost import flops
from chiasm.evaluation.cost import parameters as count_parameters
from chiasm.evaluation.tasks import check as check_evaluation
from chiasm.model import Model
from chiasm.recipe import Recipe, Stage, check_sampling
from chiasm.recipe.slots import MODALITIES
from chiasm.sequence import PADDING, Document, Kind, pack
from chiasm.storage.skeleton import ShapesAlone, without_weights
from chiasm.terminal.console import console, say
from chiasm.tokenizers.spaces import Codes
from chiasm.training.batches import DescribedBatches
from chiasm.training.optimiser import learning
from chiasm.training.pretraining import build_objective


def show(recipe: Recipe, *, whole: bool = False) -> None:
    """Print the shapes through every slot, the files of its parts, parameters, FLOPs and tokens of an image.

    whole: print the resolved recipe behind them.
    """
    check_evaluation(recipe.evaluation)
    check_sampling(recipe)
    with without_weights():
        _show(recipe, whole)


def _show(recipe: Recipe, whole: bool) -> None:
    out = console()
    model = Model(recipe.model, texts=corpus(recipe), seed=recipe.seed).eval()
    samples = _samples(recipe)
    out.print(_shapes(model, samples))
    out.print("", _parameters(model, recipe), sep="\n")
    if model.speaks:
        out.print("", _costs(model, samples), sep="\n")
    if not whole:
        say("\nthe whole recipe: the same command with --recipe")
    elif out.is_terminal:
        out.print(Syntax(recipe.to_yaml(), "yaml", background_color="default"))
    else:
        say(recipe.to_yaml())


def _samples(recipe: Recipe) -> list[Sample]:
    """A group of each data source that a stage trains on."""
    names = sorted({name for stage in recipe.stages for name in stage.data})
    return [s for name in names for s in parts.build("data", recipe.data[name], where=f"data.{name}")[0]]


def _shapes(model: Model, samples: list[Sample]) -> Table:
    rows = Table("slot", "part", "makes", "code", title="through every slot", title_justify="left", box=None)
    image = next((i for s in samples for m in s.messages for i in m.content if isinstance(i, Picture)), None)
    views = model.contract.read_views(image.size, "the first image") if image and model.encoder else []
    for slot, part in model.slots().items():
        rows.add_row(slot, part.name, _output(model, slot, image, views), _code(type(part)))
    return rows


def _code(part: type) -> str:
    """The file and line of a part, from the package's folder on."""
    file = Path(inspect.getfile(part))
    package = Path(chiasm.__file__).parent.parent
    place = file.relative_to(package) if file.is_relative_to(package) else file
    return f"{place}:{inspect.getsourcelines(part)[1]}"


def _output(model: Model, slot: str, image: Picture | None, views: list) -> str:  # type: ignore[type-arg]
    if slot == "views" and image is not None:
        sizes = ", ".join(f"{view.size.height} x {view.size.width}" for view, _ in views)
        return f"image {image.size.height} x {image.size.width} → {len(views)} view(s): {sizes}"
    if slot == "encoder" and views and model.encoder is not None:
        rows, columns = model.encoder.grid(*views[0][0].size)
        return f"grid {rows} x {columns} of width {model.encoder.width}"
    if slot == "connector" and views:
        return f"{sum(tokens for _, tokens in views)} visual tokens of width {model.language.width}"
    if slot == "language":
        language = model.language
        return f"width {language.width}, {len(language.tokenizer):,} tokens, context {language.context:,}"
    if slot == "image_tokenizer" and model.image_tokenizer is not None:
        tokenizer = model.image_tokenizer
        space, (rows, columns) = tokenizer.space, tokenizer.grid
        what = f"{space.size:,} codes" if isinstance(space, Codes) else f"vectors of width {space.width}"
        return f"{tokenizer.size} x {tokenizer.size} pixels ↔ {rows} x {columns} of {what}"
    if slot == "heads.image" and model.contract.span is not None:
        return f"{model.contract.span.length} positions an image"
    if slot == "heads.mask" and model.mask_head is not None:
        return f"{model.mask_head.positions} positions a question"
    if slot.startswith(f"{MODALITIES}."):
        signals = model.contract.signals[slot.removeprefix(f"{MODALITIES}.")]
        return f"{' x '.join(map(str, signals.shape))} numbers in {signals.positions} positions"
    return ""


def _parameters(model: Model, recipe: Recipe) -> Table:
    counted = count_parameters(model, recipe)
    stages = [stage.name for stage in recipe.stages]
    rows = Table(
        "slot", "parameters", *stages, title="parameters and learning rates", title_justify="left", box=None
    )
    for slot, number in counted["by_slot"].items():
        rates = [f"{stage.train[slot]:g}" if slot in stage.train else "frozen" for stage in recipe.stages]
        rows.add_row(slot, f"{number:,}", *rates)
    rows.add_row("all", f"{counted['total']:,}", style="bold")
    for stage in recipe.stages:
        if stage.objective is not None:
            learnt = f"{_own_parameters(model, recipe, stage):,}"
            rates = [
                f"{stage.train.get('objective', 0):g}" if each is stage else "" for each in recipe.stages
            ]
            rows.add_row(f"objective {stage.objective['type']}", learnt, *rates)
    return rows


def _own_parameters(model: Model, recipe: Recipe, stage: Stage) -> int:
    """How many weights of its own an objective learns."""
    sources = {name: parts.build("data", recipe.data[name], where=f"data.{name}") for name in stage.data}
    batches = DescribedBatches(model.contract, sources, stage, seed=recipe.seed)
    objective = build_objective(model, stage, batches, recipe.seed)
    return sum(parameter.numel() for parameter in learning(objective).values())


def _costs(model: Model, samples: list[Sample]) -> Table:
    rows = Table(
        "a document",
        "positions",
        "text",
        "read",
        "written",
        "forward",
        title="cost",
        title_justify="left",
        box=None,
    )
    tasks: set[str] = set()
    for sample in samples:
        task = str(sample.truth.get("task", "sample"))
        if task in tasks or (writes_picture(sample) and not model.draws):
            continue
        tasks.add(task)
        sequence = document(model.contract, sample)
        kinds = [sum(kind == each for kind in sequence.kinds) for each in Kind]
        rows.add_row(
            task, str(len(sequence)), *map(str, kinds), f"{_forward(model, sequence) / 1e9:.2f} GFLOP"
        )
    return rows


def _forward(model: Model, sequence: Document) -> int:
    batch, slots = pack([[sequence]])
    batch = PictureReader(model.contract).attach(batch, slots)
    assert int((batch.documents == PADDING).sum()) == 0
    with torch.no_grad(), ShapesAlone():
        return flops(lambda: model.losses(batch))
