"""Documents and packing."""

import pytest
import torch
from PIL import Image

from chiasm.data.files import PictureInMemory
from chiasm.errors import DataError
from chiasm.sequence import (
    IGNORE,
    PADDING,
    Document,
    Kind,
    PackedBatch,
    Packer,
    ReadImages,
    Written,
    WrittenImages,
    fill,
    fill_from,
    pack,
)
from chiasm.sequence.kinds import KINDS

COLUMNS = ("ids", "labels", "kinds", "opens", "exposed")
PLACES = ("positions", "documents", "coordinates")  # of a batch, as well


@pytest.fixture
def picture():
    return PictureInMemory(Image.new("RGB", (4, 4)))


def text(name: str, length: int, first: int = 1) -> Document:
    made = Document(name)
    made.add_text(range(first, first + length), learn=False)
    return made


def test_labels_are_shifted_and_only_what_is_learnt_has_one():
    made = Document("x")
    made.add_text([5, 6], learn=False)
    made.add_text([7, 8], learn=True)
    assert made.labels == [IGNORE, 7, 8, IGNORE]


def test_what_has_no_label_is_what_torchs_cross_entropy_ignores():
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORE


def test_a_picture_is_positions_of_its_kind_without_a_text_label(picture):
    written = text("x", 2)
    written.add_picture(picture, Kind.WRITTEN, 9, [True, False, False], [True, True, False])
    written.add_text([7], learn=True)  # predicted by the picture's last position
    assert written.ids == [1, 2, 9, 9, 9, 7]
    assert written.kinds == [Kind.TEXT] * 2 + [Kind.WRITTEN] * 3 + [Kind.TEXT]
    assert written.labels == [IGNORE] * 4 + [7, IGNORE]
    assert written.opens == [True, True, True, False, False, True]
    assert written.exposed == [True, True, True, True, False, True]
    (slot,) = written.slots
    assert (slot.picture, slot.kind, slot.start, slot.length) == (picture, Kind.WRITTEN, 2, 3)
    with pytest.raises(ValueError, match="shorter"):
        written.add_picture(picture, Kind.READ, 9, [True] * 3, [True] * 2)


def test_routing_names_the_kinds_in_the_same_order():
    assert tuple(kind.name.lower() for kind in sorted(Kind)) == KINDS


def test_a_label_never_reaches_into_the_next_document():
    learnt = Document("y")
    learnt.add_text([7, 8], learn=True)  # nothing stands before the 7, so nothing predicts it
    batch, _ = pack([[text("x", 3), learnt]])
    assert batch.labels.tolist() == [[IGNORE, IGNORE, IGNORE, 8, IGNORE]]


def test_positions_restart_and_padding_belongs_to_no_document():
    batch, _ = pack([[text("a", 2), text("b", 3)], [text("c", 1)]], length=6)
    assert batch.positions.tolist() == [[0, 1, 0, 1, 2, 0], [0] * 6]
    assert batch.documents.tolist() == [[0, 0, 1, 1, 1, PADDING], [0] + [PADDING] * 5]
    assert batch.real == 6


def test_a_batch_has_as_many_samples_as_documents():
    batch, _ = pack([[text("a", 2), text("b", 3)], [text("c", 1)], []], length=6)
    assert batch.samples == 3


def test_padding_holds_no_label_no_picture_and_nothing_that_attention_could_see():
    batch, _ = pack([[text("a", 2)], []], length=3)
    padding = batch.documents == PADDING
    assert padding.tolist() == [[False, False, True], [True] * 3]
    assert set(batch.labels[padding].tolist()) == {IGNORE}
    assert set(batch.kinds[padding].tolist()) == {Kind.TEXT}
    assert set(batch.ids[padding].tolist()) == {0}
    assert not batch.layout.allowed[padding].any()
    assert not batch.layout.allowed.transpose(1, 2)[padding].any()


def test_a_packed_document_is_what_it_is_alone(picture):
    """Every column, and what may see what; a position of one document sees none of another."""
    documents = []
    for number, (before, cells) in enumerate([(1, 4), (3, 2), (2, 3), (5, 1)]):
        each = text(f"document {number}", before, first=10 * number)
        opens, exposed = [True] + [False] * (cells - 1), [number % 2 == 0] * cells
        each.add_picture(picture, Kind.READ, 7, opens, exposed, [(i, 2 * i, 3) for i in range(cells)])
        each.add_text([3, 4], learn=True)
        documents.append(each.check(len(each)))  # just long enough a context
    a, b, c, d = documents
    batch, slots = pack([[a, b], [c], [d]])
    assert batch.ids.shape == (3, len(a) + len(b))  # the longest row
    allowed = torch.zeros_like(batch.layout.allowed)
    for document, row, start in ((a, 0, 0), (b, 0, len(a)), (c, 1, 0), (d, 2, 0)):
        here = slice(start, start + len(document))
        for name in COLUMNS:
            assert getattr(batch, name)[row, here].tolist() == getattr(document, name)
        assert batch.positions[row, here].tolist() == list(range(len(document)))
        (slot,) = document.slots
        places = [[0, 0, 0]] * len(document)
        places[slot.start : slot.start + slot.length] = [[i, 2 * i, 3] for i in range(slot.length)]
        assert batch.coordinates[row, here].tolist() == places
        alone, _ = pack([[document]])
        allowed[row, here, here] = alone.layout.allowed[0]
    assert torch.equal(batch.layout.allowed, allowed)
    starts = [1, len(a) + 3, batch.ids.shape[1] + 2, 2 * batch.ids.shape[1] + 5]
    assert [(start, slot.length) for start, slot in slots] == list(zip(starts, [4, 2, 3, 1], strict=True))


