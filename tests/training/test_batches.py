"""The order of the data, what is dropped from documents, and exact resumption."""

import pickle
from dataclasses import is_dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from toy import Squares, toy

from chiasm.data import Message, Sample, Source
from chiasm.data.files import PictureInMemory
from chiasm.errors import DataError
from chiasm.sequence import Kind
from chiasm.training.batches import (
    DescribedBatches,
    DocumentBatches,
    PictureBatches,
    describe,
    pictures_of,
    taken_of,
)
from chiasm.training.feed import Feed
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


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("maker", [DocumentBatches, PictureBatches, DescribedBatches])
def test_batches_are_the_same_and_taken_up_anywhere_whatever_makes_them(maker, workers):
    recipe, model, sources = stream()
    if maker is DescribedBatches:
        sources = {"squares": Squares(kinds=("see",))}
    stage = recipe.stages[maker is not PictureBatches]
    of = model.image_tokenizer if maker is PictureBatches else model.contract
    straight = maker(of, sources, stage, seed=0)
    expected = [(straight.next(), straight.state()) for _ in range(8)]
    assert_taken(maker(of, sources, stage, seed=0), workers, expected)
    going_on = maker(of, sources, stage, seed=0)
    going_on.restore(expected[2][1])
    assert_taken(going_on, workers, expected[3:])


def assert_taken(batches, workers, expected):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    with Feed(batches, workers) as feed:
        for batch, state in expected:
            taken = feed.take()
            assert taken.state == state
            assert identical(taken.batch, batch)
    assert torch.equal(torch.random.get_rng_state(), before)  # training draws what it drew


