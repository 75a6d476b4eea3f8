"""Rules between tensor names: both ways, exactly, and loud."""

import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.interop.mapping import (
    Chain,
    Join,
    NameMap,
    OwnTensors,
    Permute,
    Reshape,
    Rule,
    Split,
    Unsqueeze,
    Unused,
)


@pytest.mark.parametrize(
    ("theirs", "ours", "transform", "tensors"),
    [
        ("l.{n}.qkv", ("b.{n}.q", "b.{n}.k"), Split((2, 4)), {"l.3.qkv": torch.randn(6, 5)}),
        (
            ("l.{n}.q", "l.{n}.k"),
            "b.{n}.qk",
            Join((2, 3), 1),
            {"l.0.q": torch.randn(4, 2), "l.0.k": torch.randn(4, 3)},
        ),
        ("w", "v", Permute((2, 0, 1)), {"w": torch.randn(2, 3, 4)}),
        ("w", "v", Reshape((6,), (2, 3)), {"w": torch.randn(6)}),
        ("w", "v", Chain((Unsqueeze(), Permute((1, 0)))), {"w": torch.randn(6)}),
        ("a.{rest...}", "x.y.{rest...}", None, {"a.b.c": torch.randn(2), "a.d": torch.randn(1)}),
    ],
)
def test_there_and_back_is_the_same(theirs, ours, transform, tensors):
    names = NameMap(Rule(theirs, ours, transform) if transform else Rule(theirs, ours))
    made, unused = names.to_ours(tensors, "it")
    assert not unused
    assert made.keys() != tensors.keys()
    back = names.to_theirs(made, "it")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)


def test_the_first_rule_that_matches_wins_and_unused_is_kept_aside():
    names = NameMap(
        Unused("old.{rest...}"), Rule("a.b", "first"), Rule("a.{x}", "second.{x}"), OwnTensors("mean")
    )
    made, unused = names.to_ours(
        {"a.b": torch.zeros(1), "a.c": torch.ones(1), "old.x.y": torch.ones(2)}, "it"
    )
    assert made.keys() == {"first", "second.c"}
    assert unused.keys() == {"old.x.y"}
    assert names.to_theirs(made | {"mean": torch.ones(1)}, "it").keys() == {"a.b", "a.c"}


def test_what_has_no_place_or_no_partner_is_named():
    names = NameMap(Rule(("q.{n}", "k.{n}"), "qk.{n}", Join((1, 1))))
    with pytest.raises(CheckpointError, match="it has 1 tensors without a place: stray"):
        names.to_ours({"stray": torch.zeros(1)}, "it")
    with pytest.raises(CheckpointError, match=r"it lacks k\.0 beside q\.0"):
        names.to_ours({"q.0": torch.zeros(1)}, "it")
    split = NameMap(Rule("qkv", ("q", "k"), Split((2, 2))))
    with pytest.raises(CheckpointError, match=r"qkv \(5,\) cannot be Split"):
        split.to_ours({"qkv": torch.zeros(5)}, "it")