def test_nothing_can_be_packed():
    batch, slots = pack([])
    assert (batch.ids.shape, batch.real, slots) == ((0, 0), 0, [])


def test_a_packer_packs_what_it_was_offered_in_rows_of_its_length():
    packer = Packer(rows=2, length=6)
    for length in (4, 3, 2, 3):  # each row is filled to the last position
        assert packer.offer(text(str(length), length, first=length))
    assert packer.offer(text("one more", 1)) is False
    assert Packer(rows=1, length=6).offer(text("a whole row", 6))
    batch, _ = packer.pack()
    assert batch.ids.tolist() == [[4, 5, 6, 7, 2, 3], [3, 4, 5, 3, 4, 5]]
    assert batch.documents.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]


def test_a_document_of_more_pictures_than_a_row_should_hold_has_a_row_to_itself(picture):
    packer = Packer(rows=2, length=10, pictures=1)
    album = text("album", 1)
    for _ in range(2):
        album.add_picture(picture, Kind.READ, 0, [True], [True])
    assert packer.offer(text("words", 2))
    assert packer.offer(album)
    assert [[document.name for document in row] for row in packer.rows] == [["words"], ["album"]]


def test_first_fit_within_tokens_and_pictures(picture):
    packer = Packer(rows=2, length=10, pictures=1)
    seen = text("seen", 2)
    seen.add_picture(picture, Kind.READ, 0, [True] * 2, [True] * 2)
    assert packer.offer(seen)
    assert packer.offer(seen)  # its row would hold two pictures, so it goes to the next
    assert packer.offer(text("a", 6))
    assert [[document.name for document in row] for row in packer.rows] == [["seen", "a"], ["seen"]]
    assert not packer.offer(seen)
    assert not packer.offer(text("b", 7))


def test_a_document_longer_than_a_row_is_an_error_that_names_it():
    with pytest.raises(DataError, match="sample 3 has 11 tokens but a row holds 10"):
        Packer(rows=1, length=10).offer(text("sample 3", 11))


def test_a_document_longer_than_the_context_is_an_error_that_names_it():
    with pytest.raises(DataError, match="sample 3 has 11 tokens but the context is 8"):
        text("sample 3", 11).check(8)


def test_columns_of_unlike_length_are_an_error_that_names_the_document():
    broken = text("sample 5", 3)
    broken.labels.pop()
    with pytest.raises(DataError, match=r"sample 5: columns of different lengths .*'labels': 2"):
        broken.check(100)


def test_picture_positions_must_be_filled(picture):
    made = text("sample 4", 2)
    made.add_picture(picture, Kind.READ, 0, [True] * 3, [True] * 3)
    made.slots.clear()
    with pytest.raises(
        DataError, match="sample 4 has 3 positions of images and signals, but those that it has fill 0"
    ):
        made.check(100)


def test_slots_come_with_their_flat_start(picture):
    seen = text("seen", 2)
    seen.add_picture(picture, Kind.READ, 0, [True] * 3, [True] * 3)
    _, slots = pack([[text("a", 4)], [text("b", 1), seen]], length=8)
    assert [(start, slot.length) for start, slot in slots] == [(8 + 1 + 2, 3)]


def test_fill_puts_values_at_flat_places():
    filled = fill(torch.zeros(2, 3, 1), torch.tensor([1, 5]), torch.tensor([[7.0], [8.0]]))
    assert filled.flatten().tolist() == [0, 7, 0, 0, 0, 8]


def test_images_are_filled_in_from_where_they_start():
    values = torch.tensor([[[7.0], [8.0]], [[5.0], [6.0]]])
    filled = fill_from(torch.zeros(2, 4, 1), torch.tensor([5, 1]), values)
    assert filled.flatten().tolist() == [0, 5, 6, 0, 0, 7, 8, 0]


def test_what_is_filled_in_takes_the_precision_of_the_rest():
    filled = fill(torch.zeros(1, 2, 1, dtype=torch.bfloat16), torch.tensor([1]), torch.tensor([[7.0]]))
    assert (filled.dtype, filled.flatten().tolist()) == (torch.bfloat16, [0, 7])


def test_an_image_at_the_begin_of_its_document_is_an_orphan():
    """Two documents of a row: what stands before the second's image is the first's."""
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])
    written = WrittenImages(torch.zeros(3, 2, 2), encoded=True, starts=torch.tensor([1, 3, 9]))
    assert written.orphans(positions).tolist() == [False, True, False]


def test_a_batch_moves_to_a_device_whole():
    one = torch.zeros(1, dtype=torch.long)
    read = ReadImages([torch.zeros(1, 3, 4, 4)], False, one, one, tokens=[5], lengths=[5])
    written, shown = (WrittenImages(torch.zeros(1, 2, 2), flag, one) for flag in (True, False))
    batch, _ = pack([[text("a", 2)]])
    moved = PackedBatch(
        **{name: getattr(batch, name) for name in (*COLUMNS, *PLACES)},
        read=read,
        written=Written(written),
        shown=shown,
    ).to("meta")
    tensors = [getattr(moved, name) for name in (*COLUMNS, *PLACES)]
    tensors += [*moved.read.groups, moved.read.places, moved.read.sources]
    tensors += [
        moved.written.image.targets,
        moved.written.image.starts,
        moved.shown.targets,
        moved.shown.starts,
    ]
    assert {each.device.type for each in tensors} == {"meta"}
    assert (moved.read.tokens, moved.read.lengths, moved.read.encoded) == ([5], [5], False)
    assert (moved.written.image.encoded, moved.shown.encoded) == (True, False)
    assert batch.to("cpu").read is None
