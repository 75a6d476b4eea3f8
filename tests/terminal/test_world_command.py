"""`chiasm world`: where its contact sheet may go."""

import pytest

from chiasm.errors import ChiasmError
from chiasm.terminal.world import world


@pytest.mark.parametrize("name", ["sheet", "sheet.emoji", "x/.."])
def test_a_sheet_whose_name_says_no_format_is_refused_at_once(tmp_path, name):
    with pytest.raises(ChiasmError, match=r"says no format of images; end it with \.png"):
        world(["emoji=4"], tmp_path / name, 4)
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_is_written(tmp_path):
    world(["emoji=9", "scenes=4"], tmp_path / "new" / "sheet.png", 4)
    assert (tmp_path / "new" / "sheet.png").is_file()
