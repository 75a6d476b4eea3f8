"""What a model costs."""

import pytest
import torch
from torch import nn

from chiasm.evaluation.cost import flops
from chiasm.inference.kernels import onednn_linear


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_quick_kernels_cost_as_much_as_others(rows):
    layer, x = nn.Linear(48, 64), torch.randn(rows, 48)
    with torch.inference_mode(), onednn_linear("cpu"):
        assert flops(lambda: layer(x)) == 2 * rows * 48 * 64
