"""Frozen parts are asked once: what is computed, what is found, and that only what is seen is computed."""

import io
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from toy import Squares, toy

from chiasm.data.cut import cut
from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.errors import DataError
from chiasm.training.batches import DocumentBatches
from chiasm.training.prepare import (
    _ahead,
    _chunks,
    _fill,
    _Pixels,
    code_cache,
    feature_cache,
    fill_codes,
    fill_features,
    prepared,
    stage_images,
)
from chiasm.training.train import build_model

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def built():
    return build_model(toy())


def reader(model, stage, **data):
    return prepared(
        model, {"squares": Squares(**data)}, stage, seed=0, ranks=Ranks(), bf16=False, console=QUIET
    )


def test_cached_batches_give_the_losses_of_pixels(built):
    stage = toy().stages[1]
    built.train_only(stage.train)
    losses = []
    for each in (reader(built, stage), PictureReader(built.contract)):
        batches = DocumentBatches(built.contract, {"squares": Squares()}, stage, seed=0, reader=each)
        made = built.losses(batches.next())
        losses.append({name: float(loss.mean.detach()) for name, loss in made.items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_stage_that_trains_the_encoder_reads_pixels(built):
    stage = toy("stages.learn.train.encoder=1e-3").stages[1]
    made = reader(built, stage)
    assert made.features is None
    assert made.codes is not None


def test_other_weights_have_another_cache(built):
    before = feature_cache(built, False).folder
    assert feature_cache(built, True).folder != before
    with torch.no_grad():
        weight = next(built.encoder.parameters())
        kept = weight.clone()
        weight.view(-1)[0] += 1e-3
        assert feature_cache(built, False).folder != before
        weight.copy_(kept)
    assert feature_cache(built, False).folder == before


def test_only_what_the_stage_will_see_is_computed(built):
    stage = toy("stages.learn.steps=6").stages[1]
    source = Squares(groups=10_000)
    batches = [DocumentBatches(built.contract, {"squares": source}, stage, seed=0) for _ in range(2)]
    pictures, shared = stage_images(batches[0], {"squares": source}, stage, Ranks())
    seen = {slot.picture.key for _ in range(6) for _, slot in batches[1].pack()[1]}
    assert not shared
    assert set(pictures.written) | {key.split("/")[0] for key in pictures.read} == seen


class Shelf:
    """Stands in for a cache of tensors, and notes what is put into it."""

    folder = "shelf"

    def __init__(self, *there):
        self.tensors = dict.fromkeys(there)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def missing(self, keys):
        return [key for key in keys if key not in self.tensors]

    def put(self, tensors):
        self.tensors |= tensors


def filled(cache, chunks, unreadable=(), broken=None):
    """What `_fill` does: the chunks that were encoded, and what it said."""
    encoded, console = [], Console(file=io.StringIO(), width=200)

    def read(keys):
        for key in keys:
            if key in unreadable:
                raise DataError(f"{key} is cut off")
        return [torch.full((2,), float(key[1:])) for key in keys]

    def encode(pixels):
        encoded.append([f"k{int(value)}" for value in pixels[:, 0]])
        return 10 * pixels

    pixels = _Pixels(read, lambda key: f"picture {key}", broken)
    _fill(cache, chunks, pixels, encode, "codes", console)
    return encoded, console.file.getvalue()


def test_a_chunk_that_lacks_one_is_computed_whole_and_one_that_lacks_none_not_at_all():
    cache = Shelf("k0", "k1", "k2", "k4", "k5")
    encoded, said = filled(cache, [["k0", "k1"], ["k2", "k3"], ["k4"], ["k5", "k6"]])
    assert encoded == [["k2", "k3"], ["k5", "k6"]]
    assert said == "codes of 4 images computed; they are stored in shelf\n"
    assert cache.tensors["k3"].tolist() == [30.0, 30.0]
    assert cache.tensors["k0"] is None
    assert filled(cache, [["k0", "k3"]]) == ([], "")


def test_what_cannot_be_read_is_the_error_or_left_out_and_noted_by_its_picture():
    chunks = [["k0", "k1", "k2"], ["k3"], ["k4"]]
    with pytest.raises(DataError, match="k1 is cut off"):
        filled(Shelf(), chunks, ["k1", "k3"])
    cache, broken = Shelf(), {}
    encoded, said = filled(cache, chunks, ["k1", "k3"], broken)
    assert encoded == [["k0", "k2"], ["k4"]]
    assert broken.keys() == {"picture k1", "picture k3"}
    assert "codes of 4 images" in said
    assert filled(cache, chunks, ["k1", "k3"], broken) == ([], "")  # what is lacking is lacking for ever
    assert filled(Shelf("k0"), [["k1"]], ["k1"], {})[0] == []


def test_work_is_done_ahead_in_its_order_by_two_pieces():
    begun = []
    with ThreadPoolExecutor(1) as pool:
        rows = _ahead(pool, range(6), lambda piece: (begun.append(piece), piece**2)[1])
        assert next(rows) == (0, 0)
        assert list(rows) == [(i, i**2) for i in range(1, 6)]
    assert begun == list(range(6))
    assert list(_ahead(pool, [], str)) == []
    submitted = []
    pool = SimpleNamespace(
        submit=lambda do, piece: (submitted.append(piece), SimpleNamespace(result=lambda: do(piece)))[1]
    )
    next(_ahead(pool, range(6), str))
    assert submitted == [0, 1, 2]


def test_pictures_go_through_a_network_sixteen_at_a_time():
    keys = [f"k{i}" for i in range(35)]
    assert _chunks(keys) == [keys[:16], keys[16:32], keys[32:]]
    assert _chunks([]) == []


def listed(built, source, stage, **where):
    batches = DocumentBatches(built.contract, {"squares": source}, stage, seed=0)
    return stage_images(batches, {"squares": source}, stage, where.get("ranks", Ranks()))


def written_of(source, *groups):
    found = {}
    for index in groups:
        for sample in source[index]:
            for message in sample.messages:
                if message.role == "assistant":
                    found |= {item.key: item for item in message.content if not isinstance(item, str)}
    return set(found)


def test_a_stage_that_sees_all_of_its_data_is_told_all_of_its_pictures(built):
    stage = toy("stages.learn.steps=40").stages[1]
    pictures, shared = listed(built, source := Squares(groups=6), stage)
    assert shared
    assert set(pictures.written) == written_of(source, *range(6))
    read = {key.partition("/")[0] for key in pictures.read}
    assert len(pictures.read) == len(read) == 6


def test_pictures_of_samples_that_are_left_out_are_not_computed_and_groups_that_are_broken_are_passed_over(
    built,
):
    stage = toy("stages.learn.steps=40").stages[1]
    source = Squares(groups=4, kinds=("draw",), unreadable=2)
    with pytest.raises(DataError, match="group 2 of test_squares is broken"):
        listed(built, source, stage)
    source.broken = "skip"
    batches = DocumentBatches(built.contract, {"squares": source}, stage, seed=0)
    batches.mixture.leave_out({"squares": {"1:0": "long"}})
    pictures, shared = stage_images(batches, {"squares": source}, stage, Ranks())
    assert shared
    assert set(pictures.written) == written_of(source, 0, 3)


class Undecided(Ranks):
    """Two ranks, of which the other will not see all of its data."""

    def gather(self, value):
        return [value, True]


def test_ranks_agree_whether_they_have_the_same_pictures(built):
    stage = toy("stages.learn.steps=40").stages[1]
    assert not listed(built, Squares(groups=6), stage, ranks=Undecided(0, 2))[1]


def test_views_of_one_size_go_together_shared_out_among_ranks_in_the_numbers_asked_for(built):
    squares = Squares(groups=40)
    read = {}
    for index in range(40):
        picture = squares[index][0].messages[0].content[0]
        view = built.contract.read_views(picture.size, "a picture")[0][0]
        read[f"k{index}"] = (picture, view)
    whole = Shelf()
    fill_features(built, whole, read, bf16=False, console=QUIET)
    assert whole.tensors.keys() == read.keys()
    picture, view = read["k5"]
    with torch.inference_mode():
        expected = built.encoder.eval()(cut(picture.open(), view)[None])[0]
    torch.testing.assert_close(whole.tensors["k5"], expected, rtol=1e-4, atol=1e-5)
    assert whole.tensors["k0"].dtype == torch.float32
    parts = [Shelf(), Shelf()]
    for rank, part in enumerate(parts):
        fill_features(built, part, read, bf16=True, console=QUIET, part=(rank, 2))
    assert [len(part.tensors) for part in parts] == [16 + 8, 16]
    assert not parts[0].tensors.keys() & parts[1].tensors.keys()
    assert parts[0].tensors["k0"].dtype == torch.bfloat16
    torch.testing.assert_close(parts[0].tensors["k0"].float(), whole.tensors["k0"], rtol=0.05, atol=0.05)


def test_codes_are_whole_numbers_of_each_picture(built):
    squares = Squares(groups=20, kinds=("draw",))
    pictures = {p.key: p for index in range(20) for p in [squares[index][0].messages[1].content[0]]}
    cache = Shelf()
    fill_codes(built, cache, pictures, console=QUIET)
    key, picture = next(iter(pictures.items()))
    pixels = PictureReader(built.contract).target(picture)[None]
    assert torch.equal(cache.tensors[key], built.image_tokenizer.encode(pixels)[0].int())
    assert cache.tensors[key].dtype == torch.int32
    part = Shelf()
    fill_codes(built, part, pictures, console=QUIET, part=(1, 2))
    assert list(part.tensors) == list(pictures)[16:]


def test_a_picture_that_cannot_be_read_is_noted_by_its_own_key(built):
    squares, broken = Squares(groups=3), {}
    pictures = [squares[index][0].messages[0].content[0] for index in range(3)]
    view = built.contract.read_views(pictures[0].size, "a picture")[0][0]
    pictures[1].open = lambda: (_ for _ in ()).throw(DataError("cut off"))
    features, codes = Shelf(), Shelf()
    views = {f"v{i}": (picture, view) for i, picture in enumerate(pictures)}
    fill_features(built, features, views, bf16=False, console=QUIET, broken=broken)
    assert (list(features.tensors), list(broken)) == (["v0", "v2"], [pictures[1].key])
    broken.clear()
    keyed = {f"c{i}": picture for i, picture in enumerate(pictures)}
    fill_codes(built, codes, keyed, console=QUIET, broken=broken)
    assert (list(codes.tensors), list(broken)) == (["c0", "c2"], [pictures[1].key])
    with pytest.raises(DataError, match="cut off"):
        fill_codes(built, Shelf(), keyed, console=QUIET)


def test_caches_differ_by_weights_options_and_numbers():
    models = [build_model(toy()), build_model(toy("seed=1"))]
    folders = [code_cache(model).folder for model in models]
    assert folders[0] != folders[1]
    assert {feature_cache(models[0], half).folder.parent.name for half in (False, True)} == {"features"}
    assert folders[0].parent.name == "codes"


def test_what_computes_nothing_that_is_frozen_reads_pixels(built):
    encoder, tokenizer = built.encoder, built.image_tokenizer
    stage = toy().stages[1]
    try:
        built.image_tokenizer = None
        made = reader(built, toy("stages.learn.train.encoder=1e-3").stages[1])
        assert (made.features, made.codes) == (None, None)
        assert reader(built, stage).features is not None
        built.encoder, built.image_tokenizer = None, tokenizer
        assert reader(built, stage, kinds=("draw",)).codes is not None
    finally:
        built.encoder, built.image_tokenizer = encoder, tokenizer
