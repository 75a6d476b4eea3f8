"""How a model is asked: batches of like length, room for an answer, seeds that count on."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from chiasm.data.sample import Message, Sample
from chiasm.evaluation import subject
from chiasm.evaluation.subject import IMAGES_AT_ONCE, POSITIONS, ROWS, ModelSubject, _batches
from chiasm.recipe import SamplingOptions


class Document:
    """As long as it says; pictures as pairs of length and key."""

    def __init__(self, length, *pictures):
        self.length = length
        self.slots = [SimpleNamespace(length=n, picture=SimpleNamespace(key=key)) for n, key in pictures]

    def __len__(self):
        return self.length


def test_every_document_is_in_one_batch():
    documents = [Document(length % 97 + 1) for length in range(0, 5000, 7)]
    batches = list(_batches(documents))
    assert sorted(i for batch in batches for i in batch) == list(range(len(documents)))
    assert all(len(batch) <= ROWS for batch in batches)
    lengths = [documents[i].length for batch in batches for i in batch]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize(("count", "sizes"), [(128, [128]), (129, [128, 1]), (0, []), (1, [1])])
def test_a_batch_has_at_most_128_rows(count, sizes):
    assert [len(batch) for batch in _batches([Document(10)] * count)] == sizes


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([4096] * 4, [4]),
        ([4097] * 4, [3, 1]),
        ([4096] * 9, [4, 4, 1]),
        ([20_000, 20_000], [1, 1]),  # longer than any batch, and still asked
        ([100] * 3 + [8192] * 2, [3, 2]),
    ],
)
def test_a_batch_has_at_most_16384_positions_padding_included(lengths, sizes):
    batches = list(_batches([Document(length) for length in lengths]))
    assert sum(map(len, batches)) == len(lengths)
    assert all(len(b) == 1 or max(lengths[i] for i in b) * len(b) <= POSITIONS for b in batches)
    assert [len(batch) for batch in batches] == sizes


def test_documents_of_one_picture_stand_together():
    documents = [
        Document(50, (9, "b")),
        Document(40, (9, "a")),
        Document(30),
        Document(60, (9, "a")),
        Document(20, (4, "c")),
    ]
    (batch,) = _batches(documents)
    assert batch == [2, 4, 1, 3, 0]  # without pictures, small pictures, then by picture and length
    several = [Document(50, (2, "a"), (2, "b")), Document(50, (3, "a"))]
    assert list(_batches(several)) == [[1, 0]]


@pytest.mark.parametrize(("longest", "tokens"), [(0, 8), (1, 9), (16, 24), (17, 25), (18, 27), (100, 150)])
def test_an_answer_has_room_for_half_as_much_again_and_eight_tokens_at_least(longest, tokens):
    model = SimpleNamespace(
        eval=lambda: model,
        sees=True,
        draws=False,
        mask_head=None,
        language=SimpleNamespace(tokenizer=SimpleNamespace(encode=list, lead="")),
    )
    asked = Sample("s", (Message("user", ("?",)), Message("assistant", ("x" * longest,))))
    assert ModelSubject(model, None)._most_tokens([asked]) == tokens
    assert ModelSubject(model, None)._most_tokens([]) == 8
    assert ModelSubject(model, None, answer_tokens=5)._most_tokens([asked]) == 5


@pytest.mark.parametrize(("seed", "seeds"), [(7, [7, 8, 9]), (2**64 - 2, [2**64 - 2, 2**64 - 1, 0])])
def test_pictures_have_seeds_that_count_on(seed, seeds, monkeypatch):
    given = []
    monkeypatch.setattr(subject, "draw_prompt", lambda contract, sample: sample)
    monkeypatch.setattr(
        subject,
        "draw_images",
        lambda model, prompts, seeds, sampling: given.extend(seeds) or prompts,
    )
    model = SimpleNamespace(contract=None, mask_head=None)
    model.eval, model.sees, model.draws = lambda: model, True, True
    sample = Sample("s", (Message("user", ("Draw.",)),))
    assert len(ModelSubject(model, SamplingOptions()).draw([sample] * 3, seed=seed)) == 3
    assert given == seeds


def test_pictures_are_reconstructed_sixty_four_at_a_time(monkeypatch):
    sizes = []
    tokenizer = SimpleNamespace(encode=lambda pixels: sizes.append(len(pixels)) or pixels)
    model = SimpleNamespace(contract=None, device="cpu", image_tokenizer=tokenizer, sees=True, draws=True)
    model.mask_head = None
    model.eval = lambda: model
    monkeypatch.setattr(
        subject, "PictureReader", lambda contract: SimpleNamespace(target=lambda p: torch.tensor([p]))
    )
    monkeypatch.setattr(subject, "fitting", lambda pixels, part: pixels)
    monkeypatch.setattr(subject, "decode", lambda model, codes: codes)
    monkeypatch.setattr(subject, "to_images", lambda pixels: pixels.flatten().tolist())
    asked = ModelSubject(model, None)
    assert asked.reconstruct(list(range(130))) == list(range(130))
    assert sizes == [64, 64, 2]
    assert asked.targets([3, 4]) == [3, 4]
    assert IMAGES_AT_ONCE == 64


def test_a_subject_of_another_kind_compares_with_the_pictures_themselves():
    class Other(subject.Subject):
        sees = draws = True
        answer = draw = reconstruct = None

    picture = SimpleNamespace(open=lambda: Image.new("RGB", (3, 3)))
    assert Other.targets(None, [picture])[0].size == (3, 3)
