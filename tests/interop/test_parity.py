"""The shared parity cases, where CHIASM_PARITY names their folder."""

import os
from pathlib import Path

import pytest

from chiasm.interop import verify

PLACE = os.environ.get("CHIASM_PARITY")
CASES = [
    "beit3",
    "llava",
    "moe_llava",
    "xcomposer2",
    "taming_vqgan",
    "llamagen/vq-l2.json",
    "llamagen/vqloss.json",
]


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
@pytest.mark.parametrize("case", CASES)
def test_every_case_agrees(case):
    results = verify([Path(PLACE or "") / case])
    assert results
    assert not [str(each) for each in results if not each.agrees]
