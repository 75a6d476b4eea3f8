"""The next-token head: training and sampling see the same model, guidance is the published formula."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from writing import Recorded, written

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.generators import Generators
from chiasm.heads import Sampling
from chiasm.heads.next_token import NextToken
from chiasm.heads.sampling import choose, guided

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

    def __init__(self, prompts):
        self.model, self.read = ToyLanguageModel(), prompts
        self.start = self.model(prompts)[:, -1]

    def __call__(self, ask):
        assert ask.keep
        self.read = torch.cat([self.read, ask.embeddings], 1)
        return self.model(self.read)[:, -ask.embeddings.shape[1] :]


def prompts(rows, seed=3):
    return torch.randn(rows, 2, WIDTH, generator=torch.Generator().manual_seed(seed))


def teacher_forced(made, codes, given):
    """Logits of all codes at once, as in training."""
    span = made.prepare(codes)
    hidden = ToyLanguageModel()(torch.cat([given, span.embeddings], 1))
    rows = [given.shape[1] + row for row in made.layout().rows]
    return made.output(hidden[:, rows]), made.losses(hidden[:, rows], span)


def test_it_has_a_row_for_each_code_and_each_cell():
    torch.manual_seed(0)
    made = parts.build("image_head", {"type": "next_token"}, WIDTH, CODES, GRID)
    shapes = {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
    assert shapes == {
        "codes.weight": (CODES, WIDTH),
        "cells.weight": (12, WIDTH),
        "output.weight": (CODES, WIDTH),
    }
    for parameter in made.parameters():
        assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert made.unconditional == 0.1


def test_what_stands_at_a_code_names_its_cell_read_or_written():
    made, codes = head(), torch.randint(0, CODES, (2, *GRID))
    by_hand = torch.stack(
        [
            torch.stack([made.codes.weight[code] + made.cells.weight[i] for i, code in enumerate(row)])
            for row in codes.flatten(1).tolist()
        ]
    )
    assert torch.equal(made.prepare(codes).embeddings, by_hand)
    assert torch.equal(made.show(codes), by_hand)
    assert made.shown_layout() == made.layout()
    assert not made.layout().bare


def test_images_are_read_as_their_codes_by_heads_that_say_so():
    shows = {name: parts.lookup("image_head", name).shows for name in parts.names("image_head")}
    assert shows["next_token"]
    assert shows["masked"]
    assert not shows["factorised"]
    assert not shows["next_scale"]


def test_codes_stand_causally_and_the_marker_predicts_the_first():
    layout = head().layout()
    assert layout.length == 12
    assert all(layout.opens)
    assert all(layout.exposed)
    assert layout.rows == tuple(range(-1, 11))


def test_greedy_sampling_is_the_argmax_of_the_teacher_forced_logits():
    made, given = head(), prompts(3)
    codes = written(made, ToyStep(given), guidance=1)
    assert codes.shape == (3, *GRID)
    logits, losses = teacher_forced(made, codes, given)
    assert torch.equal(logits.argmax(-1), codes.flatten(1))
    assert losses["image"].count == 36
    expected = functional.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="sum")
    assert torch.allclose(losses["image"].sum, expected)


def test_guided_sampling_is_the_argmax_of_the_guided_teacher_forced_logits():
    made, given = head(), prompts(6)
    codes = written(made, ToyStep(given), guidance=3.0)
    assert codes.shape == (3, *GRID)
    conditional, _ = teacher_forced(made, codes, given[:3])
    unconditional, _ = teacher_forced(made, codes, given[3:])
    mixed = conditional + 2.0 * (conditional - unconditional)
    assert torch.equal(mixed.argmax(-1), codes.flatten(1))
    assert not torch.equal(conditional.argmax(-1), codes.flatten(1))


def test_top_p_draws_among_the_fewest_likeliest_values_that_reach_it_together():
    chances = torch.tensor([0.1, 0.4, 0.15, 0.35])

    def drawn(top_p, temperature=1.0):
        sampling = Sampling(temperature=temperature, top_p=top_p)
        logits = (chances.log() * temperature + 3).expand(400, 4)
        return set(choose(logits, sampling, Generators(range(400))).tolist())

    for temperature in (1.0, 0.5):  # the chances are those at the temperature
        assert drawn(0.3, temperature) == {1}
        assert drawn(0.45, temperature) == {1, 3}
        assert drawn(0.8, temperature) == {1, 2, 3}
        assert drawn(0.95, temperature) == {0, 1, 2, 3}


def test_the_guidance_formula_by_hand():
    logits = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    assert guided(logits, 3.0).tolist() == [[3.0, -2.0]]  # u + 3 (c - u)
    assert guided(logits, 0.0).tolist() == [[0.0, 4.0]]
    assert guided(logits, 1.0) is logits


@pytest.mark.parametrize("stopped", [0, 1, 5, 12])
@pytest.mark.parametrize("guidance", [1, 2.0])
def test_a_picture_that_was_stopped_goes_on_as_if_never_interrupted(stopped, guidance):
    """It is known after every code which codes there are and how far the generators have got."""
    made, given, options = head(), prompts(4), {"guidance": guidance, "temperature": 1.0}
    seeds = [1, 2] if guidance == 2 else [1, 2, 3, 4]
    whole = written(made, ToyStep(given), Generators(seeds), **options)
    progress = Recorded(seeds, stop=stopped)
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            written(made, ToyStep(given), progress.generators, progress, **options)
        assert torch.equal(progress.values, whole.flatten(1)[:, :stopped])
    progress.generators.uniform(7)  # whatever else they have drawn since
    assert torch.equal(written(made, ToyStep(given), progress.restored(), progress, **options), whole)
    assert [values.shape[1] for values in progress.history] == list(range(1, 13))


@pytest.mark.parametrize("guidance", [1, 2.0])
def test_each_code_but_the_last_is_read_once(guidance):
    read, step = [], ToyStep(prompts(2))

    def counted(ask):
        read.append(tuple(ask.embeddings.shape[:2]))
        return step(ask)

    counted.start = step.start
    written(head(), counted, guidance=guidance)
    assert read == [(2, 1)] * 11


def test_an_orphans_first_code_is_not_learnt():
    made, codes = head(), torch.randint(0, CODES, (3, *GRID))
    hidden, span = torch.randn(3, 12, WIDTH), made.prepare(codes)
    terms = functional.cross_entropy(
        made.output(hidden).flatten(0, 1), codes.flatten(), reduction="none"
    ).view(3, 12)
    loss = made.losses(hidden, span._replace(orphans=torch.tensor([False, True, False])))["image"]
    assert (float(loss.count), loss.weight) == (35, 1)
    torch.testing.assert_close(loss.sum, terms.sum() - terms[1, 0])
    assert made.terms(codes, torch.tensor([False, True, False])) is None


class Numbers:
    """Generators that always give this number."""

    def __init__(self, number):
        self.number = number

    def uniform(self, *shape, device):
        return torch.full((2, *shape), self.number)


@pytest.mark.parametrize("number", [0.0, 0.2, 0.5, 0.9, 1 - 2**-24])
@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.3, 0), (4.0, 0), (1.0, 2), (1.0, 4)])
def test_a_code_is_drawn_where_the_sum_of_chances_reaches_the_number(number, temperature, top_k):
    """At every place of two rows, also where the first and last codes have no chance at all."""
    logits = (
        torch.tensor([0.5, 2.0, -1.0, 1.0, 0.0])[None, None] * torch.tensor([1.0, -1.0, 2.0])[None, :, None]
    )
    impossible = torch.full((2, 3, 1), -torch.inf)
    logits = torch.cat([impossible, logits.expand(2, 3, 5), impossible], -1)
    codes = choose(logits, Sampling(temperature=temperature, top_k=top_k), Numbers(number))
    assert codes.shape == (2, 3)
    for place in range(3):
        scores = logits[0, place].tolist()
        allowed = sorted(scores, reverse=True)[: top_k or 7]
        chances = [math.exp(score / temperature) if score in allowed else 0 for score in scores]
        reached, wanted = 0.0, (1 - number) * sum(chances)
        for code, chance in enumerate(chances):  # noqa: B007
            reached += chance
            if chance and reached >= wanted * (1 - 1e-6):
                break
        assert codes[:, place].tolist() == [code, code]


def test_however_low_the_temperature_the_likeliest_is_drawn():
    logits = torch.tensor([[[1.0, 1.001, -300.0], [900.0, -900.0, 899.0]], [[0.0, 0.0, 1.0]] * 2])
    for temperature in (1e-6, 1e-30, 1e-45):
        assert choose(logits, Sampling(temperature=temperature), Generators([1, 2])).tolist() == [
            [1, 0],
            [2, 2],
        ]
        assert choose(logits[:, 0], Sampling(temperature=temperature), Generators([1, 2])).tolist() == [1, 2]


def test_every_place_of_a_row_takes_a_number_of_its_own_and_rows_do_not_share_any():
    logits = torch.zeros(2, 50, 97)
    together = choose(logits, Sampling(temperature=1.0), Generators([3, 4]))
    alone = torch.cat([choose(logits[:1], Sampling(temperature=1.0), Generators([seed])) for seed in (3, 4)])
    assert torch.equal(together, alone)
    assert len(together[0].unique()) > 20
    assert not torch.equal(together[0], together[1])


def test_drawing_by_chance_needs_generators():
    with pytest.raises(ChiasmError, match=r"drawing at temperature 0\.5 needs generators"):
        choose(torch.zeros(1, 3), Sampling(temperature=0.5), None)


def test_the_same_seed_gives_the_same_codes():
    made, given = head(), prompts(8)

    def sample(seed):
        source = Generators([seed] * 8)
        return written(made, ToyStep(given), source, temperature=1.0)

    assert torch.equal(sample(5), sample(5))
    assert not torch.equal(sample(5), sample(6))


def test_draws_follow_temperature_and_top_k():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(4000, 4)
    source = Generators(range(4000))
    assert choose(logits, Sampling(temperature=0), None).unique().tolist() == [3]
    assert choose(logits, Sampling(temperature=1.0, top_k=1), source).unique().tolist() == [3]
    assert choose(logits, Sampling(temperature=1.0, top_k=2), source).unique().tolist() == [2, 3]
    assert choose(logits, Sampling(temperature=1.0, top_k=99), source).unique().tolist() == [0, 1, 2, 3]
    share = (choose(logits, Sampling(temperature=2.0, top_k=2), source) == 3).float().mean()
    assert share == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.03)


def test_every_parameter_gets_a_gradient():
    made = head()
    _, losses = teacher_forced(made, torch.randint(0, CODES, (4, *GRID)), prompts(4))
    losses["image"].sum.backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


def test_guidance_without_an_unconditional_branch_is_refused():
    made = head(unconditional=0.0)
    with pytest.raises(ChiasmError, match="'unconditional' is 0"):
        written(made, ToyStep(prompts(2)), guidance=3.0)
    written(made, ToyStep(prompts(2)), guidance=1)


def test_what_does_not_fit_is_refused():
    made = head()
    with pytest.raises(ChiasmError, match=r"codes from 0 to 11 .* 11 codes \(0 to 10\)"):
        made.prepare(torch.tensor([0, 11] * 6).view(1, *GRID))
    with pytest.raises(ChiasmError, match="codes from -1 to 0"):
        made.prepare(torch.tensor([0, -1] * 6).view(1, *GRID))
    assert made.prepare(torch.zeros(0, *GRID, dtype=torch.long)).targets.shape == (0, 12)
    with pytest.raises(ChiasmError, match=r"grid \(3, 4\)"):
        made.prepare(torch.zeros(1, 4, 3, dtype=torch.long))
    with pytest.raises(ChiasmError, match="3 rows"):
        written(made, ToyStep(prompts(3)), guidance=2.0)
    with pytest.raises(RecipeError, match=r"unconditional is 1\.5: input should be less than 1"):
        head(unconditional=1.5)


def test_with_networks_round_the_codes_sampling_is_what_training_saw():
    torch.manual_seed(0)
    made = parts.build(
        "image_head", {"type": "next_token_mlp", "hidden": 8, "code_width": 3}, WIDTH, CODES, GRID
    )
    given = prompts(2)
    codes = written(made, ToyStep(given), guidance=1)
    logits, losses = teacher_forced(made, codes, given)
    assert torch.equal(logits.argmax(-1).flatten(), codes.flatten())
    losses["image"].sum.backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_januss_networks_widen_a_code_and_predict_it(depth):
    """GELU stands between the layers, at neither end."""
    torch.manual_seed(0)
    spec = {"type": "next_token_mlp", "code_width": 3, "depth": depth, "hidden": 5}
    made = parts.build("image_head", spec, WIDTH, CODES, GRID)
    linear = [layer for layer in made.adapter if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (3, WIDTH),
        *[(WIDTH, WIDTH)] * (depth - 1),
    ]
    x = made.codes.weight
    for i, layer in enumerate(linear):
        x = layer(functional.gelu(x) if i else x)
    codes = torch.arange(11).repeat(2)[:12].view(1, *GRID)
    torch.testing.assert_close(made.prepare(codes).embeddings[0], x[codes.flatten()])
    inner, _, outer = made.output
    hidden = torch.randn(2, WIDTH)
    assert inner.out_features == 5
    torch.testing.assert_close(made.logits(hidden), outer(functional.gelu(inner(hidden))))


def test_without_options_the_networks_are_januss():
    with torch.device("meta"):
        made = parts.build("image_head", {"type": "next_token_mlp"}, 2048, 16384, (24, 24))
    shapes = {name: tuple(p.shape) for name, p in made.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "codes.weight": (16384, 8),
        "adapter.0.weight": (2048, 8),
        "adapter.2.weight": (2048, 2048),
        "output.0.weight": (2048, 2048),
        "output.2.weight": (16384, 2048),
    }
    assert made.unconditional == 0.1
