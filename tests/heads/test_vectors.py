"""Heads that write vectors: predicted one after another and fed back, or all in one pass."""

import pytest
import torch
from torch.nn import functional
from writing import Vocabulary, written

from chiasm.errors import ChiasmError, RecipeError
from chiasm.heads import HeadContext, Sampling, finish
from chiasm.heads.building import build_head
from chiasm.tokenizers.spaces import Codes, Vectors

SPACE = Vectors((2, 2), 3)
REGRESSION = {"type": "regression"}


def head(spec, space=SPACE, width=4):
    return build_head(spec, HeadContext(width, space, Vocabulary(width)))


class Echo:
    """A stand-in for the language model whose hidden states are what it reads, and the marker's a number."""

    def __init__(self, rows, width=4, marker=0.5):
        self.start, self.asks = torch.full((rows, width), marker), []

    def __call__(self, ask):
        self.asks.append(ask)
        return ask.embeddings


def test_each_vector_is_predicted_from_what_stands_before_it_and_read_at_its_place():
    raster = head({"type": "raster", "alphabet": REGRESSION})
    target = torch.randn(2, 2, 2, 3)
    span = raster.prepare(target)
    embedded = raster.alphabet.input(target.flatten(1, 2)) + raster.cells.weight
    torch.testing.assert_close(span.embeddings, embedded)
    hidden = torch.randn(2, 4, 4)
    loss = raster.losses(hidden, span)["image"]
    expected = functional.mse_loss(raster.alphabet.output(hidden), target.flatten(1, 2))
    torch.testing.assert_close(loss.mean, expected)
    assert loss.count == 8


def test_drawn_vectors_are_fed_back():
    raster = head({"type": "raster", "alphabet": REGRESSION})
    read = Echo(1)
    drawn = written(raster, read)
    value, expected = raster.alphabet.output(read.start), []
    for cell in range(4):
        expected.append(value)
        value = raster.alphabet.output(raster.alphabet.input(value) + raster.cells.weight[cell])
    torch.testing.assert_close(drawn.flatten(1, 2), torch.stack(expected, 1))
    assert len(read.asks) == 3


def test_cosine_forgets_lengths():
    queries = head({"type": "queries", "alphabet": REGRESSION | {"loss": "cosine"}})
    target, hidden = torch.randn(1, 2, 2, 3), torch.randn(1, 4, 4)
    losses = [queries.losses(hidden, queries.prepare(factor * target))["image"].mean for factor in (1, 5)]
    torch.testing.assert_close(*losses)
    predicted = queries.alphabet.output(hidden).view_as(target)
    torch.testing.assert_close(
        losses[0], (1 - functional.cosine_similarity(predicted, target, dim=-1)).mean()
    )


def test_guidance_acts_on_vectors():
    queries = head({"type": "queries", "alphabet": REGRESSION})

    def read(ask):
        return torch.stack([torch.full((4, 4), 1.0), torch.full((4, 4), 3.0)])

    sampling = Sampling(guidance=2.0)
    with torch.no_grad():
        drawn = finish(queries.write(torch.zeros(2, 4), sampling), read)
        expected = queries.alphabet.output(torch.full((1, 2, 2, 4), -1.0))  # 3 + 2 * (1 - 3)
    torch.testing.assert_close(drawn, expected)


def test_queries_see_each_other_or_those_before_them():
    block, causal = (
        head({"type": "queries", "causal": c, "alphabet": REGRESSION}).layout() for c in (False, True)
    )
    assert block.opens == (True, False, False, False)
    assert causal.opens == (True, True, True, True)
    assert block.exposed == causal.exposed == (True,) * 4
    assert block.rows == (0, 1, 2, 3)


def test_words_of_the_language_model_stand_at_the_queries_and_text_never_holds_them():
    spec = {"type": "queries", "words": [4, 5, 6, 7], "with_words": True, "alphabet": REGRESSION}
    queries = head(spec)
    vocabulary = Vocabulary(4)
    queries._embed_words = vocabulary.embed
    assert list(queries.reserved) == [4, 5, 6, 7]
    span = queries.prepare(torch.zeros(2, 2, 2, 3))
    assert torch.equal(span.embeddings, vocabulary.table.weight[4:8].expand(2, -1, -1))
    hidden = torch.randn(2, 4, 4)
    torch.testing.assert_close(queries.bridged(hidden), (hidden + span.embeddings).view(2, 2, 2, 4))
    assert not any("queries" in name for name, _ in queries.named_parameters())


def test_a_bridge_makes_as_many_vectors_as_are_written():
    bridge = {"type": "perceiver_resampler", "latents": 4, "depth": 1, "heads": 2, "head_width": 2}
    spec = {"type": "queries", "grid": [2, 3], "bridge": bridge, "alphabet": REGRESSION | {"depth": 0}}
    queries = head(spec)
    assert queries.layout().length == 6
    loss = queries.losses(torch.randn(2, 6, 4), queries.prepare(torch.zeros(2, 2, 2, 3)))["image"]
    assert loss.count == 8
    with pytest.raises(
        RecipeError, match="makes 5 vectors of 6 queries, but the image tokenizer's images have 2 x 2"
    ):
        head(spec | {"bridge": bridge | {"latents": 5}})


def test_the_same_queries_may_write_codes():
    queries = head({"type": "queries", "alphabet": {"type": "own"}}, Codes((2, 2), 8))
    codes = torch.randint(0, 8, (2, 2, 2))
    hidden = torch.randn(2, 4, 4)
    loss = queries.losses(hidden, queries.prepare(codes))["image"]
    expected = functional.cross_entropy(queries.alphabet.output(hidden).flatten(0, 1), codes.flatten())
    torch.testing.assert_close(loss.mean, expected)


def test_what_does_not_fit_is_a_sentence():
    with pytest.raises(
        RecipeError, match="alphabet 'own' writes codes, but the image tokenizer makes vectors"
    ):
        head({"type": "raster", "alphabet": {"type": "own"}})
    with pytest.raises(
        RecipeError, match="order 'scales' writes codes, but the image tokenizer makes vectors"
    ):
        head({"type": "scales", "alphabet": {"type": "own"}})
    with pytest.raises(RecipeError) as error:
        head({"type": "whole", "alphabet": {"type": "own"}})
    advice = "takes no alphabet 'own': use alphabet 'diffusion' or 'flow', or for alphabet 'own' use order "
    assert advice in str(error.value)
    assert "'raster'" in str(error.value)
    assert "'u_vit'" not in str(error.value)
    with pytest.raises(RecipeError, match="order 'scales' takes no alphabet 'regression'"):
        head({"type": "scales", "alphabet": REGRESSION})
    with pytest.raises(RecipeError, match=r"alphabet 'regression' writes vectors, but .* makes codes"):
        head({"type": "raster", "alphabet": REGRESSION}, Codes((2, 2), 8))
    with pytest.raises(ChiasmError, match=r"given to an image head of grid \(2, 2\) and width 3"):
        head({"type": "raster", "alphabet": REGRESSION}).prepare(torch.zeros(1, 2, 2, 5))
    with pytest.raises(RecipeError, match="3 words for 4 queries"):
        head({"type": "queries", "words": [1, 2, 3], "alphabet": REGRESSION})
