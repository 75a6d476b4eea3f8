"""Models without weights, and weights streamed into them."""

import threading

import pytest
import torch
from torch import nn

from chiasm.distribution.devices import DTYPES
from chiasm.model.checkpoint import load_model, save_model
from chiasm.recipe import load_recipe
from chiasm.storage.skeleton import stream_into, without_weights

CPU = torch.device("cpu")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight
        self.frozen = nn.Parameter(torch.randn(2), requires_grad=False)
        self.register_buffer("places", torch.arange(3.0), persistent=False)
        self.register_buffer("inv_freq", torch.arange(3.0) / 7)


def test_a_module_without_weights_has_sizes_and_buffers_and_takes_no_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with without_weights():
        module = Tied()
    assert {each.device.type for each in module.parameters()} == {"meta"}
    assert module.places.tolist() == [0, 1, 2]
    assert torch.equal(torch.get_rng_state(), before)
    assert nn.Linear(2, 2).weight.device.type == "cpu"


def test_streamed_weights_keep_ties_frozenness_and_their_own_numbers():
    tensors = {
        "table.weight": torch.randn(5, 3).bfloat16(),
        "frozen": torch.ones(2),
        "inv_freq": torch.ones(3),
    }
    tensors["head.weight"] = tensors["table.weight"]
    with without_weights():
        module = Tied()
    stream_into(module, tensors, CPU, lambda name: None)
    assert module.head.weight is module.table.weight
    assert isinstance(module.head.weight, nn.Parameter)
    assert torch.equal(module.table.weight, tensors["table.weight"])
    assert module.table.weight.data_ptr() != tensors["table.weight"].data_ptr()
    assert [module.table.weight.requires_grad, module.frozen.requires_grad] == [True, False]
    assert [each.dtype for each in (module.table.weight, module.frozen)] == [torch.bfloat16, torch.float32]
    assert module.inv_freq.tolist() == [1, 1, 1]


def test_angles_stay_exact_when_other_numbers_are_asked_for():
    tensors = {name: torch.ones_like(each) for name, each in Tied().state_dict().items()}
    with without_weights():
        module = Tied()
    stream_into(module, tensors, CPU, lambda name: torch.bfloat16)
    assert {each.dtype for each in module.parameters()} == {torch.bfloat16}
    assert [module.places.dtype, module.inv_freq.dtype] == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float16])
def test_a_checkpoints_weights_keep_their_numbers_in_use(tiny, tiny_model, tmp_path, kept):
    model, _ = tiny_model
    save_model(model.to(kept), load_recipe(tiny), tmp_path / "half")
    loaded = load_model(tmp_path / "half", "cpu")
    assert {each.dtype for each in loaded.parameters()} == {kept}
    assert loaded.chat("a dog", tokens=2) is not None
    assert loaded.generate("a dog", seed=1)[0].size == (32, 32)
    whole = load_model(tmp_path / "half", "cpu", "fp32")
    assert {each.dtype for each in whole.language.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp64"])
def test_with_other_numbers_a_model_sees_speaks_and_draws_and_codes_stay_exact(
    tiny, tiny_model, tmp_path, dtype
):
    from PIL import Image

    save_model(tiny_model[0], load_recipe(tiny), tmp_path / "whole")
    loaded = load_model(tmp_path / "whole", "cpu", dtype)
    assert loaded.language.embed(torch.tensor([1])).dtype == DTYPES[dtype]
    assert {each.dtype for each in loaded.image_tokenizer.parameters()} == {torch.float32}
    picture = Image.new("RGB", (20, 30))
    assert loaded.chat([{"role": "user", "content": [picture, "What is this?"]}], tokens=2) is not None
    assert loaded.generate(["a dog", "a cat"], guidance=2.0)[1].size == (32, 32)


def test_threads_that_build_at_once_leave_torch_as_it_was():
    register = nn.Module.register_parameter
    inside, leave = threading.Event(), threading.Event()

    def build():
        with without_weights():
            inside.set()
            leave.wait(10)

    first = threading.Thread(target=build)
    first.start()
    inside.wait(10)
    assert nn.Linear(2, 2).weight.device.type == "cpu"  # of another thread, meanwhile
    second = threading.Thread(target=build)
    second.start()
    leave.set()
    first.join(10)
    second.join(10)
    assert nn.Module.register_parameter is register
