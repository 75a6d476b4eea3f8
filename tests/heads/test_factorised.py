"""Codes as sub-tokens: what is predicted from what, losses that add up, and a strength of each sub-token."""

import pytest
import torch

from chiasm.errors import RecipeError
from chiasm.generators import Generators
from chiasm.heads.factorised import Factorised
from chiasm.tokenizers.lookup_free import split_code


class Recorder:
    """A `Step` whose hidden states follow from what was read last, and are different in every row at first."""

    half = None

    def __init__(self, rows, width):
        self.start = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))

    def __call__(self, embeddings, *, keep=True):
        return embeddings + self.start[:, None]


def made(**options):
    torch.manual_seed(0)
    head = Factorised(8, 32, (2, 2), bits=[2, 3], depth=1, heads=2, hidden=12, **options).eval()
    for output in head.outputs:
        torch.nn.init.normal_(output.weight)
    for table in head.tables:
        torch.nn.init.normal_(table.weight)
    return head


def test_a_sub_token_is_predicted_from_those_before_it():
    head, hidden = made(), torch.randn(1, 4, 8)
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
    terms = head.part_losses(hidden, codes.flatten(1))
    assert float(loss.count) == 8
    torch.testing.assert_close(loss.sum, terms.sum())
    alone = head.losses(hidden, span._replace(orphans=torch.tensor([True, False])))["image"]
    torch.testing.assert_close(alone.sum, terms.sum() - terms[:, 0, 0].sum())


def test_what_is_drawn_is_what_teacher_forcing_finds_likeliest():
    head = made()
    codes = head.sample(Recorder(3, 8), temperature=0)
    step, embeddings = Recorder(3, 8), head.prepare(codes).embeddings
    hidden = torch.cat([step.start[:, None], step(embeddings)[:, :-1]], 1)
    parts = split_code(codes.flatten(1), head.bits)
    for logits, part in zip(head.logits(hidden, parts), parts, strict=True):
        assert torch.equal(logits.argmax(-1), part)


def test_each_sub_token_has_its_own_guidance_temperature_and_choice():
    plain = made().sample(Recorder(16, 8), guidance=2.0, temperature=0)
    assert not torch.equal(
        plain, made(guidance_offsets=[0, 30.0]).sample(Recorder(16, 8), guidance=2.0, temperature=0)
    )
    unguided = made(guidance_offsets=[-1.0, -1.0]).sample(Recorder(16, 8), guidance=2.0, temperature=0)
    assert torch.equal(unguided, made().sample(Recorder(16, 8), temperature=0)[:8])

    def drawn(head, **options):
        return head.sample(Recorder(16, 8), generators=Generators(range(16)), **options)

    cold = made(temperature_factors=[1e-6, 1e-6])
    greedy = made().sample(Recorder(16, 8), temperature=0)
    assert torch.equal(drawn(cold), greedy)
    assert torch.equal(drawn(made(top_ks=[1, 1])), greedy)
    assert not torch.equal(drawn(made()), greedy)


def test_sub_tokens_must_make_up_the_codes():
    with pytest.raises(RecipeError, match=r"2 \+ 2 bits make 16 codes, but the image tokenizer has 32"):
        Factorised(8, 32, (2, 2), bits=[2, 2], heads=2)
    with pytest.raises(RecipeError, match="top_ks has 1 values for 2 sub-tokens"):
        made(top_ks=[5])
