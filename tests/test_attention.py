"""The attention rule and its kernels."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from chiasm.attention import NAME, Layout, attending, by_document, dense, flex
from chiasm.errors import ChiasmError


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
