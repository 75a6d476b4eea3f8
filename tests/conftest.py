"""What all tests share: one thread, a cache of their own, no network, and one tiny model that sees and draws."""

import os
from copy import deepcopy

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

TINY = {
    "name": "tiny",
    "model": {
        "views": {"type": "whole", "size": 32},
        "encoder": {"type": "patches", "patch_size": 8},
        "connector": {"type": "mlp"},
        "language": {
            "type": "causal",
            "vocabulary": 400,
            "config": {
                "model_type": "llama",
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 64,
                "max_position_embeddings": 256,
            },
        },
        "image_tokenizer": {"type": "vq", "size": 32, "width": 16, "depth": 1, "codebook_size": 16, "code_width": 8},
        "image_head": {"type": "next_token"},
    },
    "data": {
        "world": {"type": "world", "scenes": 40, "emoji": 8, "grid": 2, "objects": [1, 2], "canvas": 32},
        "held-out": {"type": "world", "scenes": 40, "emoji": 8, "grid": 2, "objects": [1, 2], "canvas": 32,
                     "split": "combination"},
    },
    "stages": [
        {"name": "codes", "train": {"image_tokenizer": 1e-3}, "data": {"world": 1.0}, "steps": 4, "rows": 4},
        {
            "name": "joint",
            "train": {"connector": 1e-3, "language": 1e-3, "image_head": 1e-3},
            "data": {"world": 1.0},
            "steps": 6,
            "rows": 2,
            "length": 128,
        },
    ],
    "checkpoints": {"every": 2},
    "sampling": {"guidance": 1.5, "answer_tokens": 8},
    "evaluation": {"data": "held-out", "questions": 12, "pictures": 4, "text": 6},
}  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def _quiet_machine(tmp_path_factory):
    torch.set_num_threads(1)
    os.environ["CHIASM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiny() -> dict:
    """A raw recipe of a model that sees and draws, small enough for a test."""
    return deepcopy(TINY)


@pytest.fixture
def tiny_model(tiny):
    """The model of `tiny`, untrained, and its world."""
    from chiasm import parts
    from chiasm.data.corpus import corpus
    from chiasm.model import Model
    from chiasm.recipe import load_recipe

    recipe = load_recipe(tiny)
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    model.sampling = recipe.sampling
    return model, parts.build("data", recipe.data["world"])
