"""A model trained with low-rank updates as one without them: the same function, fewer parts."""

from __future__ import annotations

from pathlib import Path

from chiasm import parts
from chiasm.errors import CheckpointError
from chiasm.model.checkpoint import load_model, write_model
from chiasm.model.start import keep_origin
from chiasm.recipe import load_recipe
from chiasm.recipe.checkpoints import find_checkpoint
from chiasm.storage.folders import whole_folder
from chiasm.storage.integrity import seal


def merge_checkpoint(folder: str | Path, destination: str | Path) -> Path:
    """Write a checkpoint in which the updates of `routing: lora` are added to the weights; returns its folder.

    It can be exported in the layout that its `start` was imported from. Raises CheckpointError for a model of
    another routing, whose updates depend on the token.
    """
    place = find_checkpoint(folder)
    model, recipe = load_model(place, "cpu"), load_recipe(place / "recipe.yaml")
    if model.routing is None or not model.routing.merges:
        name = model.spec.get("routing", {}).get("type")
        raise CheckpointError(
            f"{folder} has the routing {name!r}; only 'lora' can be merged into the weights"
        )
    model.routing.merge()
    model.routing = parts.build("routing", {"type": "shared"}, model.language)
    model.spec["routing"] = model.routing.spec
    merged = recipe.model_copy(
        update={"model": {**recipe.model, "routing": model.routing.spec}, "stages": (), "start": None}
    )
    with whole_folder(Path(destination)) as draft:
        write_model(model, merged, draft)
        if recipe.start is not None:
            keep_origin(model, recipe.start, draft)
        seal(draft)
    return Path(destination)
