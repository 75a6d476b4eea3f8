"""VAR's transformer: the published arithmetic in every variant, and conditions that stay in their document."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from chiasm import parts
from chiasm.errors import DataError, RecipeError
from chiasm.language.conditions import ConditionedCache, conditions
from chiasm.language.var import Steer
from chiasm.sequence import Kind
from chiasm.sequence.layout import Layout

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"  # the published way stands there
SMALL = {"type": "var", "width": 32, "depth": 2, "heads": 4}


def language(**options):
    torch.manual_seed(0)
    return parts.build("language", {**SMALL, "vocabulary": 300, **options}, ["a red apple"], True).eval()


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_it_draws_as_published_in_every_variant(shared, cosine, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    sampling = import_module("sampling")
    result = sampling.against_var(sampling.QUICK, shared=shared, cosine=cosine)
    assert result["same_codes"] == 1
    assert result["pixel_error"] < 1e-3


def test_a_condition_is_the_mean_of_the_words_of_its_document_so_far():
    embeddings = torch.tensor([[1.0, 3, 9, 9, 5, 7, 9]])[..., None].expand(1, 7, 2)
    words = torch.tensor([[True, True, False, False, True, True, False]])
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    told = conditions(embeddings, words, documents, None)
    assert told.at(told.means)[0, :, 0].tolist() == [1, 2, 2, 2, 5, 6, 6]


def test_a_picture_before_the_first_word_has_no_condition():
    embeddings = torch.ones(1, 4, 2)
    words = torch.tensor([[True, False, False, True]])
    told = conditions(embeddings, words, torch.tensor([[0, 0, 1, 1]]), None)
    assert told.at(told.means)[0, :, 0].tolist() == [1, 1, 0, 1]


def test_a_cache_carries_the_words_so_far_however_long_each_row_was():
    cache = ConditionedCache()
    embeddings = torch.tensor([[2.0, 4, 6], [8.0, 0, 0]])[..., None]
    words = torch.tensor([[True, True, True], [True, False, False]])
    conditions(embeddings, words, torch.tensor([[0, 0, 0], [0, -1, -1]]), cache)
    told = conditions(
        torch.zeros(2, 5, 1), torch.zeros(2, 5, dtype=torch.bool), torch.zeros(2, 5).long(), cache
    )
    assert told.index is None
    assert told.means[..., 0].tolist() == [[4], [8]]
    one = torch.ones(2, 1, dtype=torch.bool)
    told = conditions(torch.full((2, 1, 1), 4.0), one, torch.zeros(2, 1).long(), cache)
    assert told.at(told.means)[..., 0].tolist() == [[4], [6]]


@torch.no_grad()
def test_a_picture_being_drawn_is_steered_once(monkeypatch):
    calls, made = [], language()
    forward = Steer.forward
    monkeypatch.setattr(Steer, "forward", lambda self, x: calls.append(x.shape) or forward(self, x))
    cache, layout = made.new_cache(), Layout.causal(1, 3)
    made(torch.randn(1, 3, 32), layout, cache)
    calls.clear()
    for _ in range(4):
        layout = layout.extended(Layout.causal(1, 2, kinds=torch.full((1, 2), int(Kind.WRITTEN))))
        made(torch.randn(1, 2, 32), layout, cache)
    assert calls == [(1, 1, 32)] * 3  # two blocks and the last norm


def test_bad_options_and_long_documents_are_said():
    with pytest.raises(RecipeError, match="5 heads do not divide the width 32"):
        language(heads=5)
    made = language(words=2)
    with pytest.raises(DataError, match=r"has 3 words, but .* takes 2"):
        made(torch.randn(1, 3, 32), Layout.causal(1, 3))
