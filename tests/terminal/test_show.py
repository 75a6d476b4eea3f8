"""`chiasm show` builds a model from configs alone: no weights are read, and none are allocated."""

import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig

from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.evaluation.cost import flops
from chiasm.language.text import TextTokenizer
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from chiasm.storage.skeleton import ShapesAlone, without_weights
from chiasm.terminal.show import show

WIDTH, HIDDEN, DEPTH = 8192, 28672, 24  # a language model that no machine of a test could hold
TEXTS = ["Where is the dog?", "At the left."]
WORLD = {"type": "world", "scenes": 20, "emoji": 8, "grid": 2, "objects": [1, 2], "canvas": 28,
         "tasks": {"what": 1}}  # fmt: skip


@pytest.fixture
def configs(tmp_path):
    """Folders as of two public checkpoints, without their weights."""
    language = LlamaConfig(hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=DEPTH,
                           num_attention_heads=64, num_key_value_heads=8, vocab_size=32000, dtype="bfloat16",
                           architectures=["LlamaForCausalLM"])  # fmt: skip
    language.save_pretrained(tmp_path / "language")
    TextTokenizer.train(TEXTS, 300).save(tmp_path / "language")
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
                              image_size=28, patch_size=7)  # fmt: skip
    vision.save_pretrained(tmp_path / "vision")
    return tmp_path


def recipe(folder, **language):
    return load_recipe(
        {
            "name": "it",
            "model": {
                "encoder": {"type": "transformers", "checkpoint": str(folder / "vision"), "layer": -2},
                "views": {"type": "whole", "size": 28, "fit": "pad"},
                "connector": {"type": "mlp"},
                "language": {"type": "causal", "checkpoint": str(folder / "language"), **language},
            },
            "data": {"world": WORLD},
            "stages": [{"name": "align", "train": {"connector": 1e-3}, "data": {"world": 1.0}, "steps": 2}],
        }
    )


def test_a_model_of_twenty_billion_weights_is_shown_from_its_configs(configs, capsys):
    show(recipe(configs))
    said = capsys.readouterr().out
    layer = 2 * WIDTH * WIDTH + 2 * WIDTH * (WIDTH // 8) + 3 * WIDTH * HIDDEN + 2 * WIDTH
    assert f"{2 * 32000 * WIDTH + DEPTH * layer + WIDTH:,}" in said
    assert "grid 4 x 4 of width 32" in said
    assert "16 visual tokens of width 8192" in said
    assert "GFLOP" in said


def test_a_checkpoint_that_is_not_there_is_named(configs):
    for slot in ("vision", "language"):
        (configs / slot / "config.json").rename(configs / f"{slot}.json")
        with pytest.raises(CheckpointError, match=f"{configs}/{slot}"):
            show(recipe(configs))
        (configs / f"{slot}.json").rename(configs / slot / "config.json")
    with pytest.raises(CheckpointError, match="no local file or folder"):
        show(recipe(configs, checkpoint=str(configs / "nowhere")))


@pytest.mark.parametrize("name", ["quickstart", "blip2", "flamingo", "moe-llava"])
def test_operations_are_counted_without_weights_as_with_them(name):
    spec = load_recipe(name, tiny=True).model
    whole = Model(spec, texts=TEXTS).eval()
    with without_weights():
        skeleton = Model(spec, texts=TEXTS).eval()
    image = PictureInMemory(Image.new("RGB", (96, 96)))
    asked = Sample("a question", (Message("user", (image, TEXTS[0])), Message("assistant", (TEXTS[1],))))
    batch, slots = pack([[document(whole.contract, asked)]])
    batch = PictureReader(whole.contract).attach(batch, slots)
    with torch.no_grad():
        counted = flops(lambda: whole.losses(batch))
    with torch.no_grad(), ShapesAlone():
        assert flops(lambda: skeleton.losses(batch)) == counted > 0
    assert {each.device.type for each in skeleton.parameters()} == {"meta"}
