"""Which records a run leaves out: brought together over ranks and stages, and told by source."""

from collections import Counter

import pytest
from toy import Squares, toy

from chiasm.distribution.processes import Ranks
from chiasm.errors import DataError
from chiasm.training.batches import DocumentBatches, PictureBatches
from chiasm.training.train import build_model
from chiasm.training.usable import lines, merged, skipped, stage_batches, unusable


def source(groups=10, broken="skip", foreign=False, **unread):
    made = Squares(groups=groups)
    made.broken, made.foreign, made.skipped = broken, foreign, Counter(unread)
    return made


def test_all_that_any_rank_leaves_out_is_left_out():
    ranks = {"a": {"0:0": "long"}}, {"a": {"3:1": "text"}, "b": {"1:0": "turns"}}, {}
    assert merged(*ranks) == {"a": {"0:0": "long", "3:1": "text"}, "b": {"1:0": "turns"}}
    assert ranks[0] == {"a": {"0:0": "long"}}
    assert merged() == {}


def test_records_are_counted_by_source_and_kind_the_unread_with_those_left_out():
    sources = {"a": source(turns=2), "b": source()}
    left_out = {"a": {"0:0": "long", "0:1": "long", "2:0": "turns"}}
    assert skipped(sources, left_out, {}) == {"a": Counter(turns=3, long=1), "b": Counter()}


def test_each_source_that_skips_says_how_many_groups_remain():
    """Those that could not be read are not among its groups; those left out are."""
    sources = {"a": source(1234, turns=2), "b": source(7), "c": source(broken="error")}
    counted = skipped(sources, {"a": {"0:0": "long", "9:0": "long", "9:1": "turns"}})
    assert list(lines(sources, counted)) == [
        "a: 1,232 groups, 4 records skipped (2 turns, 2 long)",
        "b: 7 groups, 0 records skipped",
    ]


@pytest.fixture(scope="module")
def model():
    return build_model(toy())


def test_a_stage_has_batches_of_what_it_learns(model):
    recipe, sources = toy(), {"squares": source()}
    for stage, kind in zip(recipe.stages, (PictureBatches, DocumentBatches), strict=True):
        batches = stage_batches(model, sources, stage, 3, Ranks(1, 2))
        assert type(batches) is kind
        assert (batches.mixture.rank, batches.mixture.world) == (1, 2)
        assert batches.mixture.key == f"3/{stage.name}"
    assert batches.unconditional == 0.2
    head = model.heads.pop("image")
    try:
        assert stage_batches(model, sources, recipe.stages[1], 3, Ranks()).unconditional == 0.0
    finally:
        model.heads["image"] = head


class Gathering(Ranks):
    """Two ranks, of which the other brings what it is told to."""

    def gather(self, value):
        return [value, self.other]


def test_only_records_from_outside_are_checked_and_by_all_ranks_together(model):
    recipe = toy("stages.learn.length=8")
    inside = {"squares": source()}
    assert unusable(recipe, model, inside, Ranks()) == {}
    outside = {"squares": source(foreign=True)}
    alone = unusable(recipe, model, outside, Ranks())
    assert alone.keys() == {"codes", "learn"}
    assert alone["codes"] == {}
    assert set(alone["learn"]["squares"].values()) == {"too long"}
    ranks = Gathering()
    object.__setattr__(ranks, "other", {"squares": {"99:0": "text"}})
    together = unusable(recipe, model, outside, ranks)
    assert together["learn"]["squares"] == alone["learn"]["squares"] | {"99:0": "text"}
    object.__setattr__(ranks, "other", DataError("the other's"))
    with pytest.raises(DataError, match="the other's"):
        unusable(recipe, model, outside, ranks)
    with pytest.raises(DataError, match="tokens but a row holds 8"):
        unusable(recipe, model, {"squares": source(broken="error", foreign=True)}, Ranks())
