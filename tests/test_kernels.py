"""Quick kernels give what torch's own give."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from chiasm.kernels import quick_linear

ONEDNN = "mkldnn::_linear_pointwise"


def kernels(call):
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        made = call()
    return made, {event.key for event in seen.key_averages()}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(48,), (3, 48), (2, 1, 48), (2, 5, 48)])
def test_a_linear_layer_in_use_says_the_same(shape, bias):
    layer, x = nn.Linear(48, 32, bias=bias), torch.randn(shape)
    with torch.inference_mode(), quick_linear("cpu"):
        made, names = kernels(lambda: layer(x))
    assert ONEDNN in names
    torch.testing.assert_close(made, functional.linear(x, layer.weight, layer.bias).detach())


def test_views_are_taken_as_they_are():
    weight, wide = torch.randn(48, 32).t(), torch.randn(3, 5, 96)
    for x in (wide[..., ::2], wide[..., :48], wide[..., :48].transpose(0, 1)):
        with torch.inference_mode(), quick_linear("cpu"):
            made = functional.linear(x, weight)
        torch.testing.assert_close(made, x @ weight.t())


def test_learning_and_other_precisions_keep_their_kernel():
    layer, x = nn.Linear(48, 32), torch.randn(3, 48)
    with quick_linear("cpu"):
        made, names = kernels(lambda: layer(x))
        made.sum().backward()
        with torch.no_grad():
            _, half = kernels(lambda: layer.bfloat16()(x.bfloat16()))
    assert layer.weight.grad is not None
    assert ONEDNN not in names | half
    assert functional.linear is torch._C._nn.linear
