"""The next-token head: training and sampling see the same model, guidance is the published formula."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.generators import Generators
from chiasm.heads.next_token import NextToken, draw, guided

WIDTH, CODES, GRID = 16, 11, (3, 4)


def head(**options) -> NextToken:
    torch.manual_seed(0)
    made = parts.build("image_head", {"type": "next_token", **options}, WIDTH, CODES, GRID)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


class ToyLanguageModel(nn.Module):
    """A causal mixer: each hidden state is a weighted sum of all embeddings so far, nonlinearly."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, embeddings):
        places = torch.arange(1, embeddings.shape[1] + 1)[:, None]
        return torch.tanh(self.inner((embeddings * places).cumsum(1)) / places)


class ToyStep:
    """The whole model again at every call: the simplest thing that a key-value cache must equal."""

    half = None

    def __init__(self, prompts):
        self.model, self.read = ToyLanguageModel(), prompts
        self.start = self.model(prompts)[:, -1]

    def __call__(self, embeddings):
        self.read = torch.cat([self.read, embeddings], 1)
        return self.model(self.read)[:, -embeddings.shape[1] :]


def prompts(rows, seed=3):
    return torch.randn(rows, 2, WIDTH, generator=torch.Generator().manual_seed(seed))


def teacher_forced(made, codes, given):
    """Logits of all codes at once, as in training."""
    span = made.prepare(codes)
    hidden = ToyLanguageModel()(torch.cat([given, span.embeddings], 1))
    rows = [given.shape[1] + row for row in made.layout().rows]
    return made.output(hidden[:, rows]), made.losses(hidden[:, rows], span)


def test_codes_stand_causally_and_the_marker_predicts_the_first():
    layout = head().layout()
    assert layout.length == 12
    assert all(layout.opens)
    assert all(layout.exposed)
    assert layout.rows == tuple(range(-1, 11))


def test_greedy_sampling_is_the_argmax_of_the_teacher_forced_logits():
    made, given = head(), prompts(3)
    codes = made.sample(ToyStep(given), guidance=1, temperature=0, top_k=0, generators=None)
    assert codes.shape == (3, *GRID)
    logits, losses = teacher_forced(made, codes, given)
    assert torch.equal(logits.argmax(-1), codes.flatten(1))
    assert losses["image"].count == 36
    expected = functional.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="sum")
    assert torch.allclose(losses["image"].sum, expected)


def test_guided_sampling_is_the_argmax_of_the_guided_teacher_forced_logits():
    made, given = head(), prompts(6)
    codes = made.sample(ToyStep(given), guidance=3.0, temperature=0, top_k=0, generators=None)
    assert codes.shape == (3, *GRID)
    conditional, _ = teacher_forced(made, codes, given[:3])
    unconditional, _ = teacher_forced(made, codes, given[3:])
    mixed = conditional + 2.0 * (conditional - unconditional)
    assert torch.equal(mixed.argmax(-1), codes.flatten(1))
    assert not torch.equal(conditional.argmax(-1), codes.flatten(1))


def test_the_guidance_formula_by_hand():
    logits = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    assert guided(logits, 3.0).tolist() == [[3.0, -2.0]]  # u + 3 (c - u)
    assert guided(logits, 0.0).tolist() == [[0.0, 4.0]]
    assert guided(logits, 1.0) is logits


def test_a_half_made_picture_is_completed_as_if_never_interrupted():
    made, given = head(), prompts(4)
    whole = made.sample(ToyStep(given), guidance=2.0, temperature=0, top_k=0, generators=None)
    half = whole.flatten(1)[:, :5]
    rest = made._continue(ToyStep(given), half, 2.0, 0, 0, None)
    assert torch.equal(rest, whole.flatten(1))


def test_the_same_seed_gives_the_same_codes():
    made, given = head(), prompts(8)

    def sample(seed):
        source = Generators([seed] * 8)
        return made.sample(ToyStep(given), guidance=1, temperature=1.0, top_k=0, generators=source)

    assert torch.equal(sample(5), sample(5))
    assert not torch.equal(sample(5), sample(6))


def test_draws_follow_temperature_and_top_k():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(20000, 4)
    source = Generators(range(20000))
    assert draw(logits, 0, 0, None).unique().tolist() == [3]
    assert draw(logits, 1.0, 1, source).unique().tolist() == [3]
    assert draw(logits, 1.0, 2, source).unique().tolist() == [2, 3]
    assert draw(logits, 1.0, 99, source).unique().tolist() == [0, 1, 2, 3]
    share = (draw(logits, 2.0, 2, source) == 3).float().mean()
    assert share == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.02)


def test_every_parameter_gets_a_gradient():
    made = head()
    _, losses = teacher_forced(made, torch.randint(0, CODES, (4, *GRID)), prompts(4))
    losses["image"].sum.backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


def test_guidance_without_an_unconditional_branch_is_refused():
    made = head(unconditional=0.0)
    with pytest.raises(ChiasmError, match="'unconditional' is 0"):
        made.sample(ToyStep(prompts(2)), guidance=3.0, temperature=0, top_k=0, generators=None)
    made.sample(ToyStep(prompts(2)), guidance=1, temperature=0, top_k=0, generators=None)


def test_what_does_not_fit_is_refused():
    made = head()
    with pytest.raises(ChiasmError, match=r"codes from 0 to 11 .* 11 codes \(0 to 10\)"):
        made.prepare(torch.tensor([0, 11] * 6).view(1, *GRID))
    with pytest.raises(ChiasmError, match=r"grid \(3, 4\)"):
        made.prepare(torch.zeros(1, 4, 3, dtype=torch.long))
    with pytest.raises(ChiasmError, match="3 rows"):
        made.sample(ToyStep(prompts(3)), guidance=2.0, temperature=0, top_k=0, generators=None)
    with pytest.raises(RecipeError, match=r"unconditional is 1\.5: input should be less than 1"):
        head(unconditional=1.5)


def test_with_networks_round_the_codes_sampling_is_what_training_saw():
    torch.manual_seed(0)
    made = parts.build(
        "image_head", {"type": "next_token_mlp", "hidden": 8, "code_width": 3}, WIDTH, CODES, GRID
    )
    given = prompts(2)
    codes = made.sample(ToyStep(given), guidance=1, temperature=0, top_k=0, generators=None)
    logits, losses = teacher_forced(made, codes, given)
    assert torch.equal(logits.argmax(-1).flatten(), codes.flatten())
    losses["image"].sum.backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
