"""Training that is killed at any moment and started again ends as if it had been left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from chiasm.training.metrics import read_metrics

SCRIPT = Path(__file__).with_name("killing.py")


@pytest.mark.slow
def test_killed_ten_times_is_never_killed_bit_for_bit(tmp_path):
    command = [sys.executable, SCRIPT, tmp_path, "10", "0"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "10"
    weights = [(tmp_path / name / "final" / "model.safetensors").read_bytes() for name in ("alone", "killed")]
    assert weights[0] == weights[1]
    timeless = [
        [
            {k: v for k, v in line.items() if k not in ("seconds", "waited")}
            for line in read_metrics(tmp_path / name)
        ]
        for name in ("alone", "killed")
    ]
    assert timeless[0] == timeless[1]
    assert len(timeless[0]) == 110
    left = {path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    assert len(left) <= 3
    assert not any(name.startswith(".") for name in left)
