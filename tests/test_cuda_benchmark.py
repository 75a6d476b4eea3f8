"""The script for machines with a GPU: what of it can be tried on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cuda

    return cuda


def test_other_scripts_of_the_folder_can_import_torch():
    """It looks for a package `cuda`, and the folder of a script is the first place where it looks."""
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    subprocess.run([sys.executable, "-c", "import torch.cuda"], env=environment, check=True)


def test_attention_by_flex_attention_is_the_rule_in_every_layout(cuda):
    device = torch.device("cpu")
    for layout in cuda.layouts(device, length=100).values():
        assert cuda.flex_differences(layout, torch.float32, backward=False)["forward"] < 1e-4


def test_a_wrong_kernel_is_noticed(cuda, monkeypatch):
    causal = cuda.Layout.causal(2, 100)
    monkeypatch.setattr(cuda, "flex", lambda query, key, value, layout: cuda.dense(query, key, value, causal))
    layout = cuda.layouts(torch.device("cpu"), length=100)["private blocks"]
    differences = cuda.flex_differences(layout, torch.float32)
    assert set(differences) == {"forward", "query", "key", "value"}
    assert min(differences.values()) > 1e-2


def test_without_a_gpu_it_says_so():
    done = subprocess.run([sys.executable, BENCHMARKS / "cuda.py"], capture_output=True, text=True, timeout=400,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    assert done.returncode == 1
    assert "there is no cuda on this machine" in done.stderr
    assert "Traceback" not in done.stderr
