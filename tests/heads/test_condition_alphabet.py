"""Hidden states as what an image decoder is conditioned on, with the decoder's loss as the head's."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from chiasm.data.corpus import corpus
from chiasm.data.documents import document, draw_prompt
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.decoders import ImageDecoder
from chiasm.distribution.processes import Ranks
from chiasm.errors import RecipeError
from chiasm.heads import Sampling
from chiasm.inference.drawing import decode, draw
from chiasm.model import Model
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss, objective
from chiasm.parts import build
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from chiasm.tokenizers.spaces import Vectors
from chiasm.training.aims import DocumentsAim
from chiasm.training.optimiser import build_optimiser
from chiasm.training.step import TrainStep
from tiny_recipe import TINY

SIZE, WIDTH = 16, 12


@pytest.fixture
def raw(nothing_left_behind):
    """A recipe whose decoder, a linear map of the mean condition, is made for these tests."""

    class LinearDecoder(ImageDecoder, name="linear-map"):
        def __init__(self, context):
            super().__init__()
            self.size, self.space, self.guidances = SIZE, Vectors((0, 0), WIDTH), []
            self.out = nn.Linear(WIDTH, 3 * SIZE * SIZE)

        def image(self, target):
            return self.out(target.mean((1, 2))).view(-1, 3, SIZE, SIZE)

        def decode(self, target, *, generators=None, negative=None, guidance=None, source=None):
            self.guidances.append(guidance)
            without = 0 if negative is None else (1 - guidance) * self.image(negative)
            return without + (guidance or 1) * self.image(target)

        def losses(self, target, pixels, *, source=None):
            return {"diffusion": Loss.of((self.image(target) - pixels).square().mean((1, 2, 3)))}

    raw = deepcopy(TINY)
    del raw["model"]["image_tokenizer"]
    head = {"type": "queries", "grid": [1, 5], "alphabet": {"type": "condition"}}
    raw["model"] |= {"heads": {"image": head}, "image_decoder": {"type": "linear-map"}}
    raw["stages"] = raw["stages"][1:]
    return raw


@pytest.fixture
def made(raw):
    return built(raw)


def built(raw):
    recipe = load_recipe(raw)
    return recipe, Model(recipe.model, texts=corpus(recipe))


def batch_of(recipe, model):
    world = build("data", recipe.data["world"])
    rows = [[document(model.contract, sample)] for i in range(2) for sample in world[i]]
    batch, slots = pack(rows)
    assert any(slot.length == 5 for _, slot in slots)
    return PictureReader(model.contract).attach(batch, slots)


def test_the_loss_reaches_queries_and_language_and_leaves_the_frozen_decoder_untouched(made):
    recipe, model = made
    model.train_only(["language", "heads.image"])
    objective({"diffusion": model.losses(batch_of(recipe, model))["diffusion"]}).backward()
    for name, parameter in model.image_head.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert model.language.inner.model.layers[0].mlp.down_proj.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.image_decoder.parameters())


def test_the_decoder_learns_beside_the_language_model_where_the_stage_names_it(raw):
    raw["stages"][0]["train"] |= {"image_decoder": 1e-3}
    recipe, model = built(raw)
    stage = recipe.stages[0]
    model.train_only(stage.train)
    aim = DocumentsAim(model)
    before = model.image_decoder.out.weight.detach().clone()
    step = TrainStep(aim, build_optimiser(model, stage), stage, Ranks(), torch.device("cpu"))
    outcome = step([batch_of(recipe, model)])
    assert set(outcome.losses) == {"text", "diffusion"} == aim.names - set(model.routing.names)
    assert not torch.equal(before, model.image_decoder.out.weight)


def test_images_follow_the_prompt_and_guidance_leads_away_from_the_empty_one(made):
    _, model = made
    model.eval()
    sample = Sample("a", (Message("user", ("a dog",)),))
    prompts = [draw_prompt(model.contract, sample)]
    plain = draw(model, prompts, Sampling(), generators=Generators([0]))
    assert plain.shape == (1, 1, 5, WIDTH)
    pair = draw(model, prompts, Sampling(guidance=3.0), generators=Generators([0]))
    assert pair.shape == (1, 2, 1, 5, WIDTH)
    torch.testing.assert_close(pair[:, 0], plain)
    decoder = model.image_decoder
    expected = 3 * decoder.image(pair[:, 0]) - 2 * decoder.image(pair[:, 1])
    torch.testing.assert_close(decode(model, pair, None, 3.0), expected)
    assert decoder.guidances == [3.0]


def test_what_does_not_fit_is_a_sentence(raw):
    def refusal(change):
        changed = deepcopy(raw)
        change(changed["model"])
        with pytest.raises(RecipeError) as error:
            built(changed)
        return str(error.value)

    def raster(model):
        model["heads"]["image"] = {"type": "raster", "alphabet": {"type": "condition"}}

    assert "use order 'queries'" in refusal(raster)
    assert "needs a grid" in refusal(lambda model: model["heads"]["image"].pop("grid"))
    assert "model lacks image_decoder" in refusal(lambda model: model.pop("image_decoder"))
    deep = {"type": "condition", "depth": 0}
    assert "width 32 and the vectors 12" in refusal(
        lambda model: model["heads"]["image"].update(alphabet=deep)
    )
