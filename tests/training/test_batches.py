"""The order of the data, what is dropped from documents, and exact resumption."""

import pytest
import torch
from toy import Squares, toy

from chiasm.data import Source
from chiasm.errors import DataError
from chiasm.sequence import Kind
from chiasm.training.batches import Ahead, DocumentBatches, InTurn, PictureBatches
from chiasm.training.mixture import Mixture, chance
from chiasm.training.train import build_model


class Empty(Source, name="test_empty"):
    def __init__(self, *, groups: int = 0):
        self.groups = groups

    def __len__(self):
        return self.groups

    def __getitem__(self, index):
        return []

    @property
    def fingerprint(self):
        return "empty"


def drawn(mixture, count):
    found = []
    for _ in range(count):
        found.append(mixture.peek())
        mixture.advance()
    return found


def squares(shares=None, **options):
    sources = {"a": Squares(groups=7), "b": Squares(groups=5, kinds=("words",))}
    return Mixture(sources, shares or {"a": 1.0, "b": 1.0}, "key", lambda group: group, **options)


def stream(**changes):
    recipe = toy(**changes)
    return recipe, build_model(recipe), {"squares": Squares()}


def same(one, other):
    names = ("ids", "labels", "positions", "documents", "kinds")
    pictures = (one.read, other.read), (one.written, other.written)
    return (
        all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)
        and all((a is None) == (b is None) for a, b in pictures)
        and (one.read is None or torch.equal(one.read.groups[0], other.read.groups[0]))
        and (one.written is None or torch.equal(one.written.targets, other.written.targets))
    )


def test_every_epoch_shows_every_group_once_in_another_order():
    origins = [origin for origin, _ in drawn(squares({"a": 1.0}), 42)]
    epochs = [[o.group for o in origins[start : start + 21 : 3]] for start in (0, 21)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(7))
    assert epochs[0] != epochs[1]
    assert [o.epoch for o in origins] == [0] * 21 + [1] * 21


def test_the_samples_of_a_group_stay_together():
    origins = [origin for origin, _ in drawn(squares(), 60)]
    for first in range(60):
        if origins[first].source == "a" and origins[first].number == 0:
            assert {o.group for o in origins[first : first + 3]} == {origins[first].group}


def test_sources_are_mixed_by_samples():
    origins = [origin for origin, _ in drawn(squares({"a": 3.0, "b": 1.0}), 400)]
    assert sum(o.source == "a" for o in origins) == pytest.approx(300, abs=3)


def test_ranks_share_the_groups():
    groups = [
        [o.group for o, _ in drawn(squares({"a": 1.0}, rank=rank, world=2), 21)][::3] for rank in (0, 1)
    ]
    alone = [o.group for o, _ in drawn(squares({"a": 1.0}), 42)][::3]
    assert [group for pair in zip(*groups) for group in pair] == alone


@pytest.mark.parametrize("position", [0, 1, 5, 17, 33])
def test_a_mixture_is_taken_up_anywhere(position):
    one, other = squares(), squares()
    drawn(one, position)
    other.restore(one.state())
    assert [o for o, _ in drawn(one, 30)] == [o for o, _ in drawn(other, 30)]


@pytest.mark.parametrize("feed", [Ahead, InTurn])
@pytest.mark.parametrize("maker", [DocumentBatches, PictureBatches])
def test_batches_are_taken_up_anywhere_made_ahead_or_in_turn(maker, feed):
    recipe, model, sources = stream()
    stage = recipe.stages[maker is DocumentBatches]
    of = model.contract if maker is DocumentBatches else model.image_tokenizer
    straight = maker(of, sources, stage, seed=0)
    for _ in range(3):
        straight.next()
    expected = [straight.next() for _ in range(3)]
    first, second = (maker(of, sources, stage, seed=0) for _ in range(2))
    with feed(first) as fed:
        state = [fed.take() for _ in range(3)][-1].state
    second.restore(state)
    for batch in expected:
        taken = second.next()
        assert torch.equal(taken, batch) if maker is PictureBatches else same(taken, batch)


def test_prompts_are_dropped_as_often_as_asked_and_never_from_questions():
    recipe, model, sources = stream()
    stage = recipe.stages[1]
    batches = DocumentBatches(model.contract, sources, stage, seed=0, unconditional=0.3)
    drawings = dropped = 0
    for origin, sample in drawn(batches.mixture, 600):
        made = batches._document(origin, sample)
        if sample.name.startswith("draw"):
            drawings += 1
            dropped += made.name.endswith("(empty prompt)")
        else:
            assert not made.name.endswith("(empty prompt)")
    assert dropped / drawings == pytest.approx(0.3, abs=0.08)


def test_questions_are_read_blind_as_often_as_asked():
    recipe, model, sources = stream()
    batches = DocumentBatches(model.contract, sources, recipe.stages[1], seed=0)
    questions = [(o, s) for o, s in drawn(batches.mixture, 900) if s.name.startswith("see")]
    blind = [not any(slot.kind == Kind.READ for slot in batches._document(o, s).slots) for o, s in questions]
    assert sum(blind) / len(blind) == pytest.approx(0.2, abs=0.07)


def test_chance_is_even_and_depends_on_its_key():
    numbers = [chance("x", index) for index in range(2000)]
    assert sum(numbers) / 2000 == pytest.approx(0.5, abs=0.03)
    assert chance("x", 1) == numbers[1] != chance("y", 1)


def test_empty_data_is_said():
    with pytest.raises(DataError, match="'e' is empty"):
        Mixture({"e": Empty()}, {"e": 1.0}, "key", lambda group: group)
    with pytest.raises(DataError, match="'e' has 3 groups but nothing to train on"):
        Mixture({"e": Empty(groups=3)}, {"e": 1.0}, "key", lambda group: group).peek()
    with pytest.raises(DataError, match="no data source"):
        Mixture({"e": Empty()}, {"e": 0.0}, "key", lambda group: group)


def test_a_broken_group_is_named_also_from_the_thread():
    recipe, model, _ = stream()
    batches = DocumentBatches(
        model.contract, {"squares": Squares(groups=4, unreadable=2)}, recipe.stages[1], seed=0
    )

    def take_all():
        with Ahead(batches) as ahead:
            while True:
                ahead.take()

    with pytest.raises(DataError, match="group 2 of test_squares"):
        take_all()


def test_a_sample_longer_than_a_row_is_named():
    recipe = toy("stages.learn.length=8")
    model = build_model(recipe)
    batches = DocumentBatches(model.contract, {"squares": Squares()}, recipe.stages[1], seed=0)
    with pytest.raises(DataError, match=r"(see|draw|words) \d+ .*has \d+ tokens but a row holds 8"):
        batches.next()
