"""What is measured is written line by line, and cut off where a checkpoint says that it ends."""

import json

import pytest
from torch.utils import tensorboard

from chiasm.training.metrics import Metrics, read_metrics


class Board:
    """Stands in for TensorBoard's writer."""

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        Board.last = self

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def board(monkeypatch):
    monkeypatch.setattr(tensorboard, "SummaryWriter", Board)


def line(step, **more):
    return {"stage": "s", "step": step, "seconds": 0.5, "losses": {"text": 1.0}} | more


def test_every_line_is_on_disk_at_once_and_its_numbers_on_the_board(tmp_path):
    with Metrics(tmp_path, 0, 3) as metrics:
        record = line(
            1, total=4, skipped=True, note="é", losses={"text": 1.5, "image": None}, lr={"language": 2}
        )
        metrics.write(4, record)
        assert read_metrics(tmp_path) == [record]
        assert "é" in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
        assert metrics.size() == (tmp_path / "metrics.jsonl").stat().st_size
    board = Board.last
    assert (board.folder, board.purge_step, board.closed) == (str(tmp_path / "tensorboard"), 3, True)
    expected = {("seconds", 0.5, 4), ("skipped", 1.0, 4), ("losses/text", 1.5, 4), ("lr/language", 2.0, 4)}
    assert set(board.scalars) == expected
    assert metrics._file.closed


def test_what_stands_behind_the_size_is_cut_off_and_no_more(tmp_path):
    with Metrics(tmp_path, 0, 0) as metrics:
        metrics.write(1, line(1))
        size = metrics.size()
        metrics.write(2, line(2))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"half')
    with Metrics(tmp_path, size, 1) as metrics:
        assert metrics.size() == size
        metrics.write(2, line(7))
    assert [each["step"] for each in read_metrics(tmp_path)] == [1, 7]
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    with Metrics(tmp_path, len(whole) + 5, 1) as metrics:  # a file that is shorter is not made longer
        assert metrics.size() == len(whole)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_another_rank_than_the_first_writes_nothing(tmp_path):
    Board.last = None
    with Metrics(tmp_path, 0, 0, active=False) as metrics:
        metrics.write(1, line(1))
        assert metrics.size() == 0
    assert Board.last is None
    assert list(tmp_path.iterdir()) == []


def test_a_line_without_what_the_report_reads_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for missing in ("stage", "step", "seconds", "losses"):
        record = line(1)
        del record[missing]
        path.write_text("".join(json.dumps(each) + "\n" for each in (line(1), line(2), record)))
        with pytest.raises(Exception, match=r"metrics\.jsonl, line 3, is not as training wrote it"):
            read_metrics(tmp_path)
