"""Public text encoders as conditioners: what transformers says of the text that the language model's words are."""

import shutil
from copy import deepcopy

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from chiasm import parts
from chiasm.decoders.conditioners import ConditionerContext
from chiasm.errors import ChiasmError, RecipeError
from chiasm.language.text import TextTokenizer
from chiasm.model import Model
from chiasm.model.checkpoint import load_model, save_model
from chiasm.recipe import load_recipe
from tiny_recipe import TINY

CLIP = {"model_type": "clip_text_model", "vocab_size": 400, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12, "eos_token_id": 2,
        "bos_token_id": 1, "pad_token_id": 0}  # fmt: skip
T5 = {
    "model_type": "t5",
    "vocab_size": 400,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 16, "patch_size": 8}  # fmt: skip
TEXTS = ["a frog at the top left", "two cars", "a cat and a dog"] * 20


class Reader:
    """A language model with words of its own."""

    tokenizer = TextTokenizer.train(TEXTS, 300)
    vocabulary_size = len(tokenizer)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Encoders and their tokenizer, as they lie on disk."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("encoders")
    clip, t5 = CLIPTextModel(CLIPTextConfig(**CLIP)), T5EncoderModel(T5Config(**T5))
    text = {key: value for key, value in CLIP.items() if key != "model_type"}
    both = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8))
    for name, model in (("clip", clip), ("t5", t5), ("both", both)):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
        model.save_pretrained(place / name)
        TextTokenizer.train(TEXTS, 350).inner.save_pretrained(place / name)
    return place


def built(reader=Reader(), width=16, pooled=None, **options):  # noqa: B008
    return parts.build("conditioner", {"type": "text_model", "length": 10, "words": 8, **options},
                       ConditionerContext(None, width, pooled, reader))  # fmt: skip


def target(*texts):
    rows = torch.full((len(texts), 1, 8), Reader.vocabulary_size)
    for row, text in enumerate(texts):
        ids = Reader.tokenizer.encode_plain(text)
        rows[row, 0, : len(ids)] = torch.tensor(ids)
    return rows


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_its_tokens_are_transformers_last_hidden_states(folders, kind):
    conditioner = built(checkpoint=str(folders / kind))
    condition = conditioner(target("two cars", "a cat"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders / kind)
    encoded = tokenizer(["two cars", "a cat"], padding="max_length", max_length=10, return_tensors="pt")
    model = {"clip": CLIPTextModel, "t5": T5EncoderModel}[kind].from_pretrained(folders / kind).eval()
    mask = None if kind == "clip" else encoded.attention_mask
    expected = model(encoded.input_ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(condition.tokens, expected)
    assert (condition.mask is None) == (kind == "clip")
    assert not condition.tokens.requires_grad


def test_of_clips_two_towers_the_texts_is_taken(folders):
    own = CLIPTextModel.from_pretrained(folders / "both").state_dict()
    conditioner = built(checkpoint=str(folders / "both"))
    assert {name: tensor.shape for name, tensor in conditioner.model.state_dict().items()} == {
        name: tensor.shape for name, tensor in own.items()
    }
    assert all(torch.equal(tensor, own[name]) for name, tensor in conditioner.model.state_dict().items())


def test_guidance_leads_away_from_the_empty_text(folders):
    conditioner = built(checkpoint=str(folders / "clip"))
    empty = conditioner.empty(conditioner(target("two cars")))
    torch.testing.assert_close(empty.tokens, conditioner(target("")).tokens)


def test_a_saved_one_needs_neither_folder(folders):
    conditioner = built(checkpoint=str(folders / "clip"))
    again = built(**conditioner.standalone())
    again.load_state_dict(conditioner.state_dict())
    torch.testing.assert_close(again(target("a dog")).tokens, conditioner(target("a dog")).tokens)


def test_words_that_it_does_not_read_to_their_end_are_a_sentence(folders):
    conditioner = built(checkpoint=str(folders / "clip"))
    count = len(conditioner.tokenizer(("two cars " * 10).strip()).input_ids)
    conditioner.check_words("two cars", "prompt 1")
    with pytest.raises(
        ChiasmError, match=f"prompt 1 has {count} tokens, but the text encoder .* reads 10; shorten"
    ):
        conditioner.check_words("two cars " * 10, "prompt 1")


def test_nothing_of_it_learns_but_a_projection(folders):
    conditioner = built(checkpoint=str(folders / "clip"), width=6, projected=True)
    assert conditioner(target("a dog")).tokens.shape == (1, 10, 6)
    assert [*conditioner.learners()] == ["projection"]
    assert not any(parameter.requires_grad for parameter in conditioner.model.parameters())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 24}, "the text encoder has width 16, but the denoiser's tokens 24 .* projected: true"),
        ({"pooled": 8}, "makes no pooled vector, which this denoiser reads"),
        ({"length": 20}, "shall read 20 tokens, but its text encoder has 12 positions"),
        ({"reader": None}, "reads the words of a language model, but nothing here writes any"),
        ({"config": CLIP}, "needs either a checkpoint or a config"),
        ({"checkpoint": None, "config": CLIP}, "with a config needs a tokenizer"),
        (
            {"checkpoint": None, "config": {"model_type": "bert"}},
            "it is a 'bert'; there are clip_text_model, t5",
        ),
    ],
)
def test_what_does_not_fit_is_a_sentence(folders, options, sentence):
    with pytest.raises(RecipeError, match=sentence):
        built(**{"checkpoint": str(folders / "clip"), **options})


