"""Models that write vectors: generate, and answers in words and images."""

from copy import deepcopy

import pytest
import torch

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.data.documents import document
from chiasm.data.sample import Message, Sample
from chiasm.inference.conversation import Conversation
from chiasm.inference.engine import Engine
from chiasm.inference.options import sampling_of
from chiasm.model import Model
from chiasm.recipe import load_recipe
from tiny_recipe import TINY

PIXELS = {"type": "pixels", "size": 32, "patch_size": 8}
SMALL = {"type": "flow", "steps": 2, "depth": 1, "hidden": 8}
DECODER = {
    "type": "diffusion",
    **parts.lookup("image_decoder", "diffusion").example(),
    "conditioner": {"type": "vectors"},
}
MODELS = {
    "raster": ({"type": "raster", "alphabet": {"type": "regression"}}, {"image_tokenizer": PIXELS}),
    "masked": ({"type": "masked", "steps": 3, "alphabet": SMALL}, {"image_tokenizer": PIXELS}),
    "whole": ({"type": "whole", "alphabet": SMALL}, {"image_tokenizer": PIXELS}),
    "queries": ({"type": "queries", "alphabet": SMALL}, {"image_tokenizer": PIXELS}),
    "condition": (
        {"type": "queries", "grid": [1, 3], "alphabet": {"type": "condition"}},
        {"image_tokenizer": None, "image_decoder": DECODER},
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    head, neighbours = MODELS[request.param]
    raw = deepcopy(TINY)
    slots = raw["model"] | neighbours | {"heads": {"image": head}}
    raw["model"] = {slot: spec for slot, spec in slots.items() if spec is not None}
    raw["stages"] = raw["stages"][1:]
    recipe = load_recipe(raw)
    return Model(recipe.model, texts=corpus(recipe)).eval()


def test_an_image_depends_on_its_prompt_and_seed_alone(model):
    options = {"seed": [3, 4], "guidance": 1.5}
    both = model.generate(["Draw: a dog.", "Draw: a cat."], **options)
    alone = model.generate("Draw: a cat.", seed=4, guidance=1.5)
    assert both[0].size == (32, 32)
    one, other = (torch.tensor(list(image.tobytes())) for image in (both[1], alone[0]))
    assert (one - other).abs().max() <= 1  # a last bit may round the other way


def test_an_answer_holds_words_and_images_and_goes_on_behind_them(model):
    """Two images, each drawn where the marker is chosen, and words before, between and behind them."""
    sample = Sample("a question", (Message("user", ("What can you draw?",)),))
    asked = document(model.contract, sample, prompt=True)
    request = Conversation(model, asked, sampling_of(model, tokens=8, guidance=2.0), seed=1)
    choose, (draw, ends) = request._choose, (model.language.tokenizer.draw, model.language.tokenizer.ends)

    def chosen(states):
        id = choose(states)
        if request._remaining in (6, 3):
            return draw
        return 40 + id % 100 if id == draw or id in ends else id

    request._choose = chosen
    Engine(model).submit(request).result()
    kinds = [isinstance(piece, str) for piece in request.pieces]
    assert kinds.count(False) == 2
    assert kinds[-1]
