"""Folders and files that take the place of others appear whole, or say why they cannot."""

import os
from pathlib import Path

import pytest

from chiasm.cli import main
from chiasm.data.filtering.stream import whole_file
from chiasm.errors import CheckpointError, ChiasmError
from chiasm.storage.folders import is_nameless, read_json, whole_folder


@pytest.mark.parametrize("name", [".", "..", "/", "", "here/.."])
@pytest.mark.parametrize("whole", [whole_folder, whole_file])
def test_nothing_takes_the_place_of_the_folder_one_is_in(tmp_path, monkeypatch, whole, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with (
        pytest.raises(ChiasmError, match="nothing can be written in the place of"),
        whole(tmp_path.__class__(name)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize(
    "command",
    ["data filter records.jsonl .", "data make run images --out .", "data make run images --out="],
)
def test_commands_say_so(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "records.jsonl").write_text("")
    monkeypatch.setattr("sys.argv", ["chiasm", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "nothing can be written in the place of ." in capsys.readouterr().err


def test_names_of_dots_alone_are_names():
    assert [name for name in (".", "..", "/", "a/..", "...", "a", "a.") if is_nameless(Path(name))] == [
        ".",
        "..",
        "/",
        "a/..",
    ]


def test_a_pipe_in_the_place_of_json_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "state.json")
    with pytest.raises(CheckpointError, match=r"state\.json cannot be read: it is no file"):
        read_json(tmp_path / "state.json")