def test_a_tokenizer_of_another_encoder_is_refused(folders):
    small = {"checkpoint": None, "config": {**CLIP, "vocab_size": 200}, "tokenizer": str(folders / "clip")}
    with pytest.raises(RecipeError, match=r"tokens up to \d+, but the text encoder reads those below 200"):
        built(**small)


def test_weights_that_are_missing_are_named(folders, tmp_path):
    model = CLIPTextModel.from_pretrained(folders / "clip")
    model.config.save_pretrained(tmp_path)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    name = next(name for name in tensors if name.endswith("mlp.fc1.weight"))
    tensors.pop(name)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ChiasmError, match=r"does not fit CLIPTextModel: 1 missing: .*fc1\.weight"):
        built(checkpoint=str(tmp_path), tokenizer=str(folders / "clip"))


def test_a_model_with_one_is_loaded_and_draws_without_the_encoders_folder(folders, tmp_path):
    encoder = tmp_path / "encoder"
    shutil.copytree(folders / "clip", encoder)
    raw = deepcopy(TINY)
    del raw["model"]["image_tokenizer"]
    raw["model"]["heads"] = {"image": {"type": "caption", "alphabet": {"type": "words"}}}
    raw["model"]["image_decoder"] = {
        "type": "diffusion",
        "size": 16,
        "denoiser": {"type": "dit", "width": 32, "depth": 1, "heads": 2, "patch_size": 8},
        "conditioner": {"type": "text_model", "checkpoint": str(encoder), "length": 10, "projected": True},
        "scheduler": {"type": "flow"},
        "steps": 2,
    }
    raw["stages"] = raw["stages"][1:]
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=TEXTS).eval()
    with torch.no_grad():
        model.image_decoder.denoising.denoiser.output.weight.normal_(std=0.5)  # it begins at zero
    expected = model.generate(["a frog", "two cars"], verbatim=True, guidance=2.0)
    assert expected[0].tobytes() != model.generate("two cars", verbatim=True, guidance=2.0)[0].tobytes()
    save_model(model, recipe, tmp_path / "saved")
    shutil.rmtree(encoder)
    drawn = load_model(tmp_path / "saved").generate(["a frog", "two cars"], verbatim=True, guidance=2.0)
    assert [each.tobytes() for each in drawn] == [each.tobytes() for each in expected]
    raw["model"]["heads"]["image"]["alphabet"] = {"type": "straight_words"}
    raw["model"]["image_decoder"]["conditioner"]["checkpoint"] = str(folders / "clip")
    with pytest.raises(
        RecipeError, match="use conditioner 'words', or alphabet 'words', which lets no gradient"
    ):
        Model(load_recipe(raw).model, texts=TEXTS)
