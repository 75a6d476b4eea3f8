"""The one train function: all stages of a recipe in order, from wherever a run stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from rich.console import Console

from chiasm import parts
from chiasm.data import Media, Source
from chiasm.data.corpus import corpus
from chiasm.distribution.devices import choose_device, choose_dtype
from chiasm.distribution.processes import Ranks
from chiasm.errors import CheckpointError, ChiasmError, RecipeError, check_flag, check_path, quoted
from chiasm.evaluation.tasks import check as check_evaluation
from chiasm.model import Model
from chiasm.model.checkpoint import load_model, save_model
from chiasm.model.start import begin, keep_origin
from chiasm.recipe import Recipe, check_sampling, load_recipe
from chiasm.recipe.checkpoints import training_checkpoints
from chiasm.storage.folders import full_disk
from chiasm.terminal.console import console as standard_console
from chiasm.training.feed import MOST_WORKERS
from chiasm.training.loop import Interrupted, Training
from chiasm.training.metrics import Metrics
from chiasm.training.optimiser import check_slots
from chiasm.training.position import Position
from chiasm.training.run import Run, command
from chiasm.training.state import Saved, last_checkpoint
from chiasm.training.usable import lines, skipped, unusable

CHECKED = 8  # groups of held-out data whose images are opened before training


def train(
    recipe: Recipe | str | Path,
    folder: str | Path | None = None,
    *,
    console: Console | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    other_data: bool = False,
    workers: int | None = None,
    more_follows: bool = False,
) -> Path:
    """Train a model and return the folder of the run, for `chiasm.load` and `chiasm eval`.

    A run that was stopped, or killed, goes on from its last checkpoint, bit for bit as if nothing had
    happened; one that is finished is left as it is.

    Args:
        recipe: what to train; a path or the name of a recipe that comes with Chiasm will do.
        folder: of the run; by default `runs/` and the recipe's name.
        console: where progress is shown.
        device: see `chiasm.distribution.devices`; by default the fastest, one for each process of a machine.
        dtype: fp32 or bf16, for all stages, instead of their `precision`.
        other_data: go on although the data has changed since the run began.
        workers: processes that make batches ahead; by default none on a CPU, else one for each core but one. The
            batches are the same.
        more_follows: the caller has more to do with the run, so that a stop in its very last step is raised too.

    Raises:
        RecipeError: when the folder holds a run of another recipe, or on other data.
        CheckpointError: when a checkpoint cannot be written or read; the last good one stays.
        Interrupted: after Ctrl-C or SIGTERM, when all is saved; in the very last step only where more follows.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_flag("other_data", other_data)
    check_stages_teach(recipe)
    check_sampling(recipe)
    recipe = _computing_in(dtype, recipe)
    if workers is not None and not (type(workers) is int and 0 <= workers <= MOST_WORKERS):
        raise ChiasmError(
            f"workers must be a number of processes, 0 to {MOST_WORKERS}, not {quoted(workers)}"
        )
    folder = (
        check_path("folder", folder, CheckpointError) if folder is not None else Path("runs") / recipe.name
    )
    ranks = Ranks.start(choose_device(device))
    console = console or standard_console()
    if not ranks.first:
        console = Console(quiet=True)
    try:
        stopped = _run(recipe, folder, ranks, console, other_data, workers)
    except OSError as error:
        raise CheckpointError(_failure(folder, error)) from error
    if more_follows and stopped is not None:
        raise stopped
    return folder


def _run(
    recipe: Recipe, folder: Path, ranks: Ranks, console: Console, other_data: bool, workers: int | None
) -> Interrupted | None:
    """The stop that came in the very last step, where one did."""
    with Run(folder, recipe, ranks) as run:

        def say(sentence: str) -> None:
            console.print(sentence, highlight=False, soft_wrap=True)

        sources = build_sources(recipe)
        data = {name: identity(source) for name, source in sources.items()}
        held_out = check_held_out(recipe)
        run.check_data(data, held_out, other_data)
        if run.finished(say):
            run.measured_on(held_out)
            say(f"{folder} is a finished run of this recipe")
            return None
        try:
            return _train(run, sources, data, held_out, console, say, workers)
        except KeyboardInterrupt:
            saved, then = (
                (f"what the last checkpoint in {folder} holds is saved", "go on")
                if training_checkpoints(folder)
                else (f"nothing is saved yet in {folder}", "begin it again")
            )
            raise Interrupted(
                f"stopped; {saved}. To {then}, give the same command again:\n  {command()}"
            ) from None


def _failure(folder: Path, error: OSError) -> str:
    """What could not be read or written, in a sentence."""
    where = error.filename or folder
    intact = f"what the last checkpoint in {folder} holds is intact: " if training_checkpoints(folder) else ""
    return full_disk(folder, error) or (
        f"{where}: {(error.strerror or type(error).__name__).lower()}; {intact}put this right and start again "
        "with the same command"
    )


