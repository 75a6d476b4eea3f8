"""What all tests share: one thread, a cache of their own, no network, no luck, and one tiny model."""

import os
import random
from collections import Counter
from copy import deepcopy

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # beside a card too, what is tested is the CPU

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from tiny_recipe import TINY

# The same examples in every run; `--hypothesis-profile=random` tries others.
quiet = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", quiet, derandomize=True)
settings.register_profile("random", quiet, max_examples=1000)


def pytest_addoption(parser):
    parser.addoption(
        "--plugin", action="append", default=[], help="a file of parts that the contract tests try too"
    )


def pytest_configure(config):
    """Before the tests are collected, which are one for each part."""
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("same")
        # It draws constants of the modules loaded so far as well, which depend on the tests that ran before.
        providers._get_local_constants = providers.Constants
    if config.getoption("--plugin"):
        from chiasm import use

        use(*config.getoption("--plugin"))


def pytest_collection_modifyitems(items):
    """Files with slow tests go first: with a process a core, none of them is begun when the others are done."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def _same_numbers():
    """What is drawn without a seed of its own depends on nothing that ran before."""
    random.seed(0)
    np.random.seed(0)
    # There is no other generator; `torch.manual_seed` notes where it was called from.
    torch.default_generator.manual_seed(0)


def pytest_collectstart(collector):
    _same_numbers()


def pytest_fixture_setup(fixturedef):
    if fixturedef.scope != "function":
        _same_numbers()


@pytest.fixture(autouse=True)
def _same_numbers_for_each_test():
    _same_numbers()


@pytest.fixture(autouse=True, scope="session")
def _quiet_machine(tmp_path_factory):
    """One cache for all processes of the suite: SmolLM2 is dequantized once."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    os.environ["CHIASM_CACHE"] = str(shared / "cache")


@pytest.fixture
def nothing_left_behind():
    """What a test defines, or loads as a plugin, is registered for the process: it is forgotten after the test."""
    from chiasm.parts import plugins
    from chiasm.parts.registry import Registry

    before = {kind: set(each._definitions) for kind, each in Registry.kinds.items()}
    loaded, texts = dict(plugins._loaded), dict(plugins._texts)
    yield
    for kind, each in Registry.kinds.items():
        for name, definition in list(each._definitions.items()):
            if name not in before.get(kind, ()) and not definition.__module__.startswith("chiasm."):
                del each._definitions[name]
    for current, former in ((plugins._loaded, loaded), (plugins._texts, texts)):
        current.clear()
        current.update(former)


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
