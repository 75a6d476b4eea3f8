"""How a folder says that images are prepared: taken over by the encoder, or refused by name."""

import json
from contextlib import suppress

import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, find_family
from chiasm.interop.shapes.preparation import check_preprocessor
from chiasm.interop.shapes.towers import colour, normalisation

VIEWS = {"views": {"type": "letterbox", "size": 28, "padding": [127, 127, 127]}}


def folder(tmp_path, **preprocessor):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return Folder(tmp_path)


def test_janus_reads_with_the_mean_and_deviation_of_its_preprocessor(tmp_path):
    given = folder(tmp_path, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    values = find_family("janus").constants(given)
    torch.testing.assert_close(values["encoder.mean"].flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(values["encoder.deviation"].flatten(), torch.tensor([0.4, 0.5, 0.6]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tilt", 3),
        ("rescale_factor", 1.0),
        ("do_rescale", False),
        ("image_size", 56),
        ("resample", 2),
        ("image_mean", [0.1, 0.2, 0.3]),
        ("image_std", [0.1, 0.2, 0.3]),
        ("background_color", [0, 0, 0]),
    ],
)
def test_what_the_parts_do_not_do_is_refused_by_name(tmp_path, key, value):
    check_preprocessor(folder(tmp_path, image_size=28), VIEWS)
    with pytest.raises(CheckpointError, match=key):
        check_preprocessor(folder(tmp_path, **{key: value}), VIEWS)


def whole(fit):
    return {"type": "whole", "size": 28, "fit": fit}


TILES = {"type": "any_resolution", "size": 28, "resolutions": [[28, 56]]}
LETTERBOX = VIEWS["views"]
BOUNDED = {"type": "bounded", "longest": 98, "shortest": 37}
NATIVE = {"type": "native", "patch": 30}
ALL_VIEWS = [*map(whole, ("crop", "pad", "stretch")), TILES, LETTERBOX, BOUNDED, NATIVE,
             {"type": "hd_tiles", "size": 28}, {"type": "framed", "size": 28}]  # fmt: skip
SQUARE = {"height": 28, "width": 28}

ACCEPTED = [
    (whole("crop"), {"do_center_crop": True, "size": {"shortest_edge": 28}, "crop_size": SQUARE}),
    (whole("crop"), {"do_center_crop": True, "size": 28, "crop_size": 28}),
    (whole("pad"), {"do_pad": True, "do_center_crop": False, "background_color": [127, 127, 127]}),
    (whole("stretch"), {"do_center_crop": False, "size": SQUARE}),
    (whole("stretch"), {"size": 28}),
    (TILES, {"do_center_crop": True, "do_pad": True, "size": {"shortest_edge": 28}, "crop_size": SQUARE}),
    (TILES, {"do_center_crop": False, "do_pad": None, "size": [28, 28]}),
    (LETTERBOX, {"do_pad": True, "size": SQUARE, "min_size": 14, "background_color": [127, 127, 127]}),
    (BOUNDED, {"do_pad": True, "size": {"shortest_edge": 37, "longest_edge": 98}}),
    (NATIVE, {"do_pad": True, "size": {"height": 1080, "width": 1920}, "padding_value": 1.0,
              "padding_mode": "constant", "patch_size": {"height": 30, "width": 30},
              "image_mean": 0.5, "image_std": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("views", "preprocessor"), ACCEPTED)
def test_what_the_views_do_is_accepted(tmp_path, views, preprocessor):
    check_preprocessor(folder(tmp_path, **preprocessor), {"views": views})


REFUSED = [
    (whole("crop"), "do_center_crop", False),
    (whole("crop"), "do_pad", True),
    (whole("crop"), "size", SQUARE),  # stretches
    (whole("crop"), "size", {"shortest_edge": 32}),
    (whole("stretch"), "size", {"shortest_edge": 28}),  # keeps the aspect ratio
    (whole("pad"), "background_color", [0, 0, 0]),
    (TILES, "size", {"shortest_edge": 56}),
    (TILES, "crop_size", {"height": 56, "width": 56}),
    (LETTERBOX, "do_center_crop", True),
    (LETTERBOX, "do_pad", False),
    (LETTERBOX, "size", 14),  # the least side, which is no size of the view
    (LETTERBOX, "high_res_size", SQUARE),
    (BOUNDED, "do_center_crop", True),
    (BOUNDED, "size", {"shortest_edge": 98, "longest_edge": 37}),
    (BOUNDED, "size", SQUARE),
    (BOUNDED, "crop_size", 98),
    (NATIVE, "do_center_crop", True),
    (NATIVE, "do_pad", False),
    (NATIVE, "size", {"height": 540, "width": 960}),
    (NATIVE, "patch_size", {"height": 15, "width": 15}),
    (NATIVE, "padding_value", 0.0),
    (NATIVE, "padding_mode", "edge"),
    *[(views, "rescale_factor", float("nan")) for views in ALL_VIEWS],
    *[(views, "do_normalize", "no") for views in ALL_VIEWS],
    *[(views, "high_res_resample", 2) for views in ALL_VIEWS],
]


@pytest.mark.parametrize(("views", "key", "value"), REFUSED)
def test_what_the_views_do_otherwise_is_refused_by_name(tmp_path, views, key, value):
    with pytest.raises(CheckpointError, match=key):
        check_preprocessor(folder(tmp_path, **{key: value}), {"views": views})


HYBRID = {"views": {"type": "letterbox", "size": 64}, "encoder": {"type": "hybrid", "sizes": [None, 28]}}


def test_two_towers_have_two_sizes(tmp_path):
    large = {"height": 64, "width": 64}
    check_preprocessor(folder(tmp_path, size=SQUARE, high_res_size=large), HYBRID)
    for size, high, named in ((large, large, "size"), (SQUARE, SQUARE, "high_res_size")):
        with pytest.raises(CheckpointError, match=f"preprocessor: {named} is"):
            check_preprocessor(folder(tmp_path, size=size, high_res_size=high), HYBRID)


KEYS = ("size", "crop_size", "image_size", "pad_size", "high_res_size", "patch_size", "rescale_factor",
        "image_mean", "image_std", "high_res_image_mean", "background_color", "high_res_background_color",
        "do_pad", "do_resize", "do_rescale", "do_normalize", "do_center_crop", "resample", "min_size",
        "padding_value")  # fmt: skip
NONSENSE = (
    "x",
    5,
    -1,
    True,
    [],
    {},
    {"a": []},
    {"height": []},
    [[1]],
    [1, 2],
    float("nan"),
    1e400,
    "[(",
    10**400,
)


@pytest.mark.parametrize("views", ALL_VIEWS, ids=lambda views: views["type"])
def test_nonsense_in_a_preprocessor_is_a_sentence(tmp_path, views):
    for key in KEYS:
        for value in NONSENSE:
            given = folder(tmp_path, **{"image_mean": 0.5, "image_std": 0.5, key: value})
            with suppress(CheckpointError):  # any other error is a failure
                check_preprocessor(given, {"views": views})
            with suppress(CheckpointError):
                normalisation(given)


@pytest.mark.parametrize("value", [5, "x", [], None])
def test_an_image_processor_that_is_no_object_is_a_sentence(tmp_path, value):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": value}))
    with pytest.raises(CheckpointError, match=r"image_processor is .* has to be an object"):
        check_preprocessor(Folder(tmp_path), VIEWS)


@pytest.mark.parametrize("family", ["llava-hf", "deepseek-vl-hf", "janus", "blip2-hf", "honeybee"])
@pytest.mark.parametrize("value", ["x", [0.5], [], {"a": 1}, [0.5, 0.5, "x"], [0, float("inf"), 1]])
def test_a_mean_that_is_none_is_a_sentence_in_every_family(tmp_path, family, value):
    given = folder(tmp_path, image_mean=value, image_std=[0.5] * 3)
    with pytest.raises(CheckpointError, match=r"image_mean is .* a number, or one for each colour"):
        find_family(family).constants(given)


def test_pixels_are_not_divided_by_nothing(tmp_path):
    with pytest.raises(CheckpointError, match=r"image_std is \[0.5, 0, 0.5\]"):
        normalisation(folder(tmp_path, image_mean=0.5, image_std=[0.5, 0, 0.5]))


def test_one_number_stands_for_every_colour_as_in_transformers(tmp_path):
    values = normalisation(folder(tmp_path, image_mean=0.25, image_std=0.5))
    assert values["encoder.mean"].flatten().tolist() == [0.25] * 3
    assert values["encoder.deviation"].flatten().tolist() == [0.5] * 3
    assert colour(0.5) == [127] * 3


POINTS = [[28, 56], [56, 28]]


@pytest.mark.parametrize("canvases", [[[28, 56]], [[56, 28], [28, 56]], "x", 5])
def test_tiles_are_cut_for_the_canvases_by_which_they_are_counted(tmp_path, canvases):
    config = {
        "model_type": "llava_next",
        "text_config": {},
        "vision_config": {},
        "image_grid_pinpoints": POINTS,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"w": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    find_family("llava-hf").read(folder(tmp_path, image_grid_pinpoints=POINTS))
    with pytest.raises(CheckpointError, match="preprocessor's image_grid_pinpoints"):
        find_family("llava-hf").read(folder(tmp_path, image_grid_pinpoints=canvases))
