"""The figures of image tokenizers and the page that shows them, on codes and pictures that a person can count."""

import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from chiasm.data.sample import Message, Picture, Sample
from chiasm.data.world import MovingWorld
from chiasm.evaluation import tokenizer_report as report
from chiasm.evaluation import tokenizers
from chiasm.evaluation.tokenizers import Measurement, by_data, measure
from chiasm.tokenizers.spaces import Codes
from chiasm.views import Size


class Grey(Picture):
    def __init__(self, level):
        self.level, self.key, self.size = level, f"grey {level}", Size(16, 16)

    def open(self):
        return Image.new("RGB", (16, 16), (self.level,) * 3)


class Source(list):
    fingerprint = "grey"


def tokenizer(**changes):
    own = {
        "size": 16,
        "name": "stub",
        "codebook_size": 4,
        "codebooks": 1,
        "end": None,
        "scales": [(1, 1), (2, 2)],
        "space": Codes((2, 2), 4),
    }
    return SimpleNamespace(**own | changes)


def test_each_scale_is_coded_with_counts_of_its_own():
    codes = torch.tensor([[0, 1, 1, 2, 2], [3, 1, 1, 2, 2]])
    told = tokenizers._rate(tokenizer(), codes)
    assert told["codes"] == 5
    assert told["bits"] == 10
    assert told["coded_bits"] == pytest.approx(1 + 4)  # two codes alike often: a bit each, scale by scale
    assert (told["used"], told["use"], told["dead"], told["codebook_size"]) == (4, 1.0, 0, 4)
    shares = [0.1, 0.4, 0.4, 0.1]
    entropy = -sum(share * math.log2(share) for share in shares)
    assert told["entropy"] == pytest.approx(entropy)
    assert told["perplexity"] == pytest.approx(2**entropy)


def test_scales_with_books_of_their_own_have_more_codes_in_all():
    told = tokenizers._rate(tokenizer(codebooks=2), torch.tensor([[0, 1, 1, 2, 2], [3, 1, 1, 2, 2]]))
    assert (told["used"], told["dead"], told["bits"]) == (4, 4, 10)
    assert told["entropy"] == pytest.approx(5 / 5)


def test_codes_of_a_clip_are_one_scale():
    told = tokenizers._rate(tokenizer(), torch.tensor([[[[0, 1], [2, 3]], [[0, 1], [2, 3]]]]))
    assert (told["codes"], told["coded_bits"], told["entropy"]) == (8, 16, 2)


def test_what_stands_behind_the_end_costs_nothing():
    told = tokenizers._rate(tokenizer(end=3), torch.tensor([[1, 2, 3, 0], [3, 0, 0, 0], [0, 1, 2, 2]]))
    assert told["codes"] == pytest.approx((3 + 1 + 4) / 3)
    assert told["bits"] == pytest.approx(2 * 8 / 3)
    assert told["used"] == 4


def test_distortion_is_of_frames_and_its_interval_over_clips(monkeypatch):
    monkeypatch.setattr(tokenizers, "features", lambda pictures: pictures.flatten(1)[:, :2])
    true = torch.zeros(4, 3, 12, 12)
    true[2:] = 0.5
    errors = torch.tensor([0.1, 0.1, 0.01, 0.001]).view(4, 1, 1, 1)
    told = tokenizers._distortion(true + errors, true, 2, true.flatten(1)[:, :2])
    assert told["psnr"] == pytest.approx((20 + 50) / 2, abs=1e-2)
    half = 1.959964 * math.sqrt(2 * 15**2) / math.sqrt(2)
    assert told["psnr_ci"] == pytest.approx([35 - half, 35 + half], abs=1e-2)
    assert told["mean_psnr"] == pytest.approx(-10 * math.log10(0.25**2), abs=1e-3)  # 0.25 off everywhere
    assert 0 < told["ssim"] < 1
    assert told["feature_distance"] > 0
    alone = tokenizers._distortion(true + errors, true, 1, true.flatten(1)[:, :2])
    assert math.isnan(alone["psnr_ci"][0])


