"""GLIGEN as diffusers keeps it: imported, it draws named things into boxes as diffusers' own network does."""

import json
import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_diffusers import SIZE, UNET, VAE
from transformers import CLIPTextConfig, CLIPTextModel

from chiasm.data.calls import parse_call, run_call
from chiasm.errors import ChiasmError
from chiasm.inference.captions import captions_target, words_of_decoder
from chiasm.interop import export_checkpoint, import_checkpoint
from chiasm.language.text import TextTokenizer
from chiasm.model import Model
from chiasm.model.checkpoint import load_model
from chiasm.nn.generators import Generators
from chiasm.recipe import load_recipe
from chiasm.storage.weights import read_tensors
from tiny_recipe import TINY

TEXTS = ["a frog at the top left", "two cars", "a cat and a dog <region>: 0123456789,</region>"] * 20
CLIP = {"vocab_size": 400, "hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 12, "eos_token_id": 2, "bos_token_id": 1,
        "pad_token_id": 0}  # fmt: skip
WORDS = "a cat and a dog <region>a cat: 0,0,500,500</region> <region>a dog: 500,250,1000,1000</region>"
STEPS, GUIDANCE = 5, 4.0
PHRASES, BOXES = ["a cat", "a dog"], [[0.0, 0.0, 0.5, 0.5], [0.5, 0.25, 1.0, 1.0]]


