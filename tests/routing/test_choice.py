"""Top-k gating with a capacity against the plainest way to write it."""

import math

import pytest
import torch

from chiasm.routing import choice
from chiasm.routing.choice import choose


def chosen_by_hand(scores, count, capacity, least, noise):
    """For each token its experts, and for each expert its weight; places are given one by one."""
    tokens, experts = scores.shape
    gates = scores.softmax(1).tolist()
    room = tokens if capacity is None else max(math.ceil(tokens / experts * capacity * count - 1e-5), least)
    chosen, taken = [[] for _ in range(tokens)], [0] * experts
    kept = torch.zeros(tokens, experts)
    for rank in range(count):
        for token in range(tokens):
            liking = scores[token] + (noise[token] if rank and noise is not None else 0)
            rest = [expert for expert in range(experts) if expert not in chosen[token]]
            best = max(rest, key=lambda expert: float(liking[expert]))
            chosen[token].append(best)
            if taken[best] < room:
                kept[token, best] = gates[token][best]
                taken[best] += 1
    sums = kept.sum(1, keepdim=True) if count > 1 else torch.ones(tokens, 1)
    return chosen, torch.where(kept > 0, kept / sums, 0), room


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("capacity", [None, 0.25, 0.5, 1.0, 1.5, 9.0])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_choices_by_hand(count, capacity, noisy):
    for seed in range(5):
        torch.manual_seed(seed)
        scores = torch.randn(10, 4) + torch.tensor([1.0, 0.0, 0.0, -1.0])  # one expert is much liked
        noise = torch.randn(10, 4) if noisy else None
        for least in (0, 2):
            ours = choose(scores, count, capacity=capacity, least=least, noise=noise)
            chosen, weights, room = chosen_by_hand(scores, count, capacity, least, noise)
            assert ours.experts.tolist() == chosen
            assert ours.capacity == (None if capacity is None else room)
            torch.testing.assert_close(ours.gates, scores.softmax(1))
            if count > 1:
                torch.testing.assert_close(ours.weights, weights)
            else:  # the original gives the places of a single choice to any of its tokens
                assert (ours.weights > 0).sum(0).tolist() == (weights > 0).sum(0).tolist()
                held = ours.weights > 0
                assert torch.equal(ours.weights[held], ours.gates[held])
            firsts = [sum(experts[0] == e for experts in chosen) for e in range(4)]
            assert ours.firsts.tolist() == firsts


def test_the_balance_is_the_sum_over_experts_of_share_times_gate_for_each_token():
    torch.manual_seed(0)
    scores = torch.randn(6, 3)
    ours = choose(scores, 2)
    total, tokens = ours.balance(ranks=False)
    gates, firsts = scores.softmax(1), scores.argmax(1)
    expected = sum(3 * gates[t, e] * (firsts == e).float().mean() for t in range(6) for e in range(3))
    assert tokens == 6
    torch.testing.assert_close(total, expected)


def test_the_balance_counts_the_choices_of_all_ranks(monkeypatch):
    """Another rank's ten tokens chose expert 1."""
    others = torch.tensor([0.0, 10.0])
    monkeypatch.setattr(choice, "over_all_ranks", lambda counts: counts + others)
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    gates = scores.softmax(1).sum(0)
    alone, _ = choose(scores, 1).balance(ranks=False)
    together, tokens = choose(scores, 1).balance(ranks=True)
    torch.testing.assert_close(alone, 2 * gates[0])
    torch.testing.assert_close(together, 2 * (gates[0] * 2 / 12 + gates[1] * 10 / 12))
    assert tokens == 2


def test_no_token_chooses_nothing():
    for count in (1, 2):
        ours = choose(torch.zeros(0, 3), count, capacity=1.0)
        assert (ours.weights.shape, ours.capacity) == ((0, 3), 0)
        total, tokens = ours.balance(ranks=False)
        assert (float(total), tokens) == (0, 0)
