"""The cache on disk: found again, shared by processes, never half-written, never mixed."""

import errno
import os
import pickle
import sys
from multiprocessing import get_context

import pytest
import torch
from torch import nn

from chiasm.errors import ChiasmError
from chiasm.storage.cache import TensorCache, default_folder, fingerprint


def features(count, prefix="k"):
    return {f"{prefix}{i}": torch.randn(6, 6, 8).bfloat16() for i in range(count)}


def started(function, *arguments):
    """A process that does it, forked, as it need not import anything then."""
    process = get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def ended(process):
    process.join()
    return process.exitcode


def shards(folder):
    return sorted(folder.glob("*/*.safetensors"))


def test_what_is_put_is_found_before_and_after_it_is_written(tmp_path):
    stored = features(3) | {"codes": torch.arange(4).view(2, 2), "number": torch.tensor(1.5)}
    with TensorCache(tmp_path, "a") as cache:
        cache.put(stored)
        assert shards(tmp_path) == []
        assert "k0" in cache
        assert "other" not in cache
        early = cache.get(["codes", "other", "k1"])
    late = TensorCache(tmp_path, "a").get(["codes", "other", "k1"])
    for found in (early, late):
        assert found[1] is None
        assert torch.equal(found[0], stored["codes"])
        assert torch.equal(found[2], stored["k1"])
        assert found[2].dtype == torch.bfloat16
    assert len(TensorCache(tmp_path, "a")) == 5


def test_rows_of_one_batch_and_odd_layouts_can_be_put(tmp_path):
    batch = torch.randn(4, 3, 5).transpose(1, 2).requires_grad_()
    with TensorCache(tmp_path, "a") as cache:
        cache.put({str(i): row for i, row in enumerate(batch)})
    found = TensorCache(tmp_path, "a").get(list("0123"))
    assert torch.equal(torch.stack(found), batch)


def test_a_second_process_finds_it(tmp_path):
    with TensorCache(tmp_path, "a") as cache:
        cache.put({"x": torch.tensor([1.0, 2.0])})

    def read():
        sys.exit(int(TensorCache(tmp_path, "a").get(["x"])[0].sum()))

    assert ended(started(read)) == 3


def test_what_another_process_writes_meanwhile_is_found(tmp_path):
    mine, other = TensorCache(tmp_path, "a"), TensorCache(tmp_path, "a")
    assert mine.get(["x"]) == [None]
    for key in "xyz":  # faster than the folder's clock may tick
        other.put({key: torch.ones(1)})
        other.flush()
        assert mine.get([key])[0] is not None


def test_only_missing_keys_are_written(tmp_path):
    stored = features(4)
    for _ in range(2):
        with TensorCache(tmp_path, "a") as cache:
            cache.put(stored)
    assert len(shards(tmp_path)) == 1


def test_many_tensors_are_split_over_shards(tmp_path):
    with TensorCache(tmp_path, "a", shard_tensors=10) as cache:
        cache.put(features(25))
    assert len(shards(tmp_path)) == 3
    assert TensorCache(tmp_path, "a").missing(features(25)) == []


def test_different_fingerprints_never_mix(tmp_path):
    for name in ("a", "b"):
        with TensorCache(tmp_path, name) as cache:
            cache.put({"x": torch.tensor(ord(name))})
    assert [int(TensorCache(tmp_path, name).get(["x"])[0]) for name in ("a", "b")] == [97, 98]
    assert "x" not in TensorCache(tmp_path, "c")
    with pytest.raises(ChiasmError, match="plain folder name"):
        TensorCache(tmp_path, "../a")


@pytest.mark.parametrize("damage", ["truncated", "emptied", "scribbled"])
@pytest.mark.parametrize("opened", [False, True])
def test_a_damaged_shard_is_told_of_and_written_anew(tmp_path, damage, opened):
    stored = features(4)
    with TensorCache(tmp_path, "a", shard_tensors=2) as cache:
        cache.put(stored)
    reader = TensorCache(tmp_path, "a")
    if not opened:
        bad = shards(tmp_path)[0]
        content = {"truncated": bad.read_bytes()[:-9], "emptied": b"", "scribbled": b"?" * 500}[damage]
        bad.write_bytes(content)
        with pytest.warns(UserWarning, match="is damaged"):
            lost = reader.missing(stored)
    else:  # the shard vanishes, under a reader that knows it
        assert reader.missing(stored) == []
        reader._open.clear()
        shards(tmp_path)[0].unlink()
        lost = [key for key, tensor in zip(stored, reader.get(stored)) if tensor is None]
    assert len(lost) == 2
    reader.put({key: stored[key] for key in lost})
    reader.flush()
    found = TensorCache(tmp_path, "a").get(stored)
    assert all(torch.equal(a, b) for a, b in zip(found, stored.values()))


