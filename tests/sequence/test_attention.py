"""The attention rule and its kernels."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from chiasm.errors import ChiasmError
from chiasm.sequence.attention import NAME, attend, by_document, dense, flex
from chiasm.sequence.layout import Layout, attending


def random_layout(seed: int, *, causal: bool = False) -> Layout:
    torch.manual_seed(seed)
    documents = torch.tensor(
        [[0] * 10 + [1] * 25 + [-1] * 5, [0] * 40, [0] * 7 + [1] * 9 + [2] * 20 + [-1] * 4]
    )
    ones = torch.ones(3, 40, dtype=torch.bool)
    opens, exposed = (ones, ones) if causal else (torch.rand(3, 40) > 0.4, torch.rand(3, 40) > 0.3)
    return Layout(documents, opens, exposed)


def test_the_rule_by_hand():
    #               doc 0: a  [b b]  c(private)  d | doc 1: e
    layout = Layout(
        torch.tensor([[0, 0, 0, 0, 0, 1]]),
        torch.tensor([[True, True, False, True, True, True]]),
        torch.tensor([[True, True, True, False, True, True]]),
    )
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],  # b sees the other b of its block, later or not
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [1, 1, 1, 0, 1, 0],  # d does not see the private c
            [0, 0, 0, 0, 0, 1],  # another document
        ]
    ).bool()
    assert torch.equal(layout.allowed[0], expected)


SLOPES = torch.tensor([0.5, 0.25, 0.1, 0.0])


def written_out(layout: Layout) -> torch.Tensor:
    """The rule position by position, as the module `sequence` words it."""
    rows, length = layout.documents.shape
    allowed = torch.zeros(rows, length, length, dtype=torch.bool)
    for row in range(rows):
        documents, exposed = layout.documents[row].tolist(), layout.exposed[row].tolist()
        block = [sum(layout.opens[row, : place + 1].tolist()) for place in range(length)]
        for query in range(length):
            for key in range(length):
                allowed[row, query, key] = (
                    documents[query] == documents[key] != -1
                    and block[key] <= block[query]
                    and (exposed[key] or block[key] == block[query])
                )
    return allowed


def attention_by_hand(query, key, value, allowed, scale=None, slopes=None):
    """Softmax over what is allowed, in double precision; zero where nothing is. Documents hold no padding."""
    query, key, value = (tensor.double() for tensor in (query, key, value))
    key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if slopes is not None:
        places = torch.arange(scores.shape[-1])
        scores = scores + slopes.double()[:, None, None] * (places - places[:, None])
    weights = scores.masked_fill(~allowed[:, None], -torch.inf).softmax(-1).nan_to_num()
    return (weights @ value).transpose(1, 2)


def test_the_rule_written_out():
    layout = random_layout(4)
    assert torch.equal(layout.allowed, written_out(layout))
    rule, places = layout.block_mask.mask_mod, torch.arange(40)
    row, query, key = torch.meshgrid(torch.arange(3), places, places, indexing="ij")
    assert torch.equal(rule(row, torch.zeros_like(row), query, key), layout.allowed)


def test_the_queries_behind_a_cache_are_the_last_rows_of_the_rule():
    whole = random_layout(4)
    columns = ("documents", "opens", "exposed", "positions")
    before, behind = (
        Layout(**{name: getattr(whole, name)[:, places] for name in columns})
        for places in (slice(0, 38), slice(38, 40))
    )
    extended = before.extended(behind)
    assert torch.equal(extended.allowed, whole.allowed[:, 38:])
    query, key, value = (torch.randn(3, heads, 40, 8) for heads in (4, 2, 2))
    real = behind.documents >= 0
    for slopes in (None, SLOPES):
        torch.testing.assert_close(
            dense(query[:, :, 38:], key, value, extended, slopes=slopes)[real],
            dense(query, key, value, whole, slopes=slopes)[:, 38:][real],
        )


def test_a_mask_that_hides_nothing_is_none():
    ones = torch.ones(1, 3, dtype=torch.bool)
    one_block = Layout(torch.zeros(1, 3, dtype=torch.long), torch.tensor([[True, False, False]]), ones)
    assert one_block.mask is None
    assert torch.equal(Layout.causal(1, 3).mask[0, 0], ones.expand(3, 3).tril())
    assert Layout.causal(1, 3).extended(Layout.causal(1, 1)).mask is None
    assert Layout.causal(1, 3).extended(Layout.causal(1, 3)).mask is not None
    assert Layout.causal(1, 3).extended(Layout.causal(1, 3), clear=True).mask is None  # taken at its word


PACKED = {
    "one position each": [[0, 1, 2, 3], [0, 1, 2, 3]],
    "a short one behind a long one": [[0, 0, 0, 1], [0, 1, 1, -1]],
    "the last of one position": [[0, 0, 0, 1]],
    "an empty row": [[0, 0, 0, 0], [-1, -1, -1, -1]],
    "nothing at all": [[-1, -1], [-1, -1]],
    "rows of one document": [[0] * 7, [0] * 7, [0] * 7],
}


@pytest.mark.parametrize("slopes", [None, SLOPES])
@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("documents", PACKED.values(), ids=PACKED.keys())
def test_attention_by_document_equals_the_formula_and_padding_comes_out_as_zero(documents, scale, slopes):
    torch.manual_seed(0)
    documents = torch.tensor(documents)
    for causal in (True, False):
        ones = torch.ones_like(documents, dtype=torch.bool)
        opens, exposed = (ones if causal else torch.rand(documents.shape) > 0.4 for _ in range(2))
        layout = Layout(documents, opens, exposed)
        rows, length = documents.shape
        query, key = torch.randn(rows, 4, length, 8), torch.randn(rows, 2, length, 8)
        value = torch.randn(rows, 2, length, 6)
        out = by_document(query, key, value, layout, scale, slopes)
        expected = attention_by_hand(query, key, value, written_out(layout), scale, slopes)
        torch.testing.assert_close(out.double(), expected, atol=1e-6, rtol=1e-5)
        assert layout.longest() == max(
            ((documents == i).sum(1).max().item() for i in range(length)), default=0
        )


@pytest.mark.parametrize("kernel", [by_document, dense, flex])
def test_kernels_scale_their_scores_and_let_heads_share_keys(kernel):
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 6, 8) for heads in (4, 2, 2))
    layout = Layout.causal(1, 6)
    for slopes in (None, SLOPES):
        expected = attention_by_hand(query, key, value, written_out(layout), 0.9, slopes)
        out = kernel(query, key, value, layout, 0.9, slopes)
        torch.testing.assert_close(out.double(), expected, atol=1e-6, rtol=1e-5)


def test_in_half_precision_attention_by_document_is_computed_in_full():
    torch.manual_seed(0)
    layout = random_layout(1)
    halves = [torch.randn(3, 2, 40, 8).bfloat16() for _ in range(3)]
    expected = by_document(*(each.float() for each in halves), layout).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = by_document(*halves, layout)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel", [by_document, flex])
@pytest.mark.parametrize("slopes", [None, SLOPES])
def test_kernels_equal_the_rule(kernel, causal, slopes):
    layout = random_layout(1, causal=causal)
    query, key, value = (torch.randn(3, heads, 40, 8) for heads in (4, 2, 2))
    real = layout.documents >= 0
    torch.testing.assert_close(
        kernel(query, key, value, layout, slopes=slopes)[real],
        dense(query, key, value, layout, slopes=slopes)[real],
    )


def test_slopes_weigh_keys_by_how_far_before_the_query_they_stand():
    layout = Layout(torch.tensor([[0, 0, -1, 0, 0]]), *(torch.ones(1, 5, dtype=torch.bool),) * 2)
    alike, values = torch.zeros(1, 1, 5, 8), torch.eye(5)[None, None]
    weights = dense(alike, alike, values, layout, slopes=torch.tensor([0.5]))[0, :, 0]
    near = torch.tensor([-1.5, -1.0, float("-inf"), -0.5, 0.0]).softmax(0)  # padding takes no place
    torch.testing.assert_close(weights[4], near)


@pytest.mark.parametrize("slopes", [None, SLOPES])
def test_gradients_by_document_equal_the_rule(slopes):
    layout = random_layout(2)
    grads = []
    for kernel in (by_document, dense):
        torch.manual_seed(3)
        tensors = [torch.randn(3, heads, 40, 8, requires_grad=True) for heads in (4, 2, 2)]
        out = kernel(*tensors, layout, slopes=slopes)
        (out * (layout.documents >= 0)[..., None, None]).square().sum().backward()
        grads.append([tensor.grad for tensor in tensors])
    torch.testing.assert_close(grads[0], grads[1])


def test_padding_inside_a_group_is_bounded():
    layout = Layout.causal(1, 1000)
    lengths = torch.randint(1, 60, (200,))
    documents = torch.repeat_interleave(torch.arange(200), lengths)[None, :1000]
    layout = Layout(documents, layout.opens[:, : documents.shape[1]], layout.exposed[:, : documents.shape[1]])
    padded = sum(group.real.numel() for group in layout.groups)
    assert padded <= 1.25 * documents.numel()
    assert sum(int(group.real.sum()) for group in layout.groups) == documents.numel()


def test_documents_share_a_call_if_their_lengths_are_within_an_eighth():
    lengths = torch.arange(1, 256)
    documents = torch.repeat_interleave(torch.arange(255), lengths)[None]
    layout = Layout(documents, *(torch.ones_like(documents, dtype=torch.bool),) * 2)
    for group in layout.groups:
        shortest, longest = int(group.lengths.min()), int(group.lengths.max())
        assert longest - shortest < max(4, longest / 8)
        assert group.index.shape == (len(group.lengths), longest)
        assert group.mask is None  # all are causal, which a kernel needs no mask for
    # In steps of 4 below 64, of 8 below 128, of 16 below 256.
    assert len(layout.groups) == 16 + 8 + 8


FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "phi3": {"pad_token_id": 0},
    "gemma": {"head_dim": 16},
    "olmo2": {},
    "stablelm": {},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
}


def language_model(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=64, **FAMILIES[family],
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation=NAME).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_no_leak_between_packed_documents_in_any_family(family):
    """Changing one document of a row moves no hidden state of another; and each equals itself alone."""
    model = language_model(family)
    first, second = torch.randint(0, 64, (1, 9)), torch.randint(0, 64, (1, 14))
    layout = Layout(torch.tensor([[0] * 9 + [1] * 14]), *(torch.ones(1, 23, dtype=torch.bool),) * 2)
    positions = torch.cat([torch.arange(9), torch.arange(14)])[None]
    with attending(layout):
        packed = model.base_model(
            input_ids=torch.cat([first, second], 1), position_ids=positions, use_cache=False
        ).last_hidden_state
    model.set_attn_implementation("sdpa")
    alone = [model.base_model(input_ids=ids).last_hidden_state for ids in (first, second)]
    torch.testing.assert_close(packed, torch.cat(alone, 1), atol=1e-5, rtol=1e-4)


def test_a_document_beyond_the_sliding_window_is_an_error():
    config = AutoConfig.for_model(
        "mistral", vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, sliding_window=8,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation=NAME)
    ids = torch.zeros(1, 20, dtype=torch.long)
    short = Layout(torch.arange(20)[None] // 5, *(torch.ones(1, 20, dtype=torch.bool),) * 2)
    model.base_model(input_ids=ids, position_ids=torch.arange(20)[None] % 5, layout=short, use_cache=False)
    with pytest.raises(ChiasmError, match="exceeds the sliding window of 8"):
        model.base_model(input_ids=ids, layout=Layout.causal(1, 20), use_cache=False)


def test_a_call_without_a_layout_is_an_error():
    with pytest.raises(ChiasmError, match="without a layout"):
        language_model("llama")(input_ids=torch.zeros(1, 4, dtype=torch.long))


def call(layout, **options):
    query = torch.randn(1, 1, layout.queries or layout.documents.shape[1], 4)
    key = torch.randn(1, 1, layout.documents.shape[1], 4)
    return attend(torch.nn.Identity(), query, key, key, None, layout=layout, **options)


def test_the_sliding_window_may_be_full_and_with_a_cache_the_whole_row_counts():
    two = Layout(torch.tensor([[0] * 5 + [1] * 3]), *(torch.ones(1, 8, dtype=torch.bool),) * 2)
    call(two, sliding_window=5)
    with pytest.raises(ChiasmError, match="a document of 5 positions exceeds the sliding window of 4"):
        call(two, sliding_window=4)
    cached = Layout.causal(1, 5).extended(Layout.causal(1, 1))
    call(cached, sliding_window=6)
    with pytest.raises(ChiasmError, match="a document of 6 positions"):
        call(cached, sliding_window=5)


@pytest.mark.parametrize("mechanism", ["softcap", "s_aux"])
def test_a_mechanism_that_the_rule_does_not_cover_is_an_error(mechanism):
    call(Layout.causal(1, 3), **{mechanism: None})
    with pytest.raises(ChiasmError, match=f"Identity needs '{mechanism}'"):
        call(Layout.causal(1, 3), **{mechanism: torch.ones(1)})


def test_a_layout_holds_within_its_context_and_one_that_is_handed_down_goes_first():
    query = torch.randn(1, 1, 4, 4)

    def out(**options):
        return attend(torch.nn.Identity(), query, query, query, None, **options)[0]

    two = Layout(torch.tensor([[0, 0, 1, 1]]), *(torch.ones(1, 4, dtype=torch.bool),) * 2)
    with attending(Layout.causal(1, 4)):
        with attending(two):
            torch.testing.assert_close(out(), by_document(query, query, query, two))
            assert not torch.allclose(out(layout=Layout.causal(1, 4)), out())
        torch.testing.assert_close(out(), by_document(query, query, query, Layout.causal(1, 4)))
    with pytest.raises(ChiasmError, match="without a layout"):
        out()
