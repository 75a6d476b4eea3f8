"""`chiasm doctor` names what is there and what is missing."""

import sys
from importlib import metadata

import torch

from chiasm.cli import main
from chiasm.terminal import doctor


def test_it_names_versions_and_the_default_device(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["chiasm", "doctor"])
    main()
    text = capsys.readouterr().out
    assert torch.__version__ in text
    assert "cpu x 1" in text
    assert "(default)" in text


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch, capsys):
    version = metadata.version

    def lacking(package):
        if package == "fastapi":
            raise metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(metadata, "version", lacking)
    monkeypatch.setattr(metadata, "requires", lambda _: ['fastapi>=0.1; extra == "serve"', "torch>=2"])
    assert doctor.missing()["serve"] == ["fastapi"]
    assert doctor.missing()["study"] == []
    doctor.doctor()
    assert "missing fastapi: pip install 'chiasm[serve]'" in capsys.readouterr().out


def test_a_version_that_will_not_do_is_named_with_the_one_that_is_needed(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=999", 'torch<3; extra == "study"'])
    monkeypatch.setattr(metadata, "version", lambda _: "2.13.0+cpu")
    lacking = doctor.missing()
    assert lacking[doctor.ITSELF] == ["torch>=999 (not 2.13.0+cpu)"]
    assert lacking["study"] == []


def test_it_runs_where_chiasm_only_lies_on_the_path(monkeypatch, capsys):
    def nowhere(_):
        raise metadata.PackageNotFoundError("chiasm")

    monkeypatch.setattr(metadata, "requires", nowhere)
    doctor.doctor()
    assert "threads" in capsys.readouterr().out
