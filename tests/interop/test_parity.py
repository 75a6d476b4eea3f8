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
    "chameleon",
    "emu3",
    "janus",
    "lucidrains_vq",
    "lvm",
    "open_magvit2/lfq-factorized.json",
    "open_magvit2/lfq-image-ema.json",
    "open_magvit2/lfq-loss.json",
    "open_magvit2/lfq-video.json",
    "show_o/magvitv2.json",
    "var/vqvae-nonshared-znorm.json",
    "var/vqvae-shared4.json",
    "var/vqvae-train-step.json",
    "vqvae",
    "llamagen/vq-l2.json",
    "llamagen/vqloss.json",
]


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
@pytest.mark.parametrize("case", CASES)
def test_every_case_agrees(case):
    results = verify([Path(PLACE or "") / case])
    assert results
    assert not [str(each) for each in results if not each.agrees]
