"""Negative prompts: what guidance leads away from, of every kind of head, in Python and on the command line."""

import sys
from copy import deepcopy

import pytest
import torch
from PIL import Image

from chiasm.cli import main
from chiasm.data.corpus import corpus
from chiasm.errors import ChiasmError
from chiasm.model import Model
from chiasm.recipe import load_recipe
from tiny_recipe import TINY

PIXELS = {"type": "pixels", "size": 32, "patch_size": 8}
SMALL = {"type": "flow", "steps": 2, "depth": 1, "hidden": 8}
DECODER = {
    "type": "diffusion",
    "size": 32,
    "denoiser": {"type": "dit", "width": 32, "depth": 1, "heads": 2, "patch_size": 8},
    "scheduler": {"type": "flow"},
    "steps": 2,
    "guidance": 1.0,  # its own, where it is handed none
}
TOKENS = DECODER | {"conditioner": {"type": "vectors"}}
WORDS = DECODER | {"conditioner": {"type": "words", "length": 24, "width": 16, "depth": 1, "heads": 2}}
MODELS = {
    "codes": ({"type": "raster", "alphabet": {"type": "own"}}, {}),
    "codes all at once": ({"type": "masked", "alphabet": {"type": "own"}, "steps": 3}, {}),
    "vectors": ({"type": "whole", "alphabet": SMALL}, {"image_tokenizer": PIXELS}),
    "conditions": (
        {"type": "queries", "grid": [1, 3], "alphabet": {"type": "condition"}},
        {"image_tokenizer": None, "image_decoder": TOKENS},
    ),
    "words": (
        {"type": "caption", "alphabet": {"type": "words"}},
        {"image_tokenizer": None, "image_decoder": WORDS},
    ),
}


def built(name):
    head, neighbours = MODELS[name]
    raw = deepcopy(TINY)
    slots = raw["model"] | neighbours | {"heads": {"image": head}}
    raw["model"] = {slot: spec for slot, spec in slots.items() if spec is not None}
    raw["stages"] = []
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    with torch.no_grad():
        for part in (model.language, model.image_head, model.image_decoder):
            for parameter in part.parameters():
                if (
                    parameter.ndim > 1
                ):  # so that prompts make a difference, and a zero layer begins at something
                    parameter.copy_(8 * parameter if parameter.any() else 0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return built(request.param)


def pixels(images):
    return torch.tensor([list(image.tobytes()) for image in images])


def drawn(model, prompt="Draw: a dog.", **options):
    return pixels(model.generate(prompt, count=2, seed=3, verbatim=model.follows_words, **options))


def test_led_away_from_its_own_prompt_an_image_is_that_without_guidance(model):
    """For any strength: without + guidance * (with - without) is the prompt's own where both are the same."""
    led = drawn(model, guidance=6.0, negative="Draw: a dog.")
    assert (led - drawn(model, guidance=1.0)).abs().max() <= 1  # a last bit may round the other way


def test_an_image_depends_on_what_it_is_led_away_from(model):
    images = [drawn(model, guidance=4.0, negative=each) for each in (None, "Draw: a cat.", "a red ball")]
    assert not any(torch.equal(images[a], images[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_beside_other_prompts_it_is_the_same(model):
    both = model.generate(
        ["Draw: a dog.", "a fish"], seed=[3, 9], guidance=4.0, negative="a cat", verbatim=model.follows_words
    )
    alone = model.generate(
        "Draw: a dog.", seed=3, guidance=4.0, negative="a cat", verbatim=model.follows_words
    )
    assert (pixels(both[:1]) - pixels(alone)).abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"negative": "a cat", "guidance": 1.0}, "at a guidance of 1 nothing leads away from it"),
        ({"negative": " ", "guidance": 2.0}, "it must be words that images shall be led away from, not ' '"),
        ({"negative": 3, "guidance": 2.0}, "it must be words that images shall be led away from, not 3"),
        ({"negative": "a cat " * 400, "guidance": 2.0}, "negative prompt"),
    ],
)
def test_what_nothing_leads_away_from_is_a_sentence(model, options, sentence):
    with pytest.raises(ChiasmError, match=sentence):
        drawn(model, **options)


def test_an_edit_reads_its_image_before_the_negative_prompt_too():
    model = built("codes")
    source, other = (Image.effect_mandelbrot((32, 32), box, 20) for box in ((-2, -1, 1, 1), (-1, -1, 0, 0)))

    def edited(image, **options):
        return pixels(model.edit(image, "make it red", seed=3, **options))

    plain = edited(source, guidance=1.0)
    assert torch.equal(edited(source, guidance=5.0, negative="make it red"), plain)
    assert not torch.equal(edited(source, guidance=5.0, negative="make it blue"), plain)
    assert not torch.equal(edited(other, guidance=1.0), plain)


def test_under_a_mask_no_image_is_read_before_it():
    model, source = built("codes"), Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 20)
    mask = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    options = {"mask": mask, "seed": 3, "guidance": 5.0}
    led = model.edit(source, "a dog", negative="a dog", **options)
    assert torch.equal(pixels(led), pixels(model.edit(source, "a dog", **options | {"guidance": 1.0})))


def test_the_command_line_takes_one(tmp_path, monkeypatch, capsys):
    model = built("codes")
    monkeypatch.setattr("chiasm.cli.answers.loaded", lambda *_, **__: model)
    command = ["chiasm", "generate", "run", "Draw: a dog.", "--seed", "3", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--guidance", "4", "--negative", "Draw: a cat."])
    main()
    (file,) = tmp_path.glob("*.png")
    expected = model.generate("Draw: a dog.", guidance=4.0, seed=3, negative="Draw: a cat.")
    assert torch.equal(pixels([Image.open(file)]), pixels(expected))
    monkeypatch.setattr(sys, "argv", [*command, "--guidance", "1", "--negative", "a cat"])
    with pytest.raises(SystemExit):
        main()
    assert "nothing leads away from it" in capsys.readouterr().err