def model(**changes):
    encoded = []

    def encode(pixels):
        encoded.append(len(pixels))
        return (pixels[:, 0, ::8, ::8] * 3).round().long().flatten(1)

    own = tokenizer(
        scales=[(2, 2)],
        encode=encode,
        decode=lambda codes: codes[:, :1, None, None].expand(-1, 3, 16, 16) / 3,
    )
    own.parameters = lambda: [torch.zeros(2, 3), torch.zeros(5)]
    made = SimpleNamespace(image_tokenizer=own, image_decoder=None, device="cpu", encoded=encoded, **changes)
    made.eval = lambda: made
    return made


@pytest.fixture
def simple(monkeypatch):
    seen = []
    monkeypatch.setattr(tokenizers, "fitting", lambda pixels, part: pixels)
    monkeypatch.setattr(
        tokenizers, "features", lambda pictures: seen.append(len(pictures)) or pictures.flatten(1)[:, :2]
    )
    return seen


def greys(*levels):
    return Source(
        [Sample(str(level), (Message("user", ("?",)), Message("assistant", (Grey(level),))))]
        for level in levels
    )


def test_the_first_pictures_are_measured_each_once(simple):
    subject = model()
    told = measure(subject, greys(0, 0, 85, 85, 170, 255, *range(1, 60)), 20, name="stub")
    assert told.figures["pictures"] == 20
    assert subject.encoded == [16, 4]
    expected = {
        "tokenizer": "stub",
        "parameters": 11,
        "side": 16,
        "frames": 1,
        "unit": "picture",
        "data": "grey",
    }
    assert {key: told.figures[key] for key in expected} == expected
    assert told.figures["bits_per_pixel"] == told.figures["bits"] / 256 == 8 / 256
    levels = [0, 85, 170, 255, *range(1, 17)]
    true, made = told.examples
    # eight of twenty for the sheet, evenly: every second
    assert (true[:, 0, 0, 0] * 255).round().int().tolist() == levels[::2][:8]
    assert (made[:, 0, 0, 0] * 3).round().int().tolist() == [round(level / 85) for level in levels[::2][:8]]
    assert simple == [20, 20]  # features of the originals and of what became of them
    few = measure(model(), greys(0, 85, 170), 20)
    assert len(few.examples[0]) == 3


def test_features_of_the_same_pictures_are_reckoned_once(simple):
    known = {}
    for _ in range(2):
        measure(model(), greys(0, 85, 170), 20, cached=known)
    assert simple == [3, 3, 3]
    measure(model(), greys(0, 85, 170), 2, cached=known)
    assert simple == [3, 3, 3, 2, 2]


def test_clips_are_shown_frame_by_frame_from_the_first(simple, monkeypatch):
    monkeypatch.setattr(tokenizers, "VideoTokenizer", SimpleNamespace)
    subject = model()
    subject.image_tokenizer.encode_video = lambda clips: (
        setattr(subject, "clips", clips) or torch.zeros(len(clips), 1, 2, 2, dtype=torch.long)
    )
    subject.image_tokenizer.decode_video = lambda codes: subject.clips / 2
    told = measure(subject, MovingWorld(canvas=16, frames=5, clips=9), 3)
    assert (told.figures["unit"], told.figures["frames"], told.figures["pictures"]) == ("clip", 5, 3)
    assert told.figures["bits_per_pixel"] == 8 / 5 / 256
    frames = subject.clips.flatten(0, 1)
    assert torch.equal(told.examples[0], frames[:8])  # five of the first clip, three of the second
    assert torch.equal(told.examples[1], frames[:8] / 2)
    assert simple == [15, 15]


def test_what_is_decoded_is_the_decoders_where_there_is_one(simple):
    subject = model()
    subject.image_decoder = SimpleNamespace(decode=lambda codes: torch.full((len(codes), 3, 16, 16), 0.5))
    _, made = measure(subject, greys(0, 255), 2).examples
    assert made.unique().tolist() == [0.5]


