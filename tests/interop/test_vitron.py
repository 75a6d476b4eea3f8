"""VITRON's parity cases."""

import os
from pathlib import Path

import pytest

from chiasm.interop import verify

PLACE = os.environ.get("CHIASM_PARITY")


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "vitron"])
    assert results
    assert not [str(each) for each in results if not each.agrees]
