"""What all tests share: one thread, a cache of their own, no network, and one tiny model that sees and draws."""

import gc
import os
import sys
from copy import deepcopy

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # beside a card too, what is tested is the CPU

import pytest
import torch

from tiny_recipe import TINY


@pytest.fixture(autouse=True, scope="session")
def _quiet_machine(tmp_path_factory):
    torch.set_num_threads(1)
    os.environ["CHIASM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _same_numbers():
    """What a test draws without a seed of its own depends on no other test."""
    torch.manual_seed(0)


@pytest.fixture
def nothing_left_behind():
    """A plugin registers for the process; here each test begins without."""
    from chiasm.evaluation import metrics

    registered, imported = dict(metrics._metrics), set(sys.modules)
    yield
    metrics._metrics.clear()
    metrics._metrics.update(registered)
    for name in set(sys.modules) - imported:
        if name.startswith("chiasm_plugin_"):
            del sys.modules[name]
    gc.collect()  # the subclasses of `Task` that a plugin defined


@pytest.fixture
def tiny() -> dict:
    """A raw recipe of a model that sees and draws, small enough for a test."""
    return deepcopy(TINY)


@pytest.fixture
def tiny_model(tiny):
    """The model of `tiny`, untrained, and its world."""
    from chiasm import parts
    from chiasm.data.corpus import corpus
    from chiasm.model import Model
    from chiasm.recipe import load_recipe

    recipe = load_recipe(tiny)
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    model.sampling = recipe.sampling
    return model, parts.build("data", recipe.data["world"])
