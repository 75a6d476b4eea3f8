"""Images of every order in one engine: beside others, and stopped within an image."""

from contextlib import suppress
from copy import deepcopy

import pytest
import torch

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.data.documents import document, draw_prompt
from chiasm.data.sample import Message, Sample
from chiasm.heads import Sampling
from chiasm.inference.answers import Answers
from chiasm.inference.conversation import Conversation
from chiasm.inference.drawing import Drawing
from chiasm.inference.engine import Engine
from chiasm.inference.options import sampling_of
from chiasm.model import Model
from chiasm.nn.generators import Generators
from chiasm.recipe import load_recipe
from chiasm.sequence import Kind
from tiny_recipe import TINY

SCALES = {"type": "multi_scale", "scales": [1, 2, 4], "width": 32, "multipliers": [1, 1, 1, 1], "depth": 1,
          "convolutions": 0, "code_width": 8, "codebook_size": 16}  # fmt: skip
LLAMAGEN = {"type": "llamagen", "width": 32, "depth": 2, "heads": 4, "hidden": 48, "context": 256,
            "vocabulary": 400, "turn_words": True}  # fmt: skip
VAR = {"type": "var", "width": 32, "depth": 2, "heads": 4, "vocabulary": 400}
STOPS = (3, 7, 12, 18, 25, 33, 42, 52)  # ever farther apart: what was noted is read again each time


def head(order, alphabet="own", **options):
    own = parts.lookup("alphabet", alphabet).example()
    return {"heads": {"image": {"type": order, "alphabet": {"type": alphabet, **own}, **options}}}


MODELS = {
    "raster": head("raster"),
    "masked": head("masked", steps=4),
    "scales": {**head("scales"), "image_tokenizer": SCALES},
    "factorised": head("raster", "factorised"),
    "shared": head("raster", "shared", cells=False),
    "masked shared": head("masked", "shared", cells=False, steps=4),
    "masked factorised": head("masked", "factorised", steps=4),
    "variable": {**head("variable", "shared"), **parts.lookup("order", "variable").example_neighbours()},
    "llamagen": {**head("raster", cells=False), "language": LLAMAGEN},
    "var": {**head("scales"), "image_tokenizer": SCALES, "language": VAR},
}


@pytest.fixture(scope="module", params=MODELS)
def made(request):
    """A model, and what each of the requests gets alone."""
    raw = deepcopy(TINY)
    raw["model"] |= MODELS[request.param]
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*model.language.parameters(), *model.image_head.parameters()):
            if parameter.ndim > 1:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator) * 2 * parameter.shape[-1] ** -0.5
                )
    return model, [outcome(Engine(model).submit(each)) for each in requests(model)]


def prompts(model, *texts):
    return [Sample(text, (Message("user", (text,)),)) for text in texts]


def drawing(model, sampling, *texts):
    documents = [draw_prompt(model.contract, sample) for sample in prompts(model, *texts)]
    return Drawing(model, documents, sampling, Generators(range(len(texts))))


def conversation(model, text, marker_at):
    """One that draws behind some words."""
    asked = document(model.contract, prompts(model, text)[0], prompt=True)
    request = Conversation(model, asked, sampling_of(model, tokens=9, guidance=2.0), seed=1)
    choose = request._choose
    spoken = 9 - marker_at
    draw, ends = model.language.tokenizer.draw, model.language.tokenizer.ends

    def chosen(states):
        id = choose(states)
        if request._remaining == spoken:
            return draw
        return 40 + id % 100 if id == draw or id in ends else id

    request._choose = chosen
    return request


def requests(model):
    guided, free = Sampling(guidance=2.0, temperature=0.0), Sampling(temperature=1.0, top_k=9)
    documents = [
        document(model.contract, sample, prompt=True) for sample in prompts(model, "a dog", "What is it?")
    ]
    return [
        drawing(model, guided, "a dog", "a cat at the top left"),
        conversation(model, "What can you draw?", marker_at=3),
        drawing(model, free, "a cat"),
        Answers(model, documents, tokens=12),
        conversation(model, "a", marker_at=1),
    ]


def outcome(handle):
    """What a request came to: the codes, the answers, or the words and images."""
    result = handle.result()
    if isinstance(handle.request, Conversation):
        return [each if isinstance(each, str) else each.tobytes() for each in handle.request.pieces]
    return result.tolist() if isinstance(result, torch.Tensor) else result


def test_beside_others_a_request_gets_what_it_gets_alone(made):
    model, expected = made
    assert any(isinstance(piece, bytes) for piece in expected[1])
    engine, handles = Engine(model), []
    for request in requests(model):
        handles.append(engine.submit(request))
        engine.tick()
        engine.tick()
    assert [outcome(handle) for handle in handles] == expected


def test_stopped_within_an_image_it_goes_on(made):
    (model, expected), passes, stopped = made, [], []

    def stop(_, inputs, __):
        passes.append(1)
        if len(passes) in STOPS:
            layout = inputs[1]
            stopped.append(bool((layout.of_queries(layout.kinds) == Kind.WRITTEN).any()))
            raise KeyboardInterrupt

    hook = model.language.register_forward_hook(stop)
    engine = Engine(model)
    handles = [engine.submit(request) for request in requests(model)]
    while engine._active or engine._waiting:
        with suppress(KeyboardInterrupt):
            engine.tick()
    hook.remove()
    assert any(stopped)
    assert [outcome(handle) for handle in handles] == expected