def written(place, **unet):
    """A small folder as diffusers writes it, whose gates are open."""
    import diffusers

    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(**UNET, **{"attention_type": "gated", **unet})
    text = CLIPTextModel(CLIPTextConfig(**CLIP))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "fuser" in name or "null" in name:
                parameter.normal_(std=0.5)
        for parameter in text.parameters():
            parameter.normal_(std=0.3)
    network.save_pretrained(place / "unet")
    diffusers.AutoencoderKL(**VAE).save_pretrained(place / "vae")
    options = {"steps_offset": 1, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    diffusers.DDIMScheduler(**options, clip_sample=False).save_pretrained(place / "scheduler")
    text.save_pretrained(place / "text_encoder")
    TextTokenizer.train(TEXTS, 350).inner.save_pretrained(place / "text_encoder")
    (place / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionGLIGENPipeline"}))
    return place


@pytest.fixture(params=["boxes", "boxes of an image"])
def place(request, tmp_path):
    return written(tmp_path / "gligen", **({"in_channels": 9} if "image" in request.param else {}))


def painter(place):
    """A language model whose words the imported decoder reads."""
    ours = import_checkpoint(place, place.parent / "ours")
    raw = deepcopy(TINY) | {"start": {"folder": str(ours), "slots": ["image_decoder"]}, "stages": []}
    del raw["model"]["image_tokenizer"]
    raw["model"]["heads"] = {"image": {"type": "caption", "alphabet": {"type": "words"}}}
    reader = {"type": "grounded_text", "checkpoint": str(place / "text_encoder"), "length": 12, "boxes": 4}
    raw["model"]["image_decoder"] = {"conditioner": reader, "steps": STEPS, "guidance": GUIDANCE}
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=TEXTS).eval()
    imported = load_model(ours).image_decoder.state_dict()
    left = model.image_decoder.load_state_dict(imported, strict=False)
    assert not left.unexpected_keys
    assert all(name.startswith("conditioner.") for name in left.missing_keys)
    return model


@torch.no_grad()
def theirs(place, source=None):
    """The images by diffusers' network, scheduler and autoencoder, in the loop of its former GLIGEN pipeline."""
    import diffusers

    unet = diffusers.UNet2DConditionModel.from_pretrained(place / "unet").eval()
    vae = diffusers.AutoencoderKL.from_pretrained(place / "vae").eval()
    scheduler = diffusers.DDIMScheduler.from_pretrained(place / "scheduler")
    text = CLIPTextModel.from_pretrained(place / "text_encoder").eval()
    tokenizer = TextTokenizer.load(place / "text_encoder").inner

    def tokens(texts):
        rows = [tokenizer(each).input_ids[:12] for each in texts]
        return torch.tensor([row + [tokenizer.pad_token_id] * (12 - len(row)) for row in rows])

    context = text(input_ids=tokens(["", "a cat and a dog"])).last_hidden_state
    boxes, phrases, masks = torch.zeros(2, 4, 4), torch.zeros(2, 4, 12), torch.zeros(2, 4)
    boxes[:, :2] = torch.tensor(BOXES)
    phrases[:, :2] = text(input_ids=tokens(PHRASES)).pooler_output
    masks[1, :2] = 1
    gligen = {"boxes": boxes, "positive_embeddings": phrases, "masks": masks}
    random, shape = Generators([7]).for_pixels(), (4, SIZE // 2, SIZE // 2)
    x, beside = random.normal(*shape), None
    if source is not None:
        kept, where = (
            vae.encode(2 * source - 1).latent_dist.mean * VAE["scaling_factor"],
            torch.ones(1, 1, 8, 8),
        )
        where[:, :, :4, :4] = where[:, :, 2:, 4:] = 0
        beside = torch.cat([kept * where, where], 1)
    scheduler.set_timesteps(STEPS)
    for step, time in enumerate(scheduler.timesteps):
        if step == int(0.3 * STEPS):
            for block in unet.modules():
                if hasattr(block, "fuser"):
                    block.fuser.enabled = False
        if beside is not None:
            x = where * scheduler.add_noise(kept, random.normal(*shape), time[None]) + (1 - where) * x
        rows = x if beside is None else torch.cat([x, beside], 1)
        without, whole = unet(
            rows.repeat(2, 1, 1, 1),
            time,
            encoder_hidden_states=context,
            cross_attention_kwargs={"gligen": gligen},
        ).sample.chunk(2)
        x = scheduler.step(without + GUIDANCE * (whole - without), time, x).prev_sample
    return ((vae.decode(x / VAE["scaling_factor"]).sample + 1) / 2).clamp(0, 1)


def target(model, *texts):
    return captions_target(model, words_of_decoder(model, texts))


def test_its_images_are_those_of_diffusers_network(place):
    model = painter(place)
    source = torch.rand(1, 3, SIZE, SIZE) if model.image_decoder.edits else None
    ours = model.image_decoder.decode(target(model, WORDS), source=source, generators=Generators([7]))
    torch.testing.assert_close(ours, theirs(place, source), atol=1e-4, rtol=1e-4)
    other = target(model, WORDS.replace("500,250", "500,750"))
    moved = model.image_decoder.decode(other, source=source, generators=Generators([7]))
    assert (moved - ours).abs().max() > 1e-3


def test_an_image_to_change_is_encoded_once(place, monkeypatch):
    decoder, encoded = painter(place).image_decoder, []
    if not decoder.edits:
        pytest.skip("it changes no image")
    latents = decoder.denoising.latents
    monkeypatch.setattr(decoder.denoising, "latents", lambda source: encoded.append(1) or latents(source))
    words = target(painter(place), WORDS)
    decoder.decode(words, source=torch.rand(1, 3, SIZE, SIZE), negative=words, generators=Generators([7]))
    assert encoded == [1]


def test_it_comes_back_bit_for_bit(place, tmp_path):
    again = export_checkpoint(import_checkpoint(place, tmp_path / "ours"), tmp_path / "again")
    for name in ("unet", "vae"):
        one, other = (read_tensors(each / name) for each in (place, again))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_tool_of_the_page_of_systems_paints_into_the_region_alone(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "systems.md").read_text(encoding="utf-8")
    (block,) = (
        each for each in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "def paint" in each
    )
    names = {"painter": painter(written(tmp_path / "gligen"))}
    exec(block, names)
    before = Image.effect_mandelbrot((48, 24), (-2, -1, 1, 1), 20)  # no square
    call = "<module>C</module> <instruction>generation: a cat</instruction>"
    images = [
        run_call(parse_call(f"{call} <region>{region}</region>", (24, 48))[1], names["tools"], [before])
        for region in ("12,6,36,18", "12,6,37,18")
    ]
    own, after = (np.asarray(each.convert("RGB")) for each in (before, images[0]))
    outside = np.ones((24, 48), bool)
    outside[6:18, 12:36] = False
    assert (own == after)[outside].all()
    expected = names["painter"].generate(
        "a cat <region>a cat: 250,250,750,750</region>", verbatim=True, seed=7
    )[0]
    assert (np.asarray(expected.resize((48, 24)))[6:18, 12:36] == after[6:18, 12:36]).all()
    assert images[0].tobytes() != images[1].tobytes()
    with pytest.raises(ChiasmError, match="names no region to paint into"):
        run_call(parse_call(call)[1], names["tools"], [before])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("a cat <region>a cat: 0,0,1200,500</region>", "has no area within an image of 1000 by 1000"),
        (
            "a <region>b: 0,0,9,9</region>" * 5,
            "an image has 5 regions, but conditioner 'grounded_text' reads 4",
        ),
        (
            "a cat and a dog " * 8,
            r"prompt 1 has \d+ tokens, but the text encoder of this model's image decoder reads 12; shorten",
        ),
        (
            f"a cat <region>a cat: 0,0,9,9</region> <region>{'two cars ' * 9}: 0,0,9,9</region>",
            r"the name of region 2 of prompt 1 has \d+ tokens, but the text encoder of .* reads 12; shorten",
        ),
    ],
)
def test_words_that_it_cannot_follow_are_sentences(tmp_path, words, sentence):
    model = painter(written(tmp_path / "gligen"))
    with pytest.raises(ChiasmError, match=sentence):
        model.generate(words, verbatim=True)
    with pytest.raises(ChiasmError, match=sentence.replace("prompt 1", "negative prompt 1")):
        model.generate("a cat", verbatim=True, guidance=2.0, negative=words)


def test_boxes_with_images_in_them_are_refused_by_name(tmp_path):
    place = written(tmp_path / "gligen", attention_type="gated-text-image")
    with pytest.raises(
        ChiasmError, match="has the attention_type 'gated-text-image'; known are 'default' and"
    ):
        import_checkpoint(place, tmp_path / "ours")
