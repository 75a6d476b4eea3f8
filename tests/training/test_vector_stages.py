"""Stages whose image head learns vectors: from the cache, and going on where they were stopped."""

import copy

import pytest
import torch
from rich.console import Console
from toy import Squares, raw

from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.recipe import load_recipe
from chiasm.storage.cache import default_folder
from chiasm.training import train
from chiasm.training.batches import DocumentBatches
from chiasm.training.metrics import Metrics
from chiasm.training.prepare import prepared
from chiasm.training.train import build_model

QUIET = Console(quiet=True)


def recipe(head, steps=6):
    changed = copy.deepcopy(raw())
    changed["model"] |= {
        "image_tokenizer": {"type": "pixels", "size": 16, "patch_size": 8},
        "heads": {"image": head},
    }
    changed["stages"] = [stage | {"steps": steps, "schedule": "constant"} for stage in changed["stages"][1:]]
    return load_recipe(changed)


def test_cached_vectors_are_those_of_the_pixels():
    made = recipe({"type": "raster", "alphabet": {"type": "regression"}})
    model, stage, sources = build_model(made), made.stages[0], {"squares": Squares()}
    model.train_only(stage.train)
    cached = prepared(model, sources, stage, seed=0, ranks=Ranks(), bf16=False, console=QUIET)
    assert list((default_folder() / "codes").iterdir())
    batches = [
        DocumentBatches(model.contract, sources, stage, seed=0, reader=reader).next()
        for reader in (cached, PictureReader(model.contract))
    ]
    assert [batch.written.image.encoded for batch in batches] == [True, False]
    assert batches[0].written.image.targets.is_floating_point()
    torch.testing.assert_close(*(model.targets(batch.written.image) for batch in batches))


@pytest.mark.parametrize("order", ["raster", "masked", "whole"])
def test_stopped_and_taken_up_again_it_ends_bit_for_bit_as_if_it_never_was(order, tmp_path, monkeypatch):
    """Noise and times go on where they were."""
    made = recipe({"type": order, "alphabet": {"type": "flow", "depth": 1, "hidden": 8}})
    whole = train(made, tmp_path / "whole", console=QUIET, device="cpu")
    write = Metrics.write

    def fail(self, step, line):
        if step == 5:  # two steps behind the last checkpoint
            raise ZeroDivisionError
        write(self, step, line)

    with monkeypatch.context() as patched:
        patched.setattr(Metrics, "write", fail)
        with pytest.raises(ZeroDivisionError):
            train(made, tmp_path / "stopped", console=QUIET, device="cpu")
    again = train(made, tmp_path / "stopped", console=QUIET, device="cpu")
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (whole, again)]
    assert weights[0] == weights[1]
