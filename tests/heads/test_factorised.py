"""Codes as sub-tokens: what is predicted from what, losses that add up, and a strength of each sub-token."""

import pytest
import torch
from writing import head as built
from writing import written

from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.generators import Generators
from chiasm.sequence.layout import Layout
from chiasm.tokenizers.lookup_free import split_code


class Recorder:
    """Hidden states follow from what was read last, and are different in every row at first."""

    def __init__(self, rows, width):
        self.start = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))

    def __call__(self, ask):
        return ask.embeddings + self.start[:, None]


def made(grid=(2, 2), **options):
    torch.manual_seed(0)
    head = small(grid, **options).eval()
    for output in head.alphabet.outputs:
        torch.nn.init.normal_(output.weight)
    for table in head.alphabet.tables:
        torch.nn.init.normal_(table.weight)
    return head


def small(grid=(2, 2), *, unconditional=0.1, **options):
    alphabet = {"type": "factorised", "bits": [2, 3], "depth": 1, "heads": 2, "hidden": 12, **options}
    spec = {"type": "raster", "cells": False, "alphabet": alphabet, "unconditional": unconditional}
    return built(spec, 8, 2 ** sum(alphabet["bits"]), grid)


def sample(head, rows, **options):
    """Codes from a `Recorder`; without other options the likeliest ones."""
    return written(head, Recorder(rows, 8), **options)


def test_without_options_it_is_open_magvit2_bs():
    """Width 1024, sub-tokens of 6 and 12 bits, two layers of 16 heads over them."""
    with torch.device("meta"):
        spec = {"type": "raster", "cells": False, "alphabet": {"type": "factorised"}}
        head = built(spec, 1024, 2**18, (16, 16)).alphabet
    assert [tuple(table.weight.shape) for table in head.tables] == [(64, 1024), (4096, 1024)]
    assert [tuple(output.weight.shape) for output in head.outputs] == [(64, 1024), (4096, 1024)]
    assert not any(name.endswith("bias") for name, _ in head.named_parameters())
    assert len(head.layers) == 2
    for layer in head.layers:
        assert (layer.heads, layer.key_value_heads, layer.up.out_features) == (16, 16, 2816)
        assert layer.dropout.p == 0.1
    assert {norm.eps for norm in head.modules() if isinstance(norm, torch.nn.RMSNorm)} == {1e-5}


def test_untrained_it_finds_every_code_as_likely():
    losses = small().alphabet.part_losses(torch.randn(4, 8), torch.tensor([0, 9, 18, 31]))
    torch.testing.assert_close(torch.stack(losses), 4 * torch.tensor([4.0, 8.0]).log())


def test_codes_stand_causally_and_the_marker_predicts_the_first():
    layout = small((2, 3)).layout()
    assert layout.opens == layout.exposed == (True,) * 6
    assert layout.rows == (-1, 0, 1, 2, 3, 4)


def test_what_stands_at_a_code_is_the_sum_of_its_sub_tokens():
    head = made()
    span = head.prepare(torch.tensor([[[0, 9], [18, 31]]]))
    low, high = (table.weight for table in head.alphabet.tables)
    by_hand = [low[0] + high[0], low[1] + high[2], low[2] + high[4], low[3] + high[7]]
    torch.testing.assert_close(span.embeddings[0], torch.stack(by_hand))
    assert span.targets.tolist() == [[0, 9, 18, 31]]


def test_the_hidden_state_has_no_place_and_sub_tokens_take_the_grids_first_cells():
    torch.manual_seed(0)
    head = small(bits=[1, 1, 1, 2], depth=2, rope_base=3.0).eval().alphabet
    for output in head.outputs:
        torch.nn.init.normal_(output.weight)
    hidden, parts = torch.randn(1, 1, 8), [torch.tensor([[bit]]) for bit in (1, 0, 1, 3)]
    read = torch.stack([hidden[0, 0], *(head.tables[i].weight[parts[i][0, 0]] for i in range(3))])[None]
    rows, columns = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 0]])
    rotary = head.rotation(rows, columns, torch.tensor([[False, True, True, True]]))
    for layer in head.layers:
        read = layer(read, rotary, Layout.causal(1, 4))
    read = head.norm(read)
    for i, logits in enumerate(head.logits(hidden, parts)):
        torch.testing.assert_close(logits[0, 0], head.outputs[i](read[0, i]))


def test_a_sub_token_is_predicted_from_those_before_it():
    head, hidden = made().alphabet, torch.randn(1, 4, 8)
    parts = split_code(torch.tensor([[0, 9, 18, 31]]), head.bits)
    first, second = head.logits(hidden, parts)
    other = [(parts[0] + 1) % 4, (parts[1] + 1) % 8]
    assert torch.equal(head.logits(hidden, other)[0], first)
    assert not torch.equal(head.logits(hidden, other)[1], second)
    assert torch.equal(head.logits(hidden, [parts[0], other[1]])[1], second)
    assert (first.shape, second.shape) == ((1, 4, 4), (1, 4, 8))


