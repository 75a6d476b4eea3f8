"""Two processes are one process that has all of their documents; a rank without a picture holds nobody up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import toy

from chiasm.training import train

HERE = Path(__file__).parent


def launch(processes, script, *arguments):
    command = [sys.executable, script, *arguments]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *torchrun, script, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_ranks_of_which_one_has_only_words_equal_one_process(tmp_path):
    launch(2, HERE / "union.py", tmp_path)
    launch(1, HERE / "union.py", tmp_path)
    one = load_file(tmp_path / "rank0of1.safetensors")
    two = [load_file(tmp_path / f"rank{rank}of2.safetensors") for rank in (0, 1)]
    for name, value in one.items():
        assert torch.equal(two[0][name], two[1][name]), name
        torch.testing.assert_close(two[0][name], value, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.slow
def test_a_whole_run_on_two_ranks_ends_and_is_kept_once(tmp_path):
    launch(2, HERE / "whole.py", tmp_path / "run")
    assert (tmp_path / "run" / "final" / "model.safetensors").is_file()
    # One process now finds it finished.
    assert train(toy("stages.codes.steps=4", "stages.learn.steps=4"), tmp_path / "run") == tmp_path / "run"