def test_many_processes_write_at_once(tmp_path):
    def write(number):
        with TensorCache(tmp_path, "a", shard_tensors=7) as cache:
            for i in range(60):
                cache.put({f"shared{i}": torch.full((3,), i), f"own{number}-{i}": torch.full((2,), i)})

    writers = [started(write, number) for number in range(3)]
    assert [ended(writer) for writer in writers] == [0, 0, 0]
    cache = TensorCache(tmp_path, "a")
    assert len(cache) == 60 + 3 * 60
    for i, tensor in enumerate(cache.get([f"shared{i}" for i in range(60)])):
        assert torch.equal(tensor, torch.full((3,), i))


def test_a_full_disk_is_a_sentence_and_leaves_no_half_file(tmp_path, monkeypatch):
    cache = TensorCache(tmp_path, "a")
    cache.put(features(2))
    with monkeypatch.context() as patch:

        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(ChiasmError, match=r"the disk of the cache .* is full.*CHIASM_CACHE"):
            cache.flush()
        assert list((tmp_path / "a").iterdir()) == []
    cache.flush()  # nothing was lost
    assert len(TensorCache(tmp_path, "a")) == 2


def test_an_unwritable_folder_is_a_sentence(tmp_path):
    (tmp_path / "a").write_text("a file")
    cache = TensorCache(tmp_path, "a")
    cache.put({"x": torch.ones(1)})
    with pytest.raises(ChiasmError, match="cannot be written"):
        cache.flush()


def test_what_a_killed_writer_left_is_ignored_and_removed_later(tmp_path):
    with TensorCache(tmp_path, "a") as cache:
        cache.put(features(1))
    left = tmp_path / "a" / ".dead.safetensors.tmp"
    left.write_bytes(b"half")
    assert len(TensorCache(tmp_path, "a")) == 1
    assert left.exists()
    os.utime(left, (0, 0))
    TensorCache(tmp_path, "a")
    assert not left.exists()


def test_changing_what_was_read_changes_nothing_stored(tmp_path):
    with TensorCache(tmp_path, "a") as cache:
        cache.put({"x": torch.zeros(3)})
    cache.get(["x"])[0].add_(1)
    assert torch.equal(cache.get(["x"])[0], torch.zeros(3))
    assert torch.equal(TensorCache(tmp_path, "a").get(["x"])[0], torch.zeros(3))


def test_a_cache_can_be_sent_to_a_worker(tmp_path):
    with TensorCache(tmp_path, "a") as cache:
        cache.put(features(2))
    assert "k1" in pickle.loads(pickle.dumps(cache))


def test_a_batch_is_read_from_shards_that_are_open(tmp_path, monkeypatch):
    with TensorCache(tmp_path, "a", shard_tensors=8) as cache:
        cache.put(tensors := features(64))
    cache = TensorCache(tmp_path, "a")
    keys = [f"k{i * 4}" for i in range(16)]
    cache.get(keys)
    monkeypatch.setattr("chiasm.storage.cache.safe_open", lambda *_, **__: pytest.fail("opened again"))
    for key, tensor in zip(keys, cache.get(keys), strict=True):
        assert torch.equal(tensor, tensors[key])


def test_the_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CHIASM_CACHE", "/somewhere")
    assert str(default_folder()) == "/somewhere"
    monkeypatch.delenv("CHIASM_CACHE")
    assert default_folder().parts[-2:] == (".cache", "chiasm")


def test_the_fingerprint_is_of_weights_settings_and_transform():
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(3)
    first = fingerprint(layer, "whole 192")
    assert fingerprint(layer, "whole 192") == first
    others = [fingerprint(layer, "whole 224")]
    layer.running_mean += 1e-6
    others.append(fingerprint(layer, "whole 192"))
    layer.eps = 1e-3
    others.append(fingerprint(layer, "whole 192"))
    assert len({first, *others}) == 4
