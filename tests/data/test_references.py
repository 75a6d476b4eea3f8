"""Images as arguments name them: one, or a list of several."""

import numpy as np
import pytest
from PIL import Image

from chiasm.data.references import pictures_of
from chiasm.errors import DataError


@pytest.mark.parametrize("several", [list, tuple])
def test_one_image_or_a_list_of_several(tmp_path, several):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    one = str(tmp_path / "a.png")
    assert [each.size for each in pictures_of(one, "it")] == [(2, 3)]
    assert [each.size for each in pictures_of(several([one, Image.new("RGB", (5, 4))]), "it")] == [
        (2, 3),
        (4, 5),
    ]
    assert pictures_of(several(), "it") == []


@pytest.mark.parametrize(
    "value",
    [5, None, object(), [5], {"a.png": 1}, np.zeros((2, 2)), iter([])],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_image_is_a_sentence(value):
    with pytest.raises(DataError, match="it"):
        pictures_of(value, "it")
