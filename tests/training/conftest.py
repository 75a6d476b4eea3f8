import pytest
import torch


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    """One thread, and caches of the test's own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("CHIASM_CACHE", str(tmp_path / "cache"))
    yield
    torch.set_num_threads(threads)
