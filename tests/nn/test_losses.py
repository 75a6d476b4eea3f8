"""Losses as sums and counts, and the cross-entropy that they are mostly made of."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from chiasm.nn import losses
from chiasm.nn.losses import Loss, added, cross_entropy, objective


def loss(*terms: float, weight: float = 1.0) -> Loss:
    return Loss.of(torch.tensor(terms), weight)


def test_a_loss_has_one_term_an_element():
    of_six = Loss.of(torch.arange(6.0).view(2, 3), weight=0.5)
    assert (float(of_six.sum), float(of_six.count), of_six.weight) == (15, 6, 0.5)
    assert float(of_six.mean) == 2.5  # the mean is not weighted: that is the objective's
    assert float(Loss.of(torch.tensor([7.0])).mean) == 7
    assert (Loss.of(torch.ones(2)).weight, Loss(torch.ones(()), torch.ones(())).weight) == (1, 1)


def test_losses_of_one_name_have_the_terms_of_both():
    both = added({"text": loss(1.0, 2.0), "image": loss(5.0)}, {"text": loss(9.0), "balance": loss(4.0)})
    assert {name: (float(each.sum), float(each.count)) for name, each in both.items()} == {
        "text": (12, 3),
        "image": (5, 1),
        "balance": (4, 1),
    }


def test_added_losses_are_under_one_mean():
    """Not the mean of the two means, which would be 4."""
    both = loss(1.0, 2.0, 3.0, weight=0.5) + loss(6.0, weight=0.5)
    assert (float(both.sum), float(both.count), float(both.mean), both.weight) == (12, 4, 3, 0.5)


def test_the_objective_is_the_weighted_sum_of_the_means():
    assert float(objective({"text": loss(1.0, 3.0), "image": loss(10.0, weight=0.25)})) == 2 + 0.25 * 10


def test_micro_batches_of_unlike_sizes_add_up_to_the_whole_batch():
    """Each is divided by the terms of the whole step: for a mean of means the one term of the second would weigh
    as much as the three of the first."""
    first, second = {"text": loss(1.0, 2.0, 3.0, weight=2.0)}, {"text": loss(6.0, weight=2.0)}
    parts = [objective(each, counts={"text": 4.0}) for each in (first, second)]
    assert float(sum(parts)) == float(objective({"text": first["text"] + second["text"]})) == 2 * 12 / 4


@pytest.mark.parametrize("counts", [None, {"text": 2.0, "image": 0.0}])
def test_a_loss_without_a_term_is_zero_and_moves_nothing(counts):
    """As `image` in a batch of nothing but text; 0 / 0 would make the whole objective NaN."""
    text = torch.tensor([1.0, 3.0], requires_grad=True)
    empty = Loss.of(text[:0])
    total = objective({"text": Loss.of(text), "image": empty}, counts)
    assert float(total.detach()) == 2
    assert float(empty.mean.detach()) == 0
    total.backward()
    assert text.grad.tolist() == [0.5, 0.5]


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


@pytest.mark.parametrize("chunk", [1, 40, 10_000])
def test_a_label_weighs_as_much_as_it_is_said_to(monkeypatch, chunk):
    monkeypatch.setitem(losses._CHUNK, "cpu", chunk)
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 19, requires_grad=True), torch.randint(0, 19, (4,))
    weights = torch.tensor([0.0, 0.5, 1.0, 3.0])
    value = cross_entropy(logits, labels, weights)
    expected = (F.cross_entropy(logits, labels, reduction="none") * weights).sum()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits) for each in (value, expected)))


@pytest.mark.parametrize("chunk", [1, 10_000])
def test_each_row_has_its_label(monkeypatch, chunk):
    monkeypatch.setitem(losses._CHUNK, "cpu", chunk)
    with pytest.raises((ValueError, RuntimeError)):
        cross_entropy(torch.randn(7, 19), torch.zeros(5, dtype=torch.long))


def test_cross_entropy_of_nothing_is_zero():
    logits = torch.zeros(0, 19, requires_grad=True)
    value = cross_entropy(logits, torch.zeros(0, dtype=torch.long))
    value.backward()
    assert (float(value.detach()), logits.grad.shape) == (0, (0, 19))


def test_cross_entropy_of_half_precision_is_summed_in_full():
    torch.manual_seed(0)
    logits, labels = torch.randn(500, 19).bfloat16(), torch.randint(0, 19, (500,))
    value = cross_entropy(logits, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, F.cross_entropy(logits.float(), labels, reduction="sum"))


class Largest(TorchDispatchMode):
    """Numbers of the largest float32 tensor that is computed, and how many calls there were."""

    def __init__(self):
        super().__init__()
        self.numbers, self.calls = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls += 1
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.dtype == torch.float32:
                self.numbers = max(self.numbers, each.numel())
        return result


@pytest.mark.parametrize(("device", "chunk"), [("cpu", 2**19), ("meta", 2**26)])
def test_no_more_of_the_logits_than_a_chunk_is_ever_in_full_precision(device, chunk):
    """On CPU two MiB of them. A chunk is used whole, as small ones would starve a GPU, and holds at least a row."""
    for rows, width, numbers, chunks in ((20, chunk // 16, chunk, 2), (3, 2 * chunk, 2 * chunk, 3)):
        logits = torch.zeros(rows, width, dtype=torch.bfloat16, device=device, requires_grad=True)
        labels = torch.zeros(rows, dtype=torch.long, device=device)
        with Largest() as largest:
            cross_entropy(logits, labels).backward()
        assert largest.numbers == numbers
        assert largest.calls < 20 + 30 * chunks
