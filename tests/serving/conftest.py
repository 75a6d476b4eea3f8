"""One server for all tests of this room, of a model that draws when it is asked to."""

from copy import deepcopy

import openai
import pytest
import torch

from chiasm.serving.app import create_app
from clients import KEY, LIMITS
from served import served


@pytest.fixture(scope="package")
def model():
    """With larger weights, so that answers depend on questions, and one that draws when it is asked to."""
    from chiasm.data.corpus import corpus
    from chiasm.model import Model
    from chiasm.recipe import load_recipe
    from tiny_recipe import TINY

    recipe = load_recipe(deepcopy(TINY))
    torch.manual_seed(0)
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    model.sampling = recipe.sampling
    with torch.no_grad():
        for parameter in (*model.language.parameters(), *model.image_head.parameters()):
            if parameter.ndim > 1:
                parameter.mul_(4)
    logits = model.language.logits
    bias = torch.full((1,), 5.0)
    model.language.logits = lambda hidden: logits(hidden).index_add(
        -1, torch.tensor([model.language.tokenizer.draw]), bias.expand(*hidden.shape[:-1], 1)
    )
    return model


@pytest.fixture(scope="package")
def address(model):
    with served(create_app({"tiny": model}, key=KEY, limits=LIMITS)) as place:
        yield place


@pytest.fixture
def client(address):
    return openai.OpenAI(base_url="http://{}:{}/v1".format(*address), api_key=KEY, max_retries=0)
