"""Key-value caches of several calls joined, and rows of one selected: every row goes on as it would alone."""

import pytest
import torch
from transformers import AutoConfig, DynamicCache

from chiasm import parts
from chiasm.errors import ChiasmError
from chiasm.language import dynamic_cache
from chiasm.sequence import Kind
from chiasm.sequence.layout import Layout

SMALL = {"width": 32, "depth": 2, "heads": 4, "hidden": 48, "vocabulary": 300}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}
MPT = {"model_type": "mpt", "d_model": 32, "n_layers": 2, "n_heads": 4}
EXAMPLES = {
    "var": SMALL,
    "beit3": SMALL,
    "git": {key: value for key, value in SMALL.items() if key != "hidden"},
    "llamagen": SMALL,
    "llamagen_captions": {**SMALL, "config": T5},
    "unified_io": {
        "width": 32,
        "encoder_depth": 2,
        "decoder_depth": 2,
        "heads": 4,
        "hidden": 48,
        "vocabulary": 300,
    },
    "causal": {"config": {"model_type": "llama", **LLAMA}, "vocabulary": 300},
    "prefix": {"config": {"model_type": "llama", **LLAMA}, "vocabulary": 300},
    "causal, with a sliding window": {
        "config": {"model_type": "mistral", "sliding_window": 32, **LLAMA},
        "vocabulary": 300,
    },
    "causal, with another attention": {"config": MPT, "vocabulary": 300},
}
LENGTHS = (5, 2, 7)


def build(name):
    torch.manual_seed(0)
    options = {"type": name.split(",")[0], **EXAMPLES[name]}
    return parts.build("language", options, ["a red apple"], True).eval()


class Rows:
    """Rows that a language model reads on with a cache."""

    def __init__(self, language, cache, layout, lengths):
        self.language, self.cache, self.layout, self.lengths = language, cache, layout, lengths

    @classmethod
    def begun(cls, language, length):
        rows = cls(language, language.new_cache(), Layout.causal(1, 0), torch.zeros(1, dtype=torch.long))
        rows.read(torch.randn(1, length, 32), Kind.TEXT)
        return rows

    def read(self, embeddings, kind):
        count, length = embeddings.shape[:2]
        positions = self.lengths[:, None] + torch.arange(length)
        kinds = torch.full((count, length), int(kind))
        coordinates = torch.stack([positions, positions % 3, positions % 2], -1) * int(kind)
        columns = {"kinds": kinds, "positions": positions, "coordinates": coordinates}
        self.layout = self.layout.extended(Layout.causal(count, length, **columns))
        self.lengths = self.lengths + length
        return self.language(embeddings, self.layout, self.cache)

    def select(self, rows, start=0):
        rows = torch.tensor(rows)
        columns = slice(start, None)
        cache = self.language.select(self.cache, rows, columns=columns)
        return Rows(self.language, cache, self.layout.select(rows, columns=columns), self.lengths[rows])

    @classmethod
    def join(cls, rows):
        language = rows[0].language
        cache = language.join([each.cache for each in rows])
        layout = Layout.join([each.layout for each in rows])
        return cls(language, cache, layout, torch.cat([each.lengths for each in rows]))


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_every_language_is_tried():
    assert {name.split(",")[0] for name in EXAMPLES} == set(parts.names("language"))


@pytest.mark.parametrize("name", EXAMPLES)
@torch.no_grad()
def test_joined_rows_go_on_as_each_alone(name):
    language = build(name)
    alone = [Rows.begun(language, length) for length in LENGTHS]
    for each in alone:
        each.read(torch.randn(1, 2, 32), Kind.WRITTEN)  # all are in the middle of an image
    joined = Rows.join(alone)
    more = torch.randn(3, 4, 32)
    for kind, x in ((Kind.WRITTEN, more[:, :2]), (Kind.WRITTEN, more[:, 2:3]), (Kind.TEXT, more[:, 3:])):
        hidden = joined.read(x, kind)
        close(hidden, torch.cat([each.read(y[None], kind) for each, y in zip(alone, x, strict=True)]))


