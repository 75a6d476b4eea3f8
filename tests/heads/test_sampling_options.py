"""Which options of sampling an image depends on: those that its head says, and no other."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from writing import Vocabulary

from chiasm.heads import DrawingState, HeadContext, Sampling, finish
from chiasm.heads.building import build_head
from chiasm.heads.sampling import OPTIONS
from chiasm.nn.generators import Generators
from chiasm.recipe.schema import OF_IMAGES
from chiasm.tokenizers.spaces import Codes, Vectors, WordIds

WIDTH, IMAGES = 16, 2
CODES, VECTORS = Codes((4, 4), 16), Vectors((4, 4), 5)
OWN = {"type": "own"}
SMALL = {"steps": 2, "depth": 1, "hidden": 8}
FACTORISED = {"type": "factorised", "bits": [1, 3], "depth": 1, "heads": 2, "hidden": 16}
NOISE = {"guidance", "temperature"}
CONDITIONS = {"type": "queries", "grid": [4, 4], "alphabet": {"type": "condition"}}
# A head, what it writes, and what its images depend on.
HEADS = {
    "codes one by one": ({"type": "raster", "alphabet": OWN}, CODES, set(OPTIONS)),
    "masked codes": ({"type": "masked", "steps": 3, "alphabet": OWN}, CODES, set(OPTIONS)),
    "codes of queries": ({"type": "queries", "alphabet": OWN}, CODES, set(OPTIONS)),
    "codes in parts": ({"type": "raster", "alphabet": FACTORISED}, CODES, set(OPTIONS)),
    "vectors": ({"type": "raster", "alphabet": {"type": "regression"}}, VECTORS, {"guidance"}),
    "masked vectors": ({"type": "masked", "alphabet": {"type": "regression"}}, VECTORS, {"guidance"}),
    "flow": ({"type": "raster", "alphabet": {"type": "flow", **SMALL}}, VECTORS, NOISE),
    "diffusion": ({"type": "raster", "alphabet": {"type": "diffusion", **SMALL}}, VECTORS, NOISE),
    "whole": ({"type": "whole", "alphabet": {"type": "flow", **SMALL}}, VECTORS, NOISE),
    "u_vit": ({"type": "u_vit", "alphabet": {"type": "regression"}, "width": 8, "depth": 1, "steps": 2},
              VECTORS, NOISE),
    "conditions": (CONDITIONS, Vectors((0, 0), 5), {"guidance"}),
    "words": ({"type": "caption", "alphabet": {"type": "words"}}, WordIds((1, 4), 16, end=15), {"guidance"}),
}  # fmt: skip
OTHERWISE = {"guidance": 3.0, "temperature": 0.0, "top_k": 1, "top_p": 1e-6}


def built(spec, space):
    decoder = SimpleNamespace(caption_words=0)
    head = build_head(spec, HeadContext(WIDTH, space, Vocabulary(WIDTH), decoder=decoder)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return head


def drawn(head, sampling):
    rows = IMAGES * (1 + (sampling.guidance != 1))
    start = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(2))
    state = DrawingState(Generators(range(IMAGES)))
    if head.space.content == "words":
        state.values = torch.zeros(IMAGES, 1, 4)  # are written before
    with torch.no_grad():
        ask = lambda ask: ask.embeddings + start[:, None].mean(-1, keepdim=True)  # noqa: E731
        return finish(head.write(start, sampling, Generators(range(IMAGES)), state), ask)


@pytest.mark.parametrize("name", HEADS)
def test_an_image_depends_on_the_options_that_its_head_says_and_on_no_other(name):
    spec, space, expected = HEADS[name]
    head = built(spec, space)
    named = head.sampled_with(type(head.alphabet))
    assert named == expected
    plain = drawn(head, Sampling())
    by_decoder = {"guidance"} if head.alphabet.conditions else set()  # which guides, between what is drawn
    for option in OTHERWISE.keys() - by_decoder:
        other = drawn(head, replace(Sampling(), **{option: OTHERWISE[option]}))
        assert torch.equal(plain, other) is (option not in named), option


def test_a_recipe_s_options_of_images_are_those_of_a_head():
    assert OF_IMAGES == OPTIONS


def test_a_drawing_has_no_values_until_the_first_draw_is_noted():
    generators = Generators([0])
    progress = DrawingState(generators)
    assert (progress.values, progress.steps, progress.retained) == (None, 0, None)
    first = generators.state()
    progress.note(torch.ones(1, 2), 1)
    assert (progress.values.tolist(), progress.steps) == ([[1.0, 1.0]], 1)
    assert str(progress.restored().state()) == str(first)