def _computing_in(dtype: str | torch.dtype | None, recipe: Recipe) -> Recipe:
    """The recipe with all stages in one precision; what is learnt stays in fp32."""
    chosen = choose_dtype(dtype)
    if chosen is None:
        return recipe
    precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(chosen)
    if precision is None:
        raise ChiasmError(f"dtype: training computes in fp32 or bf16, not in {dtype}")
    stages = tuple(stage.model_copy(update={"precision": precision}) for stage in recipe.stages)
    return recipe.model_copy(update={"stages": stages})


def _train(
    run: Run,
    sources: Mapping[str, Source],
    data: dict[str, str],
    held_out: dict[str, str],
    console: Console,
    say: Callable[[str], None],
    workers: int | None,
) -> Interrupted | None:
    """As `_run`."""
    recipe, ranks, folder = run.recipe, run.ranks, run.folder
    device = ranks.device
    saved = last_checkpoint(folder, recipe, ranks, say)
    if saved is not None:
        model, position = load_model(saved.folder, device), saved.position
        where = f"step {position.step} of stage {recipe.stages[position.stage].name!r}"
        say(f"going on behind {where} in {folder}")
    else:
        model, afresh = _begin(recipe)
        model, position = model.to(device), Position()
    model.sampling = recipe.sampling
    began = run.began  # a collective call
    if model.speaks:
        model.language.tokenizer.date(began)
    for stage in recipe.stages:
        check_slots(model, stage)
    if saved is None:
        position.left_out = unusable(recipe, model, sources, ranks)
    position.data = data
    run.started(data, held_out, device)
    if saved is None and recipe.start is not None:
        run.note(begun_afresh=afresh)
        if afresh:
            say(f"{recipe.start.folder} has no weights for {', '.join(afresh)}, which begin afresh")
    with Metrics(folder, position.metrics, position.total, active=ranks.first) as metrics:
        training = Training(
            recipe, folder, model, sources, ranks, device, console, metrics, position, workers
        )
        training.skipped = skipped(sources, *position.left_out.values())
        _say_skipped(training)
        try:
            _run_stages(training, saved)
        finally:
            if training.skips:
                run.note(skipped={name: dict(kinds) for name, kinds in training.skipped.items()})
        _say_skipped(training)
    if ranks.first:
        save_model(model.eval(), recipe, folder / "final")
        if recipe.start is not None:
            keep_origin(model, recipe.start, folder / "final")
    ranks.wait()
    run.ended()
    return training.stopped


def _say_skipped(training: Training) -> None:
    for line in lines(training.sources, training.skipped):
        training.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _run_stages(training: Training, saved: Saved | None) -> None:
    position, stages = training.position, training.recipe.stages
    while position.stage < len(stages):
        if position.step < stages[position.stage].steps:
            training.run_stage(saved)
        position.next_stage()
        saved = None


def check_stages_teach(recipe: Recipe) -> None:
    """Raise RecipeError for a recipe without stages, and for a stage without data or anything to train."""
    if not recipe.stages:
        raise RecipeError(f"recipe {recipe.name!r} has no stages, so there is nothing to train")
    for stage in recipe.stages:
        if not any(stage.data.values()):
            raise RecipeError(f"stage {stage.name!r} has no data; name a source and its share above 0")
        if not any(stage.train.values()):
            raise RecipeError(
                f"stage {stage.name!r} trains nothing; name a slot and its learning rate above 0"
            )


def build_sources(recipe: Recipe) -> dict[str, Source]:
    """The data sources that the recipe's stages use, by name; raises RecipeError where they teach nothing."""
    check_stages_teach(recipe)
    used = dict.fromkeys(name for stage in recipe.stages for name in stage.data)
    return {name: parts.build("data", recipe.data[name], where=f"data.{name}") for name in used}


def check_held_out(recipe: Recipe) -> dict[str, str]:
    """Read the data that the run will be measured on, so that an error in it comes before training.

    All records are read, and the images of the first groups are opened. Returns the sources' identities.
    """
    check_evaluation(recipe.evaluation)
    identities = {}
    for name in recipe.evaluation.sources:
        source = parts.build("data", recipe.data[name], where=f"data.{name}")
        identities[name] = identity(source)
        for index in range(min(CHECKED, len(source)) if source.broken == "error" else 0):
            for sample in source[index]:
                for item in (item for message in sample.messages for item in message.content):
                    if isinstance(item, Media):
                        item.open()
    return identities


def identity(source: Source) -> str:
    """A hash of a source's own fingerprint, and of the name and size of each image's file."""
    files = sorted(
        {(path.name, path.stat().st_size if path.exists() else -1) for path in source.image_files()}
    )
    if not files:
        return source.fingerprint
    return hashlib.blake2b(repr((source.fingerprint, files)).encode(), digest_size=16).hexdigest()


def build_model(recipe: Recipe) -> Model:
    """The recipe's model before any training; a text tokenizer without a file is trained on its data."""
    return _begin(recipe)[0]


def _begin(recipe: Recipe) -> tuple[Model, list[str]]:
    """The model before any training, and the slots for which the checkpoint that it starts from has no weights."""
    model = Model(recipe.model, texts=corpus(recipe), seed=recipe.seed)
    return model, [] if recipe.start is None else begin(model, recipe.start)


__all__ = ["Interrupted", "build_model", "build_sources", "train"]
