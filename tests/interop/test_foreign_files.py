"""Small files of a stranger's folder: bounded work, and what they hold is what is read, or a sentence."""

import json
import os

import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, find_family, recognise
from chiasm.interop.families.open_magvit2 import IMAGE
from chiasm.interop.shapes.towers import preprocessor
from chiasm.storage import safe_json
from chiasm.storage.weights import read_tensors

MAGVIT2 = (
    f"model: {{class_path: x{IMAGE}, init_args: {{n_embed: 16, ddconfig: {{ch: 32, z_channels: 4}}}}}}\n"
)
BOMB = "data: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}\n" for i in range(1, 9)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)
HOSTILE = {
    "aliases of aliases": (BOMB, "values once its aliases are written out"),
    "merges of merges": (MERGES, "merge keys"),
    "itself": ("data: &a {b: *a}\n", "holds itself"),
    "depth": ("data: " + "[" * 2000, "nested too deeply"),
    "length": ("# " + "x" * (1 << 17), "larger than 131,072 bytes"),
    "a key twice": ("data: {a: 1, a: 2}\n", "the key 'a' stands there twice"),
    "a tag that does not fit": ("data: !!bool x\n", "not YAML"),
    "no text": ("data: !!float ''\n", "not YAML"),
    "an object": ("data: !!python/object/apply:os.system [touch evil]\n", "not YAML"),
    "a huge number": (f"data: 0x{'f' * 9000}\n", "not YAML"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_yaml_is_not_read_and_the_error_says_why(tmp_path, case):
    text, reason = HOSTILE[case]
    (tmp_path / "config.yaml").write_text(MAGVIT2 + text)
    with pytest.raises(CheckpointError, match=f"Not read: .*config.yaml.*{reason}") as caught:
        recognise(Folder(tmp_path))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_yaml_beside_a_layout_does_not_stand_in_its_way(tmp_path, case):
    (tmp_path / "a.yaml").write_text(HOSTILE[case][0])
    (tmp_path / "b.yaml").write_text(MAGVIT2)
    assert recognise(Folder(tmp_path)).name == "open-magvit2-vq"


def test_what_is_called_yaml_and_is_no_file_is_passed_by(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "nowhere.yml").symlink_to(tmp_path / "missing")
    (tmp_path / "b.yaml").write_text(MAGVIT2)
    assert recognise(Folder(tmp_path)).name == "open-magvit2-vq"


def test_a_pipe_in_the_place_of_weights_is_a_sentence(tmp_path):
    os.mkfifo(tmp_path / "vq_ds16.pt")
    folder = Folder(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint file .*vq_ds16\.pt"):
        find_family("llamagen-vq").read(folder)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5e+3", 1500.0),
        ("no", False),
        ("2024-01-01", "2024-01-01"),
        ("0x10", 16),
        ("v1", "v1"),
    ],
)
def test_a_yaml_of_another_project_is_read_as_its_own_code_reads_it(tmp_path, text, value):
    (tmp_path / "x.yaml").write_text(f"a: {text}")
    content = Folder(tmp_path).yamls["x.yaml"]["a"]
    assert (content, type(content)) == (value, type(value))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize("content", ["[]", '[{"image_mean": [0, 0, 0]}]', "3", '"x"', "null"])
def test_a_json_that_holds_no_object_is_an_error_and_not_an_absent_file(tmp_path, name, content):
    assert Folder(tmp_path).json(name) == {}
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=f"{name} holds no object"):
        Folder(tmp_path).json(name)


@pytest.mark.parametrize("content", ['{"a": 1, "a": 2}', '{"b": [{"a": 1, "c": 3, "a": 1}]}'])
def test_a_key_that_stands_twice_in_a_json_is_an_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON: the key 'a' stands there twice"):
        recognise(Folder(tmp_path))


def test_a_key_that_stands_twice_among_very_many_is_found_by_looking_once_at_each():
    keys = [Key(f"k{i}") for i in range(10_000)]
    with pytest.raises(ValueError, match="the key 'k9999' stands there twice"):
        safe_json.each_key_once([(key, 1) for key in (*keys, keys[-1])])
    assert Key.compared <= len(keys)


class Key(str):
    """Counts how often two are compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Key.compared += 1
        return str.__eq__(self, other)


def test_a_preprocessor_that_is_no_object_does_not_give_the_usual_colours(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('[{"image_mean": [0, 0, 0]}]')
    with pytest.raises(CheckpointError, match="holds no object"):
        preprocessor(Folder(tmp_path))


def test_a_tensor_that_an_index_places_twice_is_an_error(tmp_path):
    shards = ("a.safetensors", "b.safetensors")
    places = ", ".join(f'"w": {json.dumps(shard)}' for shard in shards)
    (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{places}}}}}')
    with pytest.raises(CheckpointError, match="the key 'w' stands there twice"):
        read_tensors(tmp_path)


@pytest.fixture
def both(tmp_path):
    """A training checkpoint with weights of ones and their moving average of twos."""
    torch.save({"model": {"w": torch.ones(1)}, "ema": {"w": 2 * torch.ones(1)}}, tmp_path / "x.pt")
    return tmp_path


@pytest.mark.parametrize(("averaged", "value"), [(False, 1.0), (True, 2.0)])
def test_which_of_two_sets_of_weights_was_taken_is_part_of_the_import(both, averaged, value):
    folder = Folder(both, averaged=averaged)
    assert folder.tensors["w"].item() == value
    assert ("--averaged" in folder.remark) is not averaged
    assert ("moving average" in folder.remark) is averaged or "raw weights" in folder.remark


def test_of_weights_that_stand_there_once_nothing_is_remarked(tmp_path):
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "x.pt")
    folder = Folder(tmp_path)
    assert folder.tensors.keys() == {"w"}
    assert folder.remark == ""
