"""Quick kernels give what torch's own give."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from chiasm.inference import kernels as module
from chiasm.inference.kernels import fastest_linear, inference_mode, onednn_linear

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
    with torch.inference_mode(), onednn_linear("cpu"):
        made, names = kernels(lambda: layer(x))
    assert ONEDNN in names
    torch.testing.assert_close(made, functional.linear(x, layer.weight, layer.bias).detach())


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(1,), (2,), (4,), (2, 2), (5,), (3, 2)])
@pytest.mark.parametrize("outputs", [32, 31, 96])
def test_a_few_rows_of_a_layer_that_does_not_narrow_leave_its_weights_as_they_stand(outputs, rows, bias):
    """oneDNN rearranges the weights at each call; for two to four rows that is most of the time."""
    layer, x = nn.Linear(32, outputs, bias=bias), torch.randn(*rows, 32)
    with torch.inference_mode(), onednn_linear("cpu"):
        made, names = kernels(lambda: layer(x))
    assert (ONEDNN not in names) == (2 <= x[..., 0].numel() <= 4 and outputs >= 32)
    assert made.is_contiguous()
    torch.testing.assert_close(made, functional.linear(x, layer.weight, layer.bias).detach())


def test_views_are_taken_as_they_are():
    weight, wide = torch.randn(48, 32).t(), torch.randn(3, 5, 96)
    for x in (wide[..., ::2], wide[..., :48], wide[..., :48].transpose(0, 1)):
        with torch.inference_mode(), onednn_linear("cpu"):
            made = functional.linear(x, weight)
        torch.testing.assert_close(made, x @ weight.t())


def test_learning_and_other_precisions_keep_their_kernel():
    layer, x = nn.Linear(48, 32), torch.randn(3, 48)
    with onednn_linear("cpu"):
        made, names = kernels(lambda: layer(x))
        made.sum().backward()
        with torch.no_grad():
            _, half = kernels(lambda: layer.bfloat16()(x.bfloat16()))
    assert layer.weight.grad is not None
    assert ONEDNN not in names | half
    assert functional.linear is torch._C._nn.linear


@pytest.mark.parametrize(
    "call",
    [
        lambda x, weight: functional.linear(x, weight=weight),
        lambda x, weight: functional.linear(x[:0], weight),
        lambda x, weight: functional.linear(x.double(), weight.double()),
    ],
)
def test_what_the_quick_kernel_does_not_do_torchs_own_does(call):
    x, weight = torch.randn(3, 48), torch.randn(32, 48)
    with torch.inference_mode(), onednn_linear("cpu"):
        made, names = kernels(lambda: call(x, weight))
    assert ONEDNN not in names
    assert torch.equal(made, call(x, weight))


def test_autocast_keeps_its_precision():
    layer, x = nn.Linear(48, 32), torch.randn(3, 48)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), onednn_linear("cpu"):
        made, names = kernels(lambda: layer(x))
    assert ONEDNN not in names
    assert made.dtype == torch.bfloat16


def test_other_devices_keep_their_kernel():
    with torch.inference_mode(), onednn_linear("meta"):
        _, names = kernels(lambda: nn.Linear(48, 32)(torch.randn(3, 48)))
    assert ONEDNN not in names


def test_a_function_that_uses_a_model_runs_without_gradients_and_returns_what_it_gives():
    class OnCPU(nn.Linear):
        device = torch.device("cpu")

    @inference_mode
    def use(model, x, *, factor):
        """What it does."""
        return model(x) * factor, torch.is_inference_mode_enabled()

    model, x = OnCPU(48, 32), torch.randn(3, 48)
    made, inference = use(model, x, factor=2)
    assert inference
    assert not made.requires_grad
    torch.testing.assert_close(made, 2 * model(x).detach())
    assert use.__doc__ == "What it does."


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("mkl_is_quick", [True, False])
def test_where_mkl_has_avx512_it_computes_linear_layers_and_elsewhere_onednn_does(mkl_is_quick, monkeypatch):
    monkeypatch.setattr(module, "_mkl_has_avx512", lambda: mkl_is_quick)
    layer, x = nn.Linear(48, 32), torch.randn(5, 48)
    with torch.inference_mode(), fastest_linear("cpu"):
        made, names = kernels(lambda: layer(x))
    assert (ONEDNN in names) == (not mkl_is_quick)
    torch.testing.assert_close(made, functional.linear(x, layer.weight, layer.bias).detach())


@pytest.mark.parametrize(
    ("capability", "facts", "has"),
    [
        ("AVX512", "vendor_id\t: GenuineIntel", True),
        ("AVX512", "vendor_id\t: AuthenticAMD", False),
        ("AVX2", "vendor_id\t: GenuineIntel", False),
    ],
)
def test_mkl_has_avx512_on_intels_processors_that_have_it(capability, facts, has, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: facts)
    module._mkl_has_avx512.cache_clear()
    try:
        assert module._mkl_has_avx512() == has
    finally:
        module._mkl_has_avx512.cache_clear()
