"""Codes without a codebook: their numbers, and entropies checked against all codes written out."""

import math

import pytest
import torch
from plain import noise, shaken

from chiasm.tokenizers.entropy import mean_choice
from chiasm.tokenizers.lookup_free import Signs, join_code, split_code
from chiasm.tokenizers.quantizers.fsq import FiniteScalars
from chiasm.tokenizers.quantizers.lfq import LookupFree
from chiasm.tokenizers.quantizers.lfq_bitwise import BitwiseLookupFree
from chiasm.tokenizers.quantizers.lfq_projected import ProjectedLookupFree


def latents(bits=5, count=7):
    return torch.randn(count, 1, 1, bits, generator=torch.Generator().manual_seed(0)) / 20


def test_a_code_is_the_signs_in_the_declared_order():
    signs = torch.tensor([1.0, -0.5, 3.0, 0.0]).view(1, 1, 1, 4)
    assert Signs(4, big_endian=False).encode(signs).item() == 0b0101  # channel 0 is the lowest bit
    assert Signs(4, big_endian=True).encode(signs).item() == 0b1010
    for big_endian in (False, True):
        quantizer, codes = Signs(4, big_endian=big_endian), torch.arange(16)
        assert torch.equal(quantizer.encode(quantizer.vectors(codes)), codes)


def test_codes_are_cut_and_joined():
    codes = torch.arange(2**9)
    parts = split_code(codes, [3, 6])
    assert [int(part.max()) + 1 for part in parts] == [8, 64]
    assert split_code(torch.tensor([0b101_110_011]), [3, 6])[0].item() == 0b011
    assert torch.equal(join_code(parts, [3, 6]), codes)


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_entropies_are_those_of_all_codes(bits):
    quantizer = LookupFree(bits=bits, commitment=0.25, entropy=0.1)
    flat = latents(bits).flatten(0, 2)
    codebook = quantizer.vectors(torch.arange(2**bits))
    chances = (2 * flat @ codebook.T / 0.01).softmax(-1)
    assert torch.allclose(mean_choice(4 / 0.01 * flat), chances.mean(0), atol=1e-6)
    single, mean = quantizer.entropies(flat)
    assert torch.allclose(single, torch.special.entr(chances).sum(-1), atol=1e-5)
    assert torch.allclose(mean, torch.special.entr(chances.mean(0)).sum(), atol=2e-3)


def test_eighteen_bits_fit_in_memory():
    """The original holds 262,144 chances of every vector; here 512 twice."""
    flat = latents(18, 64).requires_grad_()
    losses = LookupFree(bits=18, commitment=0.25, entropy=0.1)(flat).losses
    losses["entropy"].sum.backward()
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize(
    "quantizer",
    [
        LookupFree(bits=5, commitment=0.25, entropy=0.1),
        BitwiseLookupFree(bits=5, commitment=0.1, entropy=0.1),
        ProjectedLookupFree(bits=5, commitment=0.25, entropy=0.1, diversity=1.0, soft_clamp=0.0),
    ],
)
def test_the_gradient_goes_straight_through_and_sure_even_use_is_best(quantizer):
    inputs = latents().requires_grad_()
    quantized = quantizer(inputs)
    assert set(quantized.vectors.detach().unique().tolist()) <= {-1.0, 1.0} or torch.allclose(
        quantized.vectors.detach().abs(), torch.ones(()), atol=1e-6
    )
    (3 * quantized.vectors).sum().backward()
    assert torch.equal(inputs.grad, torch.full_like(inputs, 3.0))
    every = quantizer.vectors(torch.arange(32)).view(32, 1, 1, 5)
    one = every[:1].expand(32, 1, 1, 5)
    assert quantizer(every).losses["entropy"].mean < -1e-3
    assert quantizer(every).losses["entropy"].mean < quantizer(one).losses["entropy"].mean
    assert quantizer(every).losses["commitment"].mean < 1e-9


def test_every_finite_scalar_code_is_reached_and_comes_back():
    quantizer = FiniteScalars(levels=[4, 3, 5])
    codes = torch.arange(60).view(1, 6, 10)
    vectors = quantizer.vectors(codes)
    assert vectors.min() == -1
    assert vectors.max() == 1
    far = torch.tensor([-9.0, 0.0, 9.0])
    reached = quantizer.encode(torch.cartesian_prod(far, far, far)[None, None])
    assert {int(code) for code in reached.flatten()} >= {0, 59}
    assert quantizer(torch.zeros(1, 1, 1, 3)).vectors.abs().max() == 0
    assert quantizer.vectors(torch.tensor([[[1]]])).flatten().tolist() == [-0.5, -1.0, -1.0]