def identical(one, other):
    """Whether two batches are the same bit for bit, with everything in them."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    if is_dataclass(one):
        return type(one) is type(other) and identical(list(vars(one).values()), list(vars(other).values()))
    return one == other


@pytest.mark.parametrize("maker", [DocumentBatches, PictureBatches, DescribedBatches])
def test_batches_can_be_handed_to_a_process_that_shares_no_memory(maker):
    recipe, model, _ = stream()
    of = model.image_tokenizer if maker is PictureBatches else model.contract
    kinds = ("see",) if maker is DescribedBatches else ("see", "draw", "words")
    batches = maker(of, {"squares": Squares(kinds=kinds)}, recipe.stages[maker is not PictureBatches], seed=0)
    batches.next()
    away = pickle.loads(pickle.dumps(batches))
    assert identical(away.next(), batches.next())
    assert away.state() == batches.state()


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


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_group_is_named_after_the_batches_before_it(workers):
    recipe, model, _ = stream()

    def batches():
        source = Squares(groups=9, unreadable=2)
        return DocumentBatches(model.contract, {"squares": source}, recipe.stages[1], seed=0)

    def take_all(taken):
        with Feed(batches(), workers) as feed:
            while True:
                taken.append(feed.take().state)

    alone, taken = batches(), []
    with pytest.raises(DataError, match=r"^group 2 of test_squares is broken$"):
        take_all(taken)
    for state in taken:
        alone.next()
        assert state == alone.state()
    with pytest.raises(DataError, match="group 2 of test_squares"):
        alone.next()


def test_a_sample_longer_than_a_row_is_named():
    recipe = toy("stages.learn.length=8")
    model = build_model(recipe)
    batches = DocumentBatches(model.contract, {"squares": Squares()}, recipe.stages[1], seed=0)
    with pytest.raises(DataError, match=r"(see|draw|words) \d+ .*has \d+ tokens but a row holds 8"):
        batches.next()


def images(count, side=16):
    return [PictureInMemory(Image.new("RGB", (side, side), (index, 0, 0))) for index in range(count)]


def test_a_group_gives_the_images_that_it_writes_else_those_that_it_reads_each_once():
    a, b, c, _ = images(4)
    reads = Sample("reads", (Message("user", (a, "?", b)), Message("assistant", ("x",))))
    again = Sample("again", (Message("system", (b,)), Message("user", (c,)), Message("assistant", ("y",))))
    writes = Sample("writes", (Message("user", (a,)), Message("assistant", (c, "z", b))))
    assert pictures_of([reads, again]) == [a, b, c]
    assert pictures_of([reads, writes, again]) == [c, b]
    assert pictures_of([]) == []


def test_a_description_is_the_one_answer_about_the_one_image():
    a, *_ = images(1)
    one = Sample("one", (Message("user", ("What?", a)), Message("assistant", ("a dog", " and more"))))
    labelled = Sample("two", one.messages, truth={"labels": ["dog", "cat"]})
    assert describe(one) == (a, "a dog and more", ("a dog and more",))
    assert describe(labelled) == (a, "a dog and more", ("dog", "cat"))


def test_items_that_cannot_be_used_are_skipped_until_there_are_enough():
    source = Squares(groups=6, kinds=("words",))
    source.broken = "skip"
    mixture = Mixture({"a": source}, {"a": 1.0}, "key", lambda group: group)
    tried = []

    def use(sample):
        tried.append(sample.name)
        if sample.name in ("words 1", "words 4"):
            raise DataError("no")
        return sample.name

    found = taken_of(mixture, 4, use)
    assert len(found) == 4
    assert set(found) == {"words 0", "words 2", "words 3", "words 5"}
    assert mixture.left_out["a"].keys() == {"1:0", "4:0"} & {f"{name[-1]}:0" for name in tried}
    assert taken_of(mixture, 0, use) == []


@pytest.fixture(scope="module")
def described():
    """Batches of pictures with words, whose encoder sees 16 x 16 pixels."""
    recipe = toy()
    model = build_model(recipe)
    source = Squares(groups=6, kinds=("see",))
    return model, DescribedBatches(model.contract, {"squares": source}, recipe.stages[1], seed=0)


def test_a_described_batch_is_what_the_encoder_sees_with_what_is_said_from_the_first_on(described):
    model, batches = described
    state = batches.state()
    assert state == Mixture(batches.mixture.sources, {"squares": 1.0}, "key", lambda group: group).state()
    assert batches.size == (16, 16)
    batch = batches.next()
    origins = DescribedBatches(model.contract, batches.mixture.sources, toy().stages[1], seed=0)
    items = []
    for _ in range(2):
        items.append(describe(origins.mixture.peek()[1]))
        origins.mixture.advance()
    assert batch.texts == tuple(each.text for each in items)
    assert batch.labels == tuple((each.text,) for each in items)
    for pixels, item in zip(batch.pixels, items, strict=True):
        expected = torch.from_numpy(np.array(item.picture.open())).permute(2, 0, 1) / 255
        torch.testing.assert_close(pixels, expected.float(), atol=1e-2, rtol=0)
    groups = (batches.mixture.sources["squares"][index] for index in range(6))
    words = {describe(sample).text for group in groups for sample in group}
    assert batches.labels() == sorted(words)


def test_views_of_another_size_are_refused_by_name(described):
    _, batches = described
    picture, size = images(1)[0], batches.size
    batches.size = type(size)(8, 16)
    try:
        with pytest.raises(DataError, match="seen as 16x16 and others as 8x16; use views of type 'whole'"):
            batches._view(picture)
    finally:
        batches.size = size
    assert batches._view(picture).size == size


class Odd(Squares, name="test_odd_squares"):
    """From outside: the images of every third group cannot be decoded, though they have a size."""

    foreign, broken = True, "skip"

    def __getitem__(self, index):
        group = super().__getitem__(index)
        if index % 3 == 0:
            for sample in group:
                for message in sample.messages:
                    for item in message.content:
                        if isinstance(item, PictureInMemory):
                            item.open = lambda: (_ for _ in ()).throw(
                                DataError("cut off", "unreadable image")
                            )
        return group


@pytest.mark.parametrize("maker", [DocumentBatches, PictureBatches, DescribedBatches])
def test_a_check_decodes_images_only_where_asked_to(maker):
    recipe = toy()
    model = build_model(recipe)
    of = model.image_tokenizer if maker is PictureBatches else model.contract
    kinds = ("see",) if maker is DescribedBatches else ("see", "draw", "words")
    batches = maker(of, {"squares": Odd(groups=6, kinds=kinds)}, recipe.stages[1], seed=0)
    before = batches.state()["left_out"]
    assert batches.check() == before
    left_out = batches.check(decode=True)["squares"]
    assert {key.partition(":")[0] for key in left_out} == {"0", "3"}
    assert set(left_out.values()) == {"unreadable image"}


def test_clips_of_one_length_or_images_make_a_batch():
    recipe = toy()
    tokenizer = build_model(recipe).image_tokenizer
    batches = PictureBatches(tokenizer, {"squares": Squares()}, recipe.stages[0], seed=0)
    assert (batches.moving, batches.size) == (False, (16, 16))
    assert batches.next().shape == (8, 3, 16, 16)
    shapes = iter([(3, 16, 16), (2, 3, 16, 16)] * 4)
    batches._pixels = lambda picture: torch.zeros(next(shapes))
    with pytest.raises(DataError, match="stage 'codes' mixes pictures, clips of 2 frames in a batch"):
        batches.next()
    batches._pixels = lambda picture: torch.zeros(2, 3, 16, 16)
    assert batches.next().shape == (8, 2, 3, 16, 16)
