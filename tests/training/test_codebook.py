"""A codebook's health is told while it is trained, and a collapse is said."""

import json
from io import StringIO

import pytest
import torch
from rich.console import Console
from toy import GRID

from chiasm import parts
from chiasm.nn.stepwise import after_step
from chiasm.recipe import load_recipe
from chiasm.tokenizers import ContinuousTokenizer
from chiasm.tokenizers.vq import VQ
from chiasm.training import codebook, train
from chiasm.training.codebook import PATIENCE, CodebookWatch

DISCRETE = [
    name
    for name in parts.names("image_tokenizer")
    if not issubclass(parts.lookup("image_tokenizer", name), ContinuousTokenizer)
]


@pytest.mark.parametrize("name", DISCRETE)
def test_every_tokenizer_tells_use_and_perplexity(name):
    example = parts.lookup("image_tokenizer", name).example()
    tokenizer = parts.build("image_tokenizer", {"type": name, **example}).train()
    for _ in range(3):
        tokenizer.losses(torch.rand(4, 3, tokenizer.size, tokenizer.size))
        after_step(tokenizer)
    health = tokenizer.health()
    assert any(key.startswith("codebook_use") and 0 < value <= 1 for key, value in health.items())
    assert any(key.startswith("perplexity") and value >= 1 - 1e-4 for key, value in health.items())


class Fake(VQ):
    """Tells whatever it is told to."""

    told: dict[str, float] = {}  # noqa: RUF012

    def health(self):
        return self.told


def watched(steps, **told):
    tokenizer = Fake(size=16, downsample=8, codebook_size=1024, width=16, code_width=4)
    watch = CodebookWatch(tokenizer)
    tokenizer.told = told
    for _ in range(steps):
        watch.observe(images=64)
    return watch, tokenizer


def test_a_collapse_is_said_after_some_time_and_no_more_when_it_is_over():
    watch, tokenizer = watched(PATIENCE - 1, codebook_use=0.02)
    assert watch.warning() is None
    watch.observe(64)
    assert "has collapsed: for 100 steps or more only 2.0% of its 1,024 codes" in watch.warning()
    tokenizer.told = {"codebook_use": 0.5}
    watch.observe(64)
    assert watch.warning() is None


@pytest.mark.parametrize(("use", "collapsed"), [(0.049, True), (0.05, False), (0.09, False)])
def test_a_twentieth_of_a_codebook_that_could_all_be_used_is_enough(use, collapsed):
    assert bool(watched(PATIENCE, codebook_use=use)[0].warning()) == collapsed


def test_the_worse_of_two_codebooks_counts_and_codes_that_have_not_begun_do_not():
    assert watched(PATIENCE, codebook_use_coarse=0.9, codebook_use_fine=0.01)[0].warning()
    assert watched(PATIENCE, kept=0.3)[0].warning() is None


def test_a_large_vocabulary_need_not_be_used_by_few_pictures():
    tokenizer = Fake(size=16, downsample=8, codebook_size=2**18, width=16, code_width=4)
    watch = CodebookWatch(tokenizer)
    tokenizer.told = {"codebook_use": 0.002}  # 524 codes, of 100 x 4 x 8 that could have been used
    for _ in range(PATIENCE):
        watch.observe(images=8)
    assert watch.warning() is None


def run(folder, **options):
    recipe = load_recipe(
        {
            "name": "codes",
            "model": {"image_tokenizer": {"type": "vq", **GRID, **options}},
            "data": {"squares": {"type": "test_squares"}},
            "stages": [{"name": "codes", "train": {"image_tokenizer": 1e-3}, "data": {"squares": 1.0},
                        "steps": 8, "rows": 4}],
        }
    )  # fmt: skip
    console = Console(record=True, quiet=False, width=400, file=StringIO())
    train(recipe, folder, console=console)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return console.export_text(), lines


def test_a_run_says_on_console_and_in_metrics_that_its_codebook_collapsed(tmp_path, monkeypatch):
    monkeypatch.setattr(codebook, "PATIENCE", 4)
    monkeypatch.setattr(VQ, "health", lambda self: {"codebook_use": 0.001})
    said, lines = run(tmp_path / "run")
    assert said.count("image_tokenizer 'vq' has collapsed") == 1
    assert ["warning" in line for line in lines] == [False] * 3 + [True] * 5


def test_a_codebook_that_begins_and_is_revived_stays_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(codebook, "PATIENCE", 4)
    said, lines = run(tmp_path / "run", settle=5, revive_after=2)
    assert "has collapsed" not in said
    assert "health" not in lines[0]  # nothing is quantized yet
    assert lines[-1]["health"]["codebook_use"] > 0.5
