"""DocOwl-1.5's H-Reducer: two convolutions whose blocks do not overlap."""

import pytest
import torch
from einops import rearrange

from chiasm.connectors.h_reducer import HReducer


@pytest.mark.parametrize(("kernel", "grid"), [((1, 2), (2, 2)), ((1, 4), (4, 8)), ((2, 1), (4, 3))])
def test_it_is_torchs_convolutions_one_behind_the_other(kernel, grid):
    part = HReducer(6, 8, kernel=kernel, closing=0)
    x = torch.randn(3, *grid, 6)
    wide = part.activation(part.mix(rearrange(x, "n h w c -> n c h w")))
    reduced = part.reduce(rearrange(wide, "n (x c) h w -> n c h (w x)", c=6))
    expected = part.output(reduced.flatten(2).transpose(1, 2))
    torch.testing.assert_close(part(x), expected, atol=1e-5, rtol=1e-5)


def test_it_reads_no_memory_that_nobody_wrote():
    """As torch's convolution by 1 x 2 does in bf16 on CPUs, where one column comes out."""
    part, x, outputs = HReducer(432, 16, kernel=(1, 2)), torch.randn(5, 2, 2, 432), []
    for value in (0.0, float("nan"), 1.0, float("nan")):
        del [torch.full((2**size,), value) for size in range(4, 21)][:]  # what the next allocations may get
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            outputs.append(part(x))
    assert all(torch.equal(output, outputs[0]) for output in outputs)
