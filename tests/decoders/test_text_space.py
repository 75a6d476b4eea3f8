"""Vectors in the space of a text encoder: the distance to its reading of the caption is what teaches them."""

from copy import deepcopy

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.errors import RecipeError
from chiasm.language.text import TextTokenizer
from chiasm.model import Model
from chiasm.model.checkpoint import load_model, save_model
from chiasm.parts import build
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from chiasm.training.aims import DocumentsAim
from chiasm.training.optimiser import build_optimiser
from chiasm.training.step import TrainStep
from tiny_recipe import TINY

TEXTS = ["a frog at the top left, a cat at the bottom right."] * 20


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = CLIPTextConfig(vocab_size=400, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                            num_attention_heads=2, max_position_embeddings=12, eos_token_id=2)  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder)
    TextTokenizer.train(TEXTS, 350).inner.save_pretrained(folder)
    recipe = deepcopy(TINY)
    del recipe["model"]["image_tokenizer"]
    recipe["model"]["heads"] = {
        "image": {"type": "queries", "grid": [1, 10], "alphabet": {"type": "condition"}}
    }
    recipe["model"]["image_decoder"] = {
        "type": "diffusion",
        "size": 16,
        "denoiser": {"type": "dit", "width": 32, "depth": 1, "heads": 2, "patch_size": 8},
        "conditioner": {"type": "text_space", "checkpoint": str(folder), "length": 10, "words": 24},
        "scheduler": {"type": "flow"},
        "steps": 2,
        "unconditional": 0.0,
    }
    recipe["data"]["world"]["tasks"] = {"captioned": 1, "draw": 1}
    recipe["stages"] = recipe["stages"][1:]
    return recipe


@pytest.fixture(scope="module")
def model(raw):
    return Model(load_recipe(raw).model, texts=TEXTS)


def batch_of(raw, model, task):
    source = build("data", raw["data"]["world"])
    rows = [[document(model.contract, s)] for i in range(3) for s in source[i] if s.truth["task"] == task]
    batch, slots = pack(rows)
    return PictureReader(model.contract).attach(batch, slots)


def test_the_loss_is_the_distance_to_what_the_encoder_makes_of_the_words_before_an_image(
    raw, model, monkeypatch
):
    vectors, read = [], []
    decoder = model.image_decoder
    losses, encoder = decoder.losses, decoder.conditioner.encoder
    monkeypatch.setattr(
        decoder, "losses", lambda target, *a, **k: vectors.append(target) or losses(target, *a, **k)
    )
    inner = encoder.read
    monkeypatch.setattr(encoder, "read", lambda texts: read.extend(texts) or inner(texts))
    loss = model.losses(batch_of(raw, model, "captioned"))["alignment"]
    expected, _ = inner(read)
    torch.testing.assert_close(loss.sum, (vectors[0].flatten(1, 2) - expected).norm(dim=-1).sum())
    assert loss.count == 3 * 10
    source = build("data", raw["data"]["world"])
    captions = [
        s.messages[1].content[0] for i in range(3) for s in source[i] if s.truth["task"] == "captioned"
    ]
    assert [text.strip() for text in read] == captions


def test_an_image_without_words_before_it_is_not_aligned(raw, model):
    loss = model.losses(batch_of(raw, model, "draw"))["alignment"]
    assert (loss.sum, loss.count) == (0, 0)


def test_a_stage_of_the_decoding_side_learns_the_alignment_and_changes_nothing_of_the_decoder(raw):
    recipe = load_recipe(
        {**raw, "stages": [raw["stages"][0] | {"train": {"heads.image": 1e-2}, "weights": {"diffusion": 0}}]}
    )
    model, stage = Model(recipe.model, texts=TEXTS), recipe.stages[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train_only(stage.train)
    step = TrainStep(DocumentsAim(model), build_optimiser(model, stage), stage, Ranks(), torch.device("cpu"))
    batch = batch_of(raw, model, "captioned")
    outcomes = [step([batch]).losses["alignment"] for _ in range(6)]
    assert outcomes[-1] < outcomes[0]
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("heads.image.") for name in changed)


def test_guidance_leads_away_from_the_empty_text_and_a_saved_model_needs_no_folder(raw, model, tmp_path):
    conditioner = model.image_decoder.conditioner
    condition = conditioner(torch.randn(2, 1, 10, 32))
    empty = conditioner.encoder.read([""])[0].expand(2, -1, -1)
    torch.testing.assert_close(conditioner.empty(condition).tokens, empty)
    recipe = load_recipe(raw)
    save_model(model, recipe, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    model.eval()
    one, other = (each.generate("a frog", seed=3)[0].tobytes() for each in (model, again))
    assert one == other


def test_what_does_not_fit_its_encoder_names_it_and_no_option_of_another(raw):
    changed = deepcopy(raw)
    changed["model"]["image_decoder"]["denoiser"]["width"] = 16
    with pytest.raises(
        RecipeError, match=r"'text_space': the text encoder .* 32, but .* 16 .* belongs to it$"
    ):
        Model(load_recipe(changed).model, texts=TEXTS)
    changed = deepcopy(raw)
    changed["model"]["image_decoder"]["conditioner"] |= {"length": 20}
    with pytest.raises(RecipeError, match="conditioner 'text_space' shall read 20 tokens"):
        Model(load_recipe(changed).model, texts=TEXTS)


def test_vectors_of_another_number_than_the_encoders_tokens_are_an_error(raw):
    changed = deepcopy(raw)
    changed["model"]["heads"]["image"]["grid"] = [1, 8]
    with pytest.raises(RecipeError, match="order 'queries' makes 8 vectors"):
        Model(load_recipe(changed).model, texts=TEXTS)
