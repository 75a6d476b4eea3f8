"""How a folder says that images are prepared: taken over by the encoder, or refused by name."""

import json

import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, find_family
from chiasm.interop.preparation import check_preprocessor

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
