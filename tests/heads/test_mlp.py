"""Small networks round the codes: Janus'."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from writing import head

WIDTH, CODES, GRID = 16, 11, (3, 4)


def made(**options):
    torch.manual_seed(0)
    return head(
        {"type": "raster", "cells": False, "alphabet": {"type": "mlp", **options}}, WIDTH, CODES, GRID
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_januss_networks_widen_a_code_and_predict_it(depth):
    """GELU stands between the layers, at neither end."""
    order = made(code_width=3, depth=depth, hidden=5)
    alphabet = order.alphabet
    linear = [layer for layer in alphabet.adapter if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (3, WIDTH),
        *[(WIDTH, WIDTH)] * (depth - 1),
    ]
    x = alphabet.codes.weight
    for i, layer in enumerate(linear):
        x = layer(functional.gelu(x) if i else x)
    codes = torch.arange(11).repeat(2)[:12].view(1, *GRID)
    torch.testing.assert_close(order.prepare(codes).embeddings[0], x[codes.flatten()])
    inner, _, outer = alphabet.output
    hidden = torch.randn(2, WIDTH)
    assert inner.out_features == 5
    torch.testing.assert_close(alphabet.logits(hidden), outer(functional.gelu(inner(hidden))))


def test_without_options_the_networks_are_januss():
    with torch.device("meta"):
        order = head({"type": "raster", "cells": False, "alphabet": {"type": "mlp"}}, 2048, 16384, (24, 24))
    shapes = {
        name: tuple(p.shape) for name, p in order.alphabet.named_parameters() if name.endswith("weight")
    }
    assert shapes == {
        "codes.weight": (16384, 8),
        "adapter.0.weight": (2048, 8),
        "adapter.2.weight": (2048, 2048),
        "output.0.weight": (2048, 2048),
        "output.2.weight": (16384, 2048),
    }
    assert order.unconditional == 0.1
