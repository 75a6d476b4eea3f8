"""Losses as sums and counts, and the cross-entropy that they are mostly made of."""

import pytest
import torch
import torch.nn.functional as F

from chiasm import losses
from chiasm.losses import cross_entropy


@pytest.mark.parametrize("chunk", [1, 40, 10_000])
def test_cross_entropy_and_its_gradient_equal_torch(monkeypatch, chunk):
    monkeypatch.setitem(losses._CHUNK, "cpu", chunk)
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 19), torch.randint(0, 19, (7,))
    results = []
    for function in (cross_entropy, lambda x, y: F.cross_entropy(x, y, reduction="sum")):
        x = logits.clone().requires_grad_()
        value = function(x, labels)
        (3 * value).backward()
        results.append((value.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1])


def test_cross_entropy_of_half_precision_is_summed_in_full():
    torch.manual_seed(0)
    logits, labels = torch.randn(500, 19).bfloat16(), torch.randint(0, 19, (500,))
    value = cross_entropy(logits, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, F.cross_entropy(logits.float(), labels, reduction="sum"))
