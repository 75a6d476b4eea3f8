"""`chiasm data filter`: documents in, documents out, and counts of what was dropped."""

import json

import numpy as np
import pytest
from PIL import Image

from chiasm.data.chat import Chat
from chiasm.data.filtering.stream import Filters, filter_documents
from chiasm.data.sample import Picture
from chiasm.errors import DataError
from chiasm.terminal.data import run

STORY = (
    "The old harbour of the town was rebuilt after the storm, and many of the fishing families returned to live "
    "in the houses that stand along the quay. Visitors who walk up to the lighthouse are rewarded with a wide "
    "view of the bay, the islands to the north and the long sandy beach that stretches to the south."
)
OTHER = (
    "In the spring of that year the council decided to restore the market hall, which had been closed for more "
    "than two decades because of damage to the roof. Most of the paintings were given by the families of the "
    "artists, and they have become the heart of the small collection on the first floor of that hall."
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    dice = np.random.default_rng(0)
    for name, size in {"sea": (200, 180), "hall": (300, 200), "icon": (40, 40), "banner": (600, 160)}.items():
        noise = Image.fromarray(dice.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, 3)
        noise.save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def document(*items):
    return {
        "messages": [
            {"role": "document", "content": [{"text": i} if " " in i else {"image": i} for i in items]}
        ]
    }


def filtered(folder, records, filters=None, **options):
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    report = filter_documents(source, out, filters, **options)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()], report


def test_good_documents_stay_as_they_are_and_the_rest_is_counted(folder):
    records = [
        {**document(STORY, "sea.png", OTHER), "url": "x"},
        document(STORY, "hall.png", OTHER),
        document("Too short to stay", "sea.png"),
        document(f"{OTHER}\n3 likes\n{OTHER}\n{OTHER}", "icon.png", "banner.png", "broken.png"),
    ]
    stayed, report = filtered(folder, records, others=("url",))
    assert stayed == [records[0]]
    assert report.documents == 4
    assert report.dropped_documents == {"exact duplicate": 1, "words": 1, "no image": 1}
    assert report.dropped_images == {"side below 150": 1, "aspect": 1, "unreadable": 1}
    assert report.dropped_lines["social_media_counter_discard"] >= 1


def test_lines_are_cut_and_what_stays_can_be_trained_on(folder):
    stayed, _ = filtered(folder, [document(f"{STORY}\n3 likes\n{OTHER}", "sea.png")])
    assert stayed[0]["messages"][0]["content"] == [{"text": f"{STORY}\n{OTHER}"}, {"image": "sea.png"}]
    sample = Chat(path=str(folder / "out.jsonl"))[0][0]
    assert [isinstance(item, Picture) for item in sample.messages[0].content] == [False, True]


def test_texts_and_images_side_by_side_are_a_document(folder):
    record = {"texts": [STORY, None, OTHER], "images": [None, "sea.png", None]}
    stayed, _ = filtered(folder, [record])
    assert stayed == [document(STORY, "sea.png", OTHER)]


def test_an_image_stays_ten_times(folder):
    records = [document(f"{STORY} {i}", "sea.png") for i in range(12)]
    stayed, report = filtered(folder, records, Filters(text=False, duplicates=False))
    assert len(stayed) == 10
    assert report.dropped_images == {"seen more than 10 times": 2}


def test_images_that_are_not_looked_at_are_names(folder):
    record = document(STORY, "https://example.org/far.jpg")
    with pytest.raises(DataError, match="nothing is downloaded"):
        filtered(folder, [record])
    assert filtered(folder, [record], Filters(images=False))[0] == [record]


def test_documents_of_words_stay_where_that_is_asked(folder):
    record = document(f"{STORY} {OTHER}")
    assert filtered(folder, [record])[1].dropped_documents == {"no image": 1}
    assert filtered(folder, [record], Filters(textual=True))[0] == [record]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"messages": [{"role": "user", "content": "Hello"}]}, "is a conversation"),
        ({"texts": ["a", "b"], "images": [None]}, "equal length"),
        ({"texts": ["a"], "images": ["b.png"]}, "one of each pair null"),
        ({**document(STORY, "sea.png"), "scores": 1}, "scores"),
        (document(STORY, "none.png"), "no picture at"),
        ({**document(STORY), "url": "x"}, r"unknown key 'url'; .*retain it by name \(--retain\)"),
        ([1], "must be an object"),
    ],
)
def test_what_is_not_understood_is_named_and_nothing_is_written(folder, record, problem):
    (folder / "out.jsonl").write_text("before", encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        filtered(folder, [document(STORY, "sea.png"), record])
    assert (folder / "out.jsonl").read_text() == "before"
    assert not list(folder.glob(".*.draft"))
    assert filtered(folder, [document(STORY, "sea.png"), record], broken="skip")[1].skipped.total() == 1


def test_the_file_that_is_filtered_is_not_overwritten(folder):
    (folder / "same.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="name another one"):
        filter_documents(folder / "same.jsonl", folder / "same.jsonl")


def test_the_command_prints_what_was_dropped(folder, capsys):
    source = folder / "in.jsonl"
    source.write_text(json.dumps(document("Too short to stay", "sea.png")), encoding="utf-8")
    options = {"images": None, "outside": False, "others": (), "broken": "error"}
    run(source, folder / "out.jsonl", Filters(), **options)
    printed = capsys.readouterr().out
    assert "0 of 1 documents stay" in printed
    assert "words" in printed
