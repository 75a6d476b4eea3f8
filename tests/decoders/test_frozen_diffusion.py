"""DreamLLM's stages (arXiv 2309.11499): a frozen diffusion model teaches what it is conditioned on."""

from copy import deepcopy

import pytest
import torch

from chiasm.data.corpus import corpus
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.model import Model
from chiasm.nn.losses import objective
from chiasm.parts import build
from chiasm.recipe import load_recipe
from chiasm.sequence import pack

UNET = {"sample_size": 16, "in_channels": 3, "out_channels": 3, "block_out_channels": [8, 16],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "layers_per_block": 1, "norm_num_groups": 4,
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 12,
        "attention_head_dim": 2}  # fmt: skip


@pytest.fixture(scope="module")
def dreamllm():
    """The tiny recipe with a smaller network, and a batch of it."""
    recipe = load_recipe("dreamllm", ["model.views.size=24", "model.encoder.config.image_size=24"], tiny=True)
    spec = deepcopy(dict(recipe.model))
    spec["image_decoder"] = {
        **spec["image_decoder"],
        "size": 16,
        "denoiser": {"type": "unet", "config": UNET},
    }
    torch.manual_seed(0)
    model = Model(spec, texts=corpus(recipe))
    source = build("data", recipe.data["interleaved"])
    rows = [[document(model.contract, sample)] for sample in source[0]]
    batch, slots = pack(rows)
    return model, PictureReader(model.contract).attach(batch, slots)


def test_the_loss_reaches_queries_and_language_model_and_leaves_the_frozen_decoder_untouched(dreamllm):
    model, batch = dreamllm
    model.train_only(["connector", "language", "heads.image"])
    before = deepcopy(model.image_decoder.state_dict())
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(learnt, lr=0.1)
    losses = model.losses(batch)
    objective({"diffusion": losses["diffusion"]}).backward()
    for name, parameter in model.image_head.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert all(layer.mlp.down_proj.weight.grad.abs().sum() > 0 for layer in model.language.inner.model.layers)
    assert all(parameter.grad is None for parameter in model.image_decoder.parameters())
    optimiser.step()
    after = model.image_decoder.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