@pytest.mark.parametrize("name", EXAMPLES)
@torch.no_grad()
def test_selected_rows_go_on_as_each_alone_and_the_others_are_left_as_they_were(name):
    language = build(name)
    alone = [Rows.begun(language, length) for length in LENGTHS]
    joined = Rows.join(alone)
    remaining = joined.layout.select(torch.tensor([1, 0, 1]))
    assert remaining.padded == 2  # what the longest row had before the others began
    selected = joined.select([1, 0, 1], start=remaining.padded)
    assert selected.layout.padded == 0
    x = torch.randn(1, 1, 32)
    hidden = selected.read(x.expand(3, -1, -1), Kind.WRITTEN)
    expected = [Rows.select(alone[row], [0]).read(x, Kind.WRITTEN) for row in (1, 0)]
    close(hidden, torch.cat([expected[0], expected[1], expected[0]]))
    close(joined.read(x.expand(3, -1, -1), Kind.WRITTEN)[2:], alone[2].read(x, Kind.WRITTEN))


SHARING = [name for name in EXAMPLES if name not in ("var", "llamagen_captions")]


@pytest.mark.parametrize("name", EXAMPLES)
@torch.no_grad()
def test_a_beginning_serves_every_document_that_begins_alike(name):
    """But where a cache cannot be cut, or what a word is depends on those behind it."""
    language = build(name)
    assert language.shares_prefixes is (name in SHARING)
    if name not in SHARING:
        return
    x = torch.randn(1, 8, 32)
    whole = language(x, Layout.causal(1, 8), language.new_cache())
    other = Rows(language, language.new_cache(), Layout.causal(1, 0), torch.zeros(1, dtype=torch.long))
    other.read(torch.cat([x[:, :5], torch.randn(1, 4, 32)], 1), Kind.TEXT)
    cache = language.select(other.cache, torch.tensor([0]), columns=torch.arange(5))
    layout = other.layout.select(torch.tensor([0]), columns=torch.arange(5))
    close(Rows(language, cache, layout, torch.tensor([5])).read(x[:, 5:], Kind.TEXT), whole[:, 5:])


def test_where_its_length_decides_how_a_document_turns_no_beginning_is_shared():
    rotary = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    config = {"model_type": "llama", "rope_parameters": rotary, **LLAMA}
    options = {"type": "causal", "config": config, "vocabulary": 300}
    assert not parts.build("language", options, ["a red apple"], True).shares_prefixes


@torch.no_grad()
def test_positions_are_forgotten_in_joined_rows_as_in_each_alone():
    language = build("llamagen")
    alone = [Rows.begun(language, length) for length in LENGTHS]
    joined = Rows.join(alone)
    before, x = joined.layout, torch.randn(3, 2, 32)
    hidden = joined.read(x, Kind.WRITTEN)
    language.forget(joined.cache, 2)
    joined.layout, joined.lengths = before, joined.lengths - 2
    close(joined.read(x, Kind.WRITTEN), hidden)


@pytest.mark.parametrize("name", EXAMPLES)
@torch.no_grad()
def test_a_cache_of_a_known_length_gives_the_same(name):
    language = build(name)
    caches = language.new_cache(), language.new_cache()
    language.expect(caches[1], 9)
    x, layout = torch.randn(1, 4, 32), Layout.causal(1, 4)
    assert torch.equal(*(language(x, layout, cache) for cache in caches))
    if not name.startswith(("causal", "prefix")):  # whose caches are transformers'
        assert {memory.shape[3] for memory in caches[1].memory} == {9}


@torch.no_grad()
def test_a_cache_beyond_its_sliding_window_is_an_error():
    language = build("causal, with a sliding window")
    rows = Rows.begun(language, 32)
    with pytest.raises(ChiasmError, match="32 positions has reached its sliding window and holds only 31"):
        rows.select([0])


def test_a_cache_without_keys_and_values_is_an_error():
    config = AutoConfig.for_model("qwen3_next", num_hidden_layers=4)
    with pytest.raises(ChiasmError, match="LinearAttentionLayer is no list of keys and values"):
        dynamic_cache.join(DynamicCache(config=config), [DynamicCache(config=config)])