def test_spherical_codes_have_one_length_and_only_directions_count():
    quantizer = ProjectedLookupFree(
        bits=5, commitment=1.0, entropy=0.1, diversity=1.0, soft_clamp=0.0, scale=2.0, spherical=True
    )
    inputs = latents()
    quantized = quantizer(inputs)
    assert torch.allclose(quantized.vectors.norm(dim=-1), torch.tensor(2.0))
    assert torch.allclose(quantized.vectors, 2 * inputs.sign() / 5**0.5)
    assert torch.allclose(quantizer.vectors(quantized.codes), quantized.vectors)
    for name, loss in quantizer(7 * inputs).losses.items():
        torch.testing.assert_close(loss.mean, quantized.losses[name].mean)


def test_the_commitment_of_bits_is_the_originals_with_its_gradient():
    inputs = latents().requires_grad_()
    loss = (
        BitwiseLookupFree(bits=5, commitment=1.0, entropy=0.0, repeated=0.25)(inputs)
        .losses["commitment"]
        .mean
    )
    loss.backward()
    true = latents().requires_grad_()
    through = true + (true.sign() - true).detach()
    expected = (through.detach() - true).square().mean() + 0.25 * (through - true.detach()).square().mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(inputs.grad, true.grad)


@pytest.mark.parametrize("clamped", [False, True])
def test_symmetric_finite_scalars_lie_evenly_from_one_end_to_the_other(clamped):
    quantizer = FiniteScalars(levels=[2, 3, 4], symmetric=True, clamped=clamped)
    vectors = quantizer.vectors(torch.arange(24))
    assert [sorted(set(column.tolist())) for column in vectors.T] == [
        [-1.0, 1.0],
        [-1.0, 0.0, 1.0],
        pytest.approx([-1.0, -1 / 3, 1 / 3, 1.0]),
    ]
    assert torch.equal(
        quantizer.encode(torch.atanh(0.9 * vectors) if not clamped else vectors), torch.arange(24)
    )


def test_clamped_finite_scalars_are_linear_between_their_ends():
    """Of 5 levels, 0.3 stands for 0.3 x 2 of the steps from the middle, which is one."""
    quantizer = FiniteScalars(levels=[5], clamped=True)
    assert quantizer(torch.tensor([[0.3], [0.2], [-7.0]])).vectors.flatten().tolist() == [0.5, 0.0, -1.0]


@pytest.mark.parametrize(
    ("diversity", "offset", "whole"), [(0.0, None, False), (1.0, None, True), (0.0, -1.0, True)]
)
def test_an_entropy_that_is_no_sum_over_positions_is_of_a_whole_batch(diversity, offset, whole):
    quantizer = ProjectedLookupFree(
        bits=5, commitment=0.25, entropy=0.1, diversity=diversity, soft_clamp=0.0, offset=offset
    )
    parts = (torch.full((2, 5), 0.001), torch.full((2, 5), 0.1))  # unsure ones, and surer ones
    signs = [each.sign() for each in parts]
    halves = sum(quantizer.losses(*pair)["entropy"].sum for pair in zip(parts, signs, strict=True))
    together = quantizer.losses(torch.cat(parts), torch.cat(signs))["entropy"].sum
    assert bool(torch.isclose(halves, together)) != whole
    assert (quantizer.indivisible(ranks=False, rows=1) is not None) == whole


def softmaxed(vectors, codes, temperature):
    """Chances of each vector to take each code, by a softmax over negative squared distances; row by row."""
    rows = []
    for vector in vectors:
        distances = [float((vector - code).square().sum()) for code in codes]
        least = min(distances)
        weights = [math.exp((least - each) / temperature) for each in distances]
        rows.append([each / sum(weights) for each in weights])
    return rows


def entropy_of(chances, least=0.0):
    return -sum(p * math.log(max(p, least)) for p in chances if p)