def test_the_loss_is_the_sum_of_the_sub_tokens():
    head, hidden = made(), torch.randn(2, 4, 8)
    codes = torch.randint(32, (2, 2, 2))
    span = head.prepare(codes)
    loss = head.losses(hidden, span)["image"]
    parts = split_code(codes.flatten(1), [2, 3])
    terms = sum(
        torch.nn.functional.cross_entropy(logits.movedim(-1, 1), part, reduction="none")
        for logits, part in zip(head.alphabet.logits(hidden, parts), parts, strict=True)
    )
    assert float(loss.count) == 8
    torch.testing.assert_close(loss.sum, terms.sum())
    alone = head.losses(hidden, span._replace(orphans=torch.tensor([True, False])))["image"]
    torch.testing.assert_close(alone.sum, terms.sum() - terms[0, 0])
    weights = torch.rand(8)
    torch.testing.assert_close(
        head.alphabet.loss(hidden.flatten(0, 1), codes.flatten(), weights), (terms.flatten() * weights).sum()
    )


def forced(head, codes, start):
    """Logits of every sub-token of whole pictures, as in training, behind these first hidden states."""
    hidden = torch.cat([start[:, None], head.prepare(codes).embeddings[:, :-1] + start[:, None]], 1)
    return head.alphabet.logits(hidden, split_code(codes.flatten(1), head.alphabet.bits))


@pytest.mark.parametrize("grid", [(2, 2), (2, 3), (3, 1)])
def test_what_is_drawn_is_what_teacher_forcing_finds_likeliest(grid):
    head = made(grid)
    codes = sample(head, 16)
    assert codes.shape == (16, *grid)
    assert len(codes.unique()) > 3
    parts = split_code(codes.flatten(1), head.alphabet.bits)
    for logits, part in zip(forced(head, codes, Recorder(16, 8).start), parts, strict=True):
        assert torch.equal(logits.argmax(-1), part)


@pytest.mark.parametrize("offsets", [[], [0.0, 4.0], [-1.0, 0.0]])
def test_guidance_is_the_formula_with_what_each_sub_token_adds_to_it(offsets):
    head, guidance = made(guidance_offsets=offsets), 2.0
    codes, start = sample(head, 16, guidance=guidance), Recorder(16, 8).start
    assert codes.shape == (8, 2, 2)
    with_prompt, without = (forced(head, codes, half) for half in start.chunk(2))
    parts = split_code(codes.flatten(1), head.alphabet.bits)
    for plain, empty, part, offset in zip(with_prompt, without, parts, offsets or [0.0, 0.0], strict=True):
        assert torch.equal((empty + (guidance + offset) * (plain - empty)).argmax(-1), part)


def test_each_sub_token_has_its_own_temperature_and_choice():
    def drawn(head, **options):
        options = {"temperature": 1.0, "generators": Generators(range(16)), **options}
        return sample(head, 16, **options)

    plain, greedy = drawn(made()), sample(made(), 16)
    assert not torch.equal(plain, greedy)
    assert torch.equal(plain, drawn(made(temperature_factors=[1.0, 1.0], top_ks=[0, 0])))
    assert torch.equal(drawn(made(temperature_factors=[1e-6, 1e-6])), greedy)
    hot = made(temperature_factors=[2.0, 3.0])
    assert torch.equal(drawn(hot, temperature=0.5), drawn(made(temperature_factors=[1.0, 1.5])))
    # The fewer of what is asked for and what the sub-token has.
    assert torch.equal(drawn(made(top_ks=[1, 1])), greedy)
    assert torch.equal(drawn(made(), top_k=1), greedy)
    assert torch.equal(drawn(made(top_ks=[3, 3]), top_k=1), greedy)
    assert torch.equal(drawn(made(top_ks=[1, 1]), top_k=3), greedy)
    low, high = split_code(drawn(made(top_ks=[0, 1])), [2, 3]), split_code(drawn(made(top_ks=[1, 0])), [2, 3])
    assert torch.equal(high[0][:, 0, 0], split_code(greedy, [2, 3])[0][:, 0, 0])
    assert not torch.equal(low[0][:, 0, 0], high[0][:, 0, 0])


def test_codes_of_another_tokenizer_and_guidance_without_an_empty_prompt_are_refused():
    with pytest.raises(ChiasmError, match="codes from 0 to 32 given to an image head of 32 codes"):
        made().prepare(torch.tensor([[[0, 32], [0, 0]]]))
    with pytest.raises(ChiasmError, match="'unconditional' is 0"):
        sample(made(unconditional=0.0), 2, guidance=2.0)
    with pytest.raises(ChiasmError, match="3 rows"):
        sample(made(), 3, guidance=2.0)


def test_sub_tokens_must_make_up_the_codes():
    with pytest.raises(RecipeError, match=r"2 \+ 2 bits make 16 codes, but the image tokenizer has 32"):
        built({"type": "raster", "alphabet": {"type": "factorised", "bits": [2, 2]}}, 8, 32, (2, 2))
    with pytest.raises(RecipeError, match="top_ks has 1 values for 2 sub-tokens"):
        made(top_ks=[5])
    with pytest.raises(RecipeError, match="guidance_offsets has 3 values"):
        made(guidance_offsets=[0.0, 0.0, 0.0])
