"""Using a model, not training it: without gradients, and on CPU with a quicker kernel."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from chiasm.model import Model


P = ParamSpec("P")
R = TypeVar("R")


def inference_mode(function: Callable[Concatenate[Model, P], R]) -> Callable[Concatenate[Model, P], R]:
    """A function of a model that uses it: in inference mode, with quick kernels."""

    @wraps(function)
    def run(model: Model, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(), fastest_linear(model.device):
            return function(model, *args, **kwargs)

    return run


FEW = 4  # rows

# The kernel; None where torch is built without it.
LINEAR = torch.ops.mkldnn._linear_pointwise if torch.backends.mkldnn.is_available() else None


def fastest_linear(device: torch.device | str) -> AbstractContextManager[None]:
    """A context in which linear layers in fp32 without a gradient on CPU run by the quicker of two kernels.

    torch gives them to MKL, which takes more than twice as long where it does without AVX-512, as on AMD's: there
    oneDNN computes them. With AVX-512, MKL is the quicker by far for the few rows of one token.
    """
    return nullcontext() if _mkl_has_avx512() else onednn_linear(device)


@cache
def _mkl_has_avx512() -> bool:
    """Whether MKL uses AVX-512 here: on Intel's processors that have it."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    facts = Path("/proc/cpuinfo")
    return "GenuineIntel" in (facts.read_text(errors="replace") if facts.is_file() else platform.processor())


@contextmanager
def onednn_linear(device: torch.device | str) -> Iterator[None]:
    """Within this context, linear layers in fp32 without a gradient on CPU are computed by oneDNN.

    Results differ from MKL's in the last bits. Other devices keep what they have.
    """
    if torch.device(device).type != "cpu" or LINEAR is None:
        yield
        return
    with _OneDNN():
        yield


class _OneDNN(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.linear and not kwargs and _fits(*args):
            return _linear(*args)
        return function(*args, **(kwargs or {}))


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _linear(
    x: Float[Tensor, "*s c"], weight: Float[Tensor, "d c"], bias: Float[Tensor, " d"] | None = None
) -> Float[Tensor, "*s d"]:
    rows = x.numel() // x.shape[-1]
    if 1 < rows <= FEW and weight.shape[0] >= weight.shape[1]:
        return _few(x.reshape(rows, -1), weight, bias).view(*x.shape[:-1], -1)
    assert LINEAR is not None
    return LINEAR(x, weight, bias, "none", [], "")


def _few(
    x: Float[Tensor, "m c"], weight: Float[Tensor, "d c"], bias: Float[Tensor, " d"] | None
) -> Float[Tensor, "m d"]:
    """The transposed product, for which oneDNN need not rearrange the weights and MKL is quick."""
    product = weight @ x.t() if bias is None else torch.addmm(bias[:, None], weight, x.t())
    return product.t().contiguous()
