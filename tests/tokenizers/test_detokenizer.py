"""LaVIT's decoder of features equals the network written out, and sees the codes alone."""

import pytest
import torch
from plain import noise, shaken
from torch.nn import functional

from chiasm.tokenizers.detokenizer import Detokenizer

HEADS, CELLS = 2, 5


def detokenizer(depth=2):
    return shaken(Detokenizer(4, 6, depth, HEADS, 7, CELLS, 3))


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def normed(x, w, name):
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def attended(x, source, w, name):
    q, k, v = (
        linear(each, w, f"{name}.{part}") for part, each in (("query", x), ("key", source), ("value", source))
    )
    heads = zip(*(each.chunk(HEADS, -1) for each in (q, k, v)), strict=True)
    mixed = [(a @ b.T / a.shape[-1] ** 0.5).softmax(-1) @ c for a, b, c in heads]
    return linear(torch.cat(mixed, -1), w, f"{name}.out")


def written_out(codes, w, depth):
    """Of one picture, of its codes alone, which are numbered in their order."""
    codes = linear(codes, w, "input") + w["positions"][: len(codes)]
    x = w["queries"]
    for i in range(depth):
        own = normed(x, w, f"blocks.{i}.own_norm")
        x = x + attended(own, own, w, f"blocks.{i}.own")
        x = x + attended(normed(x, w, f"blocks.{i}.codes_norm"), codes, w, f"blocks.{i}.codes")
        hidden = functional.gelu(linear(normed(x, w, f"blocks.{i}.mlp_norm"), w, f"blocks.{i}.mlp.0"))
        x = x + linear(hidden, w, f"blocks.{i}.mlp.2")
    x = linear(normed(x, w, "norm"), w, "output.0").tanh()
    return linear(x, w, "output.2")


@pytest.mark.parametrize("depth", [1, 3])
def test_it_is_the_network_written_out_of_the_codes_alone(depth):
    made, vectors = detokenizer(depth), noise(3, CELLS, 4)
    counts = torch.tensor([[1.0, 0, 1, 1, 0], [1.0, 1, 1, 1, 1], [0.0, 0, 0, 0, 1]])
    features = made(vectors, counts)
    assert features.shape == (3, CELLS, 3)
    for row, own, present in zip(features, vectors, counts > 0, strict=True):
        expected = written_out(own[present], made.state_dict(), depth)
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)


def test_what_merely_fills_a_row_has_no_place():
    """Also before the first code."""
    made, vectors = detokenizer(), noise(1, 3, 4)
    counts = torch.tensor([[0.0, 0.0, 1.0]])
    torch.testing.assert_close(
        made(vectors, counts), made(vectors[:, 2:], torch.ones(1, 1)), rtol=1e-4, atol=1e-5
    )


def test_positions_and_queries_begin_small():
    made = Detokenizer(4, 64, 1, HEADS, 7, 64, 3)
    for table in (made.positions, made.queries):
        assert float(table.detach().std()) == pytest.approx(0.02, rel=0.1)
