"""Models that write words before an image, and models that change an image, behind the server."""

import io
from copy import deepcopy

import openai
import pytest
import torch
from PIL import Image

from chiasm.data.corpus import corpus
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.serving.app import create_app
from clients import KEY, LIMITS, opened
from served import served
from tiny_recipe import TINY

IMAGE = Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 20).convert("RGB")


def built(edits):
    raw = deepcopy(TINY)
    del raw["model"]["image_tokenizer"]
    raw["model"] |= {
        "heads": {"image": {"type": "caption", "alphabet": {"type": "words"}}},
        "image_decoder": {
            "type": "diffusion",
            "size": 16,
            "edits": edits,
            "denoiser": {"type": "dit", "width": 32, "depth": 1, "heads": 2, "patch_size": 8},
            "conditioner": {"type": "words", "length": 12, "width": 16, "depth": 1, "heads": 2},
            "scheduler": {"type": "flow"},
            "steps": 2,
        },
    }
    raw["stages"] = raw["stages"][1:]
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    with torch.no_grad():
        model.image_decoder.denoising.denoiser.output.weight.normal_(std=0.1)  # it begins at zero
    return model


@pytest.fixture(scope="module")
def models():
    return {"words": built(False), "edits": built(True)}


@pytest.fixture(scope="module")
def client(models):
    with served(create_app(models, key=KEY, limits=LIMITS)) as place:
        yield openai.OpenAI(base_url="http://{}:{}/v1".format(*place), api_key=KEY, max_retries=0)


def test_the_words_of_the_model_are_the_revised_prompt(client, models):
    reply = client.images.generate(model="words", prompt="a dog", n=2, extra_body={"seed": 5})
    expected = models["words"].generate("a dog", count=2, seed=5)
    assert [opened(each.b64_json).tobytes() for each in reply.data] == [each.tobytes() for each in expected]
    assert [each.revised_prompt for each in reply.data] == [each.info["caption"] for each in expected]


def test_an_edit_is_the_models_own_and_a_drawing_without_a_source_is_refused(client, models):
    file = io.BytesIO()
    IMAGE.save(file, "png")
    reply = client.images.edit(model="edits", image=file.getvalue(), prompt="a dog", extra_body={"seed": 2})
    (expected,) = models["edits"].edit(IMAGE, "a dog", seed=2)
    assert opened(reply.data[0].b64_json).tobytes() == expected.tobytes()
    with pytest.raises(
        openai.BadRequestError, match="no image stands before the one that it shall write"
    ) as error:
        client.images.generate(model="edits", prompt="a dog")
    assert error.value.param == "prompt"


def test_an_option_that_would_change_nothing_is_refused_by_the_name_of_its_field(client):
    for field in ("temperature", "top_k", "top_p"):
        with pytest.raises(openai.BadRequestError, match=f"{field}: it would change nothing") as error:
            client.images.generate(model="words", prompt="a dog", extra_body={field: 1})
        assert error.value.param == field
        with pytest.raises(openai.BadRequestError, match=f"image_{field}: it would change nothing") as error:
            client.chat.completions.create(
                model="words",
                messages=[{"role": "user", "content": "a dog"}],
                extra_body={f"image_{field}": 1},
            )
        assert error.value.param == f"image_{field}"
