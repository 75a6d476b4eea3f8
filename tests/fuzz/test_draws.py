"""The examples of property tests are the same whatever else a process has imported."""

import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

MANY = "\n".join(f"number_{value} = {value}" for value in range(1_000_000, 1_000_300, 3))


def drawn():
    examples = []

    @given(st.integers(0, 2**32 - 1))
    def test(value):
        examples.append(value)

    test()
    return examples


@pytest.mark.skipif("config.getoption('--hypothesis-profile')")
def test_an_imported_module_changes_no_example(tmp_path, monkeypatch):
    before = drawn()
    module = ModuleType("constants")
    module.__file__ = str(tmp_path / "constants.py")
    (tmp_path / "constants.py").write_text(MANY)
    monkeypatch.setitem(sys.modules, "constants", module)
    assert len(set(before)) > 50
    assert drawn() == before
