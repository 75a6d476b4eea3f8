"""What every alphabet of codes keeps, whatever order holds it."""

from math import prod

import pytest
import torch
from torch import nn
from writing import Vocabulary

from chiasm import parts
from chiasm.heads import HeadContext, Sampling
from chiasm.nn.generators import Generators
from chiasm.tokenizers.spaces import Codes

WIDTH, SIZE = 12, 8
OPTIONS = {
    "factorised": {"bits": [1, 2], "heads": 3, "hidden": 16, "dropout": 0.0},
    "mlp": {"hidden": 16},
    "tied": {"first": 0},
}


class Wordy(Vocabulary):
    """A language model whose logits are not its hidden states."""

    def __init__(self):
        super().__init__(WIDTH)
        self.head = nn.Linear(WIDTH, 12, bias=False)

    def logits(self, hidden):
        return self.head(hidden)


OF_CODES = [name for name in parts.names("alphabet") if Codes in parts.lookup("alphabet", name).spaces]


@pytest.fixture(params=OF_CODES)
def built(request):
    def build(symbols=SIZE):
        torch.manual_seed(0)
        context = HeadContext(WIDTH, Codes((2, 2), SIZE), Wordy())
        spec = {"type": request.param, **OPTIONS.get(request.param, {})}
        alphabet = parts.build("alphabet", spec, context, symbols)
        for parameter in [*alphabet.parameters(), *context.vocabulary.parameters()]:
            nn.init.normal_(parameter, std=0.7)
        return alphabet.eval()

    return build


def chances(alphabet, hidden):
    """Of every value at each place, from the loss alone."""
    rows = hidden.flatten(0, -2)
    return torch.stack(
        [
            torch.stack([alphabet.loss(row[None], torch.tensor([value])) for value in range(SIZE)])
            for row in rows
        ]
    ).neg().exp()  # fmt: skip


@torch.no_grad()
def test_confidence_is_the_chance_that_training_gives_a_value(built):
    alphabet, hidden = built(), torch.randn(3, 2, WIDTH)
    if getattr(alphabet, "against", None) == "vocabulary":
        alphabet.against = "codes"
    expected = chances(alphabet, hidden)
    torch.testing.assert_close(expected.sum(1), torch.ones(6))
    for temperature in (0, 1.0):
        drawn = alphabet.draw(hidden, Sampling(temperature=temperature), Generators(range(3)))
        assert drawn.values.shape == drawn.confidence.shape == (3, 2)
        own = expected.gather(1, drawn.values.flatten()[:, None])[:, 0]
        torch.testing.assert_close(drawn.confidence.flatten(), own)


@torch.no_grad()
def test_values_are_drawn_as_likely_as_they_are(built):
    alphabet, rows = built(), 4000
    if getattr(alphabet, "against", None) == "vocabulary":
        alphabet.against = "codes"
    hidden = torch.randn(1, WIDTH)
    drawn = alphabet.draw(hidden.expand(rows, -1), Sampling(), Generators(range(rows))).values
    shares = torch.bincount(drawn, minlength=SIZE) / rows
    torch.testing.assert_close(shares, chances(alphabet, hidden)[0], atol=0.03, rtol=0)


@torch.no_grad()
def test_a_value_that_may_never_be_drawn_is_not_and_the_others_keep_their_proportions(built):
    alphabet, rows = built(), 4000
    hidden = torch.randn(1, WIDTH).expand(rows, -1)
    likeliest = int(alphabet.draw(hidden[:1], Sampling(temperature=0)).values)
    drawn = alphabet.draw(hidden, Sampling(), Generators(range(rows)), never=likeliest).values
    assert likeliest not in drawn.tolist()
    assert len(drawn.unique()) > 2


@torch.no_grad()
def test_guidance_is_of_logits_with_the_conditional_rows_first(built):
    alphabet, hidden = built(), torch.randn(4, 3, WIDTH)
    guided = alphabet.draw(hidden, Sampling(guidance=1e4, temperature=0)).values
    assert guided.shape == (2, 3)
    same = torch.cat([hidden[:2], hidden[:2]])  # nothing to lead away from
    alone = alphabet.draw(hidden[:2], Sampling(temperature=0)).values
    assert torch.equal(alphabet.draw(same, Sampling(guidance=3.0, temperature=0)).values, alone)
    assert not torch.equal(guided, alone)


def test_the_loss_is_a_sum_whose_terms_can_be_weighted(built):
    alphabet, hidden = built(), torch.randn(5, WIDTH)
    values, weights = torch.tensor([0, 7, 3, 3, 1]), torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0])
    terms = [alphabet.loss(hidden[i : i + 1], values[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(alphabet.loss(hidden, values), sum(terms))
    weighted = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    torch.testing.assert_close(alphabet.loss(hidden, values, weights), weighted)


@pytest.mark.parametrize("added", [0, 1, 2])
def test_every_symbol_has_an_embedding_of_its_own(built, added):
    """Those of the codes and those that an order adds."""
    alphabet = built(SIZE + added)
    rows = alphabet.embed(torch.arange(SIZE + added).view(1, -1))
    assert rows.shape == (1, SIZE + added, WIDTH)
    assert len(rows[0].unique(dim=0)) == SIZE + added


def test_an_alphabet_that_is_never_read_has_no_weights_for_it(built):
    read, unread = (sum(prod(p.shape) for p in built(symbols).parameters()) for symbols in (SIZE, 0))
    assert read == unread == 0 or unread < read or built().name == "tied"  # which scores with what it reads
    hidden = torch.randn(2, WIDTH)
    alphabet = built(0)
    alphabet.loss(hidden, torch.tensor([1, 2])).backward()
    assert all(parameter.grad is not None for parameter in alphabet.parameters())
