import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `toy`


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Caches of the test's own."""
    monkeypatch.setenv("CHIASM_CACHE", str(tmp_path / "cache"))