def figures(**changes):
    own = {
        "codes": 16.0, "codebook_size": 4096, "bits": 192.0, "coded_bits": 150.4, "bits_per_pixel": 0.1875,
        "psnr": 20.0, "psnr_ci": [19.5, 20.5], "ssim": 0.7654, "feature_distance": 1.2345, "use": 0.25,
        "dead": 3072, "perplexity": 812.4, "entropy": 9.666, "unit": "picture", "frames": 1,
        "pictures": 30, "side": 64, "mean_psnr": 11.111, "data": "a",
    }  # fmt: skip
    return own | changes


def measured(name="vq", shown=3, **changes):
    pictures = torch.zeros(shown, 3, 8, 8)
    return Measurement(name, figures(**changes), (pictures, pictures))


def test_a_row_has_its_cells_in_the_order_of_the_columns():
    cells = dict(zip(report.COLUMNS, report.row(measured()), strict=True))
    assert cells == {
        "tokenizer": "vq", "codes": "16", "vocabulary": "4,096", "bits": "192", "coded bits": "150",
        "bits/pixel": "0.1875", "PSNR dB": "20.00 ± 0.50", "SSIM": "0.765", "FD-efficientnet-lite0": "1.234",
        "use": "25.0%", "dead": "3,072", "perplexity": "812", "entropy": "9.67",
    }  # fmt: skip


def test_the_caption_says_what_was_measured():
    assert report.caption([measured(), measured(side=32), measured()]) == (
        "30 held-out images at 64, 32 pixels a side; FD-efficientnet-lite0 over 30 images; "
        "the mean of all of them has 11.11 dB"
    )
    assert report.caption([measured(unit="clip", frames=5)]).startswith(
        "30 held-out clips of 5 frames at 64 pixels a side; FD-efficientnet-lite0 over 150 frames;"
    )


def test_the_table_is_one_of_markdown():
    lines = report._markdown([measured("a"), measured("b")])
    assert lines[1] == ""
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert lines[3] == "|---|" + "---:|" * 12
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["a", "b"]


def test_tokenizers_compare_on_the_same_pictures_in_the_same_unit():
    several = [measured("a"), measured("b", data="b"), measured("c"), measured("d", unit="clip")]
    assert [[each.name for each in group] for group in by_data(several).values()] == [
        ["a", "c"],
        ["b"],
        ["d"],
    ]


def test_each_set_of_pictures_has_its_files_and_they_are_named_in_the_page(tmp_path):
    report.write([measured("a"), measured("b", data="b")], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    for name in ("rate.svg", "sheet.png", "rate-2.svg", "sheet-2.png"):
        assert (tmp_path / "out" / name).is_file()
        assert f"({name})" in text


def test_the_sheet_has_a_line_of_originals_and_one_of_each_tokenizer(monkeypatch):
    """Pictures of 96 pixels, 6 between them and 22 above each row for its name."""
    calls = []
    monkeypatch.setattr(ImageFont, "load_default", lambda size: size)
    monkeypatch.setattr(
        ImageDraw, "Draw", lambda page: SimpleNamespace(text=lambda *call: calls.append(call))
    )
    pasted = []
    monkeypatch.setattr(
        Image.Image, "paste", lambda self, picture, place: pasted.append((*place, *picture.size))
    )
    page = report.sheet([measured("a"), measured("b", shown=2)])
    assert page.size == (3 * 102 + 6, 3 * 118 + 6)
    assert calls == [
        ((6, 118 * row + 4), name, (60, 64, 72), 13) for row, name in enumerate(("originals", "a", "b"))
    ]
    assert pasted == [
        (6 + 102 * column, 118 * row + 22, 96, 96)
        for row, count in enumerate((3, 3, 2))
        for column in range(count)
    ]


def test_the_plot_is_of_coded_bits_and_decibels(monkeypatch):
    monkeypatch.setattr(report.plots, "scatter", lambda *call: call)
    assert report.plot([measured("a", unit="clip")]) == (
        [("a", 150.4, 20.0)], "entropy-coded bits a clip", "PSNR, dB",
    )  # fmt: skip
