"""`chiasm serve` as it is typed."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from chiasm.errors import ChiasmError
from chiasm.model.checkpoint import save_model
from chiasm.recipe import load_recipe
from chiasm.terminal.serve import bound, names

ADDRESS = re.compile(r"http://\S+/v1")


def test_a_run_is_served_until_it_is_interrupted(tiny, tiny_model, tmp_path):
    save_model(tiny_model[0], load_recipe(tiny), tmp_path / "mine")
    command = [sys.executable, "-m", "chiasm.cli", "serve", str(tmp_path / "mine"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines = iter(process.stdout.readline, "")
        address = next(found[0] for found in map(ADDRESS.search, lines) if found)
        with urllib.request.urlopen(address + "/models", timeout=60) as reply:
            assert [model["id"] for model in json.load(reply)["data"]] == ["mine"]
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
        assert process.returncode == 0
    finally:
        process.kill()
    assert "Traceback" not in rest


def test_models_have_names_of_their_own(tmp_path):
    (tmp_path / "run").mkdir()
    assert names(["one=a/run", f"{tmp_path}/run"]) == {
        "one": names(["x=a/run"])["x"],
        "run": tmp_path / "run",
    }
    with pytest.raises(ChiasmError, match=r"another .run.; give it one: NAME=FOLDER"):
        names(["a/run", "b/run"])
    with pytest.raises(ChiasmError, match="no name"):
        names(["=a/run"])


def test_an_address_that_cannot_be_listened_at_is_said_before_anything_is_loaded(tmp_path):
    with bound("127.0.0.1", 0) as free, socket.create_connection(free.getsockname()):
        taken = free.getsockname()[1]
        with pytest.raises(
            ChiasmError, match=rf"^127\.0\.0\.1:{taken} cannot be listened at: address already in use"
        ):
            bound("127.0.0.1", taken)
    with pytest.raises(
        ChiasmError, match=r"^nowhere\.invalid:8000 cannot be listened at: .* \(--host, --port\)$"
    ):
        bound("nowhere.invalid", 8000)
    with pytest.raises(ChiasmError, match="it is no name of a machine"):
        bound("\xe9" * 300, 8000)
    command = [sys.executable, "-m", "chiasm.cli", "serve", str(tmp_path), "--host", "nowhere.invalid"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, "cannot be listened at" in done.stderr) == (1, True), done.stderr
