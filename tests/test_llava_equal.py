"""A LLaVA built from Chiasm's parts computes what transformers' LLaVA computes."""

import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from chiasm.data import Message, Sample
from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.language.text import TextTokenizer
from chiasm.model import Model
from chiasm.recipe import resolve
from chiasm.sequence import IGNORE, Kind, pack
from chiasm.storage.weights import load_into

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 7}  # fmt: skip
TEXT = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "vocab_size": 512}  # fmt: skip
IMAGE = 511  # an id that the tokenizer does not use
WORDS = ["What is to be seen in this picture? A red square on a blue field.", "Where does the cat sit?"] * 4
RENAMED = {
    "model.vision_tower.": "encoder.model.",
    "model.multi_modal_projector.linear_1.": "connector.layers.0.",
    "model.multi_modal_projector.linear_2.": "connector.layers.2.",
    "model.language_model.": "language.inner.model.",
    "lm_head.": "language.inner.lm_head.",
}
# Behind hidden state -2, and therefore dropped by Chiasm: the last block and the norm after it.
UNUSED = ("encoder.model.post_layernorm.", "encoder.model.encoder.layers.2.")


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT),
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    TextTokenizer.train(WORDS, 300).save(folder)
    spec = {
        "views": {"type": "whole", "size": 28},
        "encoder": {
            "type": "transformers",
            "config": {"model_type": "clip_vision_model", **VISION},
            "layer": -2,
        },
        "connector": {"type": "mlp", "depth": 2},
        "language": {"type": "causal", "config": {"model_type": "llama", **TEXT}, "tokenizer": str(folder)},
    }
    model = Model(resolve({"name": "llava", "model": spec, "data": {}, "stages": []}).model, seed=1).eval()
    tensors = {_ours(name): tensor for name, tensor in theirs.state_dict().items()}
    tensors |= {f"encoder.{name}": getattr(model.encoder, name) for name in ("mean", "deviation")}
    load_into(model, tensors, "transformers' LLaVA", unused=UNUSED)
    return model


def _ours(name):
    prefix = next(prefix for prefix in RENAMED if name.startswith(prefix))
    return RENAMED[prefix] + name.removeprefix(prefix)


def _picture(colour, size=(28, 28)):
    image = Image.new("RGB", size, colour)
    image.paste((250, 240, 20), (3, 5, 15, 20))
    return PictureInMemory(image)


SAMPLES = [
    Sample("a picture first", (Message("user", (_picture("red"), WORDS[0])), Message("assistant", ("A square.",)))),
    Sample("words only", (Message("user", (WORDS[1],)), Message("assistant", ("On a blue field.",)))),
    Sample(
        "two pictures, two turns",
        (
            Message("user", ("See ", _picture("blue", (40, 20)), " and ", _picture("green"), ".")),
            Message("assistant", ("I see.",)),
            Message("user", (WORDS[0],)),
            Message("assistant", ("A cat.",)),
        ),
    ),
]  # fmt: skip


@torch.no_grad()
def _their_logits(theirs, ours, made):
    kinds = torch.tensor(made.kinds)
    ids = torch.where(kinds == Kind.READ, IMAGE, torch.tensor(made.ids))[None]
    reader = PictureReader(ours.contract)
    pixels = [
        pixels
        for slot in made.slots
        for view, _ in ours.contract.read_views(slot.picture.size, made.name)
        for pixels in reader.crops(slot.picture, [view])
    ]
    pixels = (torch.stack(pixels) - ours.encoder.mean) / ours.encoder.deviation if pixels else None
    return theirs(input_ids=ids, pixel_values=pixels).logits[0]


@torch.no_grad()
def _our_hidden(ours, documents):
    batch, slots = pack([documents])
    batch = PictureReader(ours.contract).attach(batch, slots)
    embeddings, layout, _ = ours.embed(batch)
    return ours.language(embeddings, layout)[0], batch


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_logits_equal_those_of_transformers(ours, theirs, sample):
    made = document(ours.contract, sample)
    hidden, _ = _our_hidden(ours, [made])
    torch.testing.assert_close(
        ours.language.logits(hidden), _their_logits(theirs, ours, made), rtol=1e-5, atol=1e-5
    )


def test_logits_of_packed_samples_equal_those_of_transformers_one_by_one(ours, theirs):
    documents = [document(ours.contract, sample) for sample in SAMPLES]
    hidden, _ = _our_hidden(ours, documents)
    alone = torch.cat([_their_logits(theirs, ours, made) for made in documents])
    torch.testing.assert_close(ours.language.logits(hidden), alone, rtol=1e-5, atol=1e-5)


def test_the_packed_loss_is_the_loss_of_transformers_over_all_supervised_tokens(ours, theirs):
    documents = [document(ours.contract, sample) for sample in SAMPLES]
    _, batch = _our_hidden(ours, documents)
    alone = torch.cat([_their_logits(theirs, ours, made) for made in documents])
    expected = torch.nn.functional.cross_entropy(alone, batch.labels[0], ignore_index=IGNORE)
    torch.testing.assert_close(ours.losses(batch)["text"].mean, expected, rtol=1e-5, atol=1e-6)
