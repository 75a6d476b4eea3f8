"""Frozen weights that all checkpoints of a run share."""

import pytest
import torch

from chiasm.storage.folders import write_tensors
from chiasm.storage.frozen import FOLDER, fetched, set_aside
from chiasm.storage.weights import read_tensors


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None])
def test_a_file_that_is_damaged_is_written_anew_at_the_next_save(tmp_path, damage):
    tensors = {"encoder.weight": torch.randn(3, 4), "language.weight": torch.randn(2)}
    checkpoint = tmp_path / "checkpoints" / "one"
    rest, references = set_aside(tensors, ["encoder"], tmp_path, write_tensors)
    assert set(rest) == {"language.weight"}
    (path,) = (tmp_path / FOLDER).iterdir()
    if damage is None:  # one bit of the last value
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(damage)
    assert set_aside(tensors, ["encoder"], tmp_path, write_tensors)[1] == references
    assert torch.equal(read_tensors(path)["encoder.weight"], tensors["encoder.weight"])
    assert torch.equal(fetched(references, checkpoint)["encoder.weight"], tensors["encoder.weight"])


def test_an_undamaged_file_is_not_written_twice(tmp_path):
    tensors, written = {"encoder.weight": torch.ones(2)}, []

    def write(path, tensors):
        written.append(path)
        write_tensors(path, tensors)

    for _ in range(3):
        set_aside(tensors, ["encoder"], tmp_path, write)
    assert len(written) == 1