def mean_of(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def all_signs(bits, big_endian):
    order = range(bits - 1, -1, -1) if big_endian else range(bits)
    return torch.tensor([[1.0 if code >> place & 1 else -1.0 for place in order] for code in range(2**bits)])


def test_the_entropy_over_all_codes_together_is_a_loop_over_them():
    """Open-MAGVIT2's, with the two shares of it weighed apart."""
    flat = latents(3, 6).view(2, 1, 3, 3)
    rows = softmaxed(flat.flatten(0, 2), all_signs(3, False), 0.01)
    single = sum(map(entropy_of, rows)) / 6
    even = -sum(p * math.log(p + 1e-5) for p in mean_of(rows))
    quantizer = LookupFree(bits=3, commitment=0.5, entropy=0.25, sure=3.0, even=2.0)
    losses = quantizer(flat).losses
    assert float(losses["entropy"].mean) == pytest.approx(3 * single - 2 * even, abs=1e-4)
    assert (float(losses["entropy"].count), losses["entropy"].weight) == (6.0, 0.25)
    gaps = sum((abs(float(x)) - 1) ** 2 for x in flat.flatten())
    assert float(losses["commitment"].sum) == pytest.approx(gaps, rel=1e-5)
    assert (float(losses["commitment"].count), losses["commitment"].weight) == (18.0, 0.5)


def test_the_entropy_of_each_bit_is_a_loop_over_bits():
    """Show-o's: the chances of a bit are a softmax over its distances from -1 and 1, without a temperature."""
    flat = latents(3, 6).view(2, 1, 3, 3)
    losses = BitwiseLookupFree(bits=3, commitment=0.5, entropy=0.25)(10 * flat).losses
    bits = [softmaxed(10 * column[:, None], [-1.0, 1.0], 1.0) for column in flat.flatten(0, 2).T]
    single = sum(entropy_of(row) for rows in bits for row in rows) / 18
    even = sum(entropy_of(mean_of(rows)) for rows in bits) / 3
    assert float(losses["entropy"].mean) == pytest.approx(single - even, abs=1e-5)
    assert (float(losses["entropy"].count), losses["entropy"].weight) == (18.0, 0.25)
    gaps = sum((abs(10 * float(x)) - 1) ** 2 for x in flat.flatten())
    assert float(losses["commitment"].sum) == pytest.approx(1.25 * gaps, rel=1e-5)
    assert (float(losses["commitment"].count), losses["commitment"].weight) == (18.0, 0.5)


PROJECTED = {"commitment": 0.5, "entropy": 0.25, "diversity": 2.0, "soft_clamp": 0.0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 3.0},
        {"scale": 3.0, "spherical": True},
        {"soft_clamp": 0.7},
        {"offset": 1.5},
    ],
)
def test_the_projected_entropy_is_a_loop_over_all_codes(options):
    """vector-quantize-pytorch's, whose logarithms see no chance below 1e-5."""
    quantizer = shaken(ProjectedLookupFree(width=5, bits=3, **(PROJECTED | options)))
    given, scale = noise(2, 1, 3, 5), options.get("scale", 1.0)
    weights = quantizer.state_dict()
    inner = given.flatten(0, 2) @ weights["project_in.weight"].T + weights["project_in.bias"]
    codes = scale * all_signs(3, True)
    if options.get("soft_clamp"):
        inner = 0.7 * (inner / 0.7).tanh()
    if options.get("spherical"):
        inner, codes = scale * inner / inner.norm(dim=1, keepdim=True), codes / 3**0.5
    chosen = [sum(int(x > 0) << 2 - i for i, x in enumerate(row)) for row in inner]
    quantized = quantizer(given)
    assert quantized.codes.flatten().tolist() == quantizer.encode(given).flatten().tolist() == chosen
    vectors = codes[chosen] @ weights["project_out.weight"].T + weights["project_out.bias"]
    torch.testing.assert_close(quantized.vectors.flatten(0, 2), vectors, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        quantizer.vectors(quantized.codes).flatten(0, 2), vectors, rtol=1e-4, atol=1e-5
    )
    rows = softmaxed(inner, codes, 0.01)
    entropy = sum(entropy_of(row, 1e-5) for row in rows) / 6 - 2 * entropy_of(mean_of(rows), 1e-5)
    if "offset" in options:
        entropy = math.log1p(math.exp(entropy + 1.5))
    loss = quantized.losses["entropy"]
    assert float(loss.mean) == pytest.approx(entropy, abs=1e-3)
    assert (float(loss.count), loss.weight) == (6.0, 0.25)
    gaps = (inner - codes[chosen]).square().sum()
    torch.testing.assert_close(quantized.losses["commitment"].sum, gaps, rtol=1e-4, atol=1e-5)
    assert (float(quantized.losses["commitment"].count), quantized.losses["commitment"].weight) == (18.0, 0.5)


def test_bits_are_projected_only_where_their_number_differs():
    assert not list(ProjectedLookupFree(width=5, bits=5, **PROJECTED).parameters())
    quantizer = ProjectedLookupFree(width=5, bits=3, **PROJECTED)
    assert (quantizer.project_in.weight.shape, quantizer.project_out.weight.shape) == ((3, 5), (5, 3))


def test_a_batch_can_be_shared_out_only_without_the_entropy_of_its_mean():
    def divisible(quantizer):
        return quantizer.indivisible(ranks=True, rows=2) is None

    for entropy, even in ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, 1.0)):
        whole = bool(entropy and even)
        assert divisible(LookupFree(bits=3, commitment=1.0, entropy=entropy, even=even)) != whole
        projected = PROJECTED | {"entropy": entropy, "diversity": even}
        assert divisible(ProjectedLookupFree(bits=3, **projected)) != whole
        assert divisible(BitwiseLookupFree(bits=3, commitment=1.0, entropy=entropy)) == (not entropy)


def test_the_order_of_the_bits_is_each_projects():
    assert LookupFree(bits=3).big_endian is False
    assert BitwiseLookupFree(bits=3).big_endian is True
    assert ProjectedLookupFree(bits=3).big_endian is True
