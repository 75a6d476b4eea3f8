"""The raster order: training and sampling see the same model, guidance is the published formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from writing import Recorded, written
from writing import head as built

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.heads.orders.raster import Raster
from chiasm.nn.generators import Generators

WIDTH, CODES, GRID = 16, 11, (3, 4)


def plain(alphabet=None, **options) -> Raster:
    torch.manual_seed(0)
    return built({"type": "raster", "alphabet": alphabet or {"type": "own"}, **options}, WIDTH, CODES, GRID)


def head(alphabet=None, **options) -> Raster:
    made = plain(alphabet, **options)
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
    return made.alphabet.logits(hidden[:, rows]), made.losses(hidden[:, rows], span)


def test_it_has_a_row_for_each_code_and_each_cell():
    made = plain()
    shapes = {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
    assert shapes == {
        "alphabet.codes.weight": (CODES, WIDTH),
        "cells.weight": (12, WIDTH),
        "alphabet.output.weight": (CODES, WIDTH),
    }
    for parameter in made.parameters():
        assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert made.unconditional == 0.1


def test_what_stands_at_a_code_names_its_cell_read_or_written():
    made, codes = head(), torch.randint(0, CODES, (2, *GRID))
    by_hand = torch.stack(
        [
            torch.stack(
                [made.alphabet.codes.weight[code] + made.cells.weight[i] for i, code in enumerate(row)]
            )
            for row in codes.flatten(1).tolist()
        ]
    )
    assert torch.equal(made.prepare(codes).embeddings, by_hand)
    assert torch.equal(made.embed_read(codes), by_hand)
    assert made.read_layout() == made.layout()
    assert not made.layout().bare


def test_images_are_read_as_their_codes_by_orders_that_say_so():
    reads_codes = {name: parts.lookup("order", name).reads_codes for name in parts.names("order")}
    assert reads_codes == {
        "raster": True, "raster_begun": True, "masked": True, "variable": True, "scales": False, "queries": False,
        "whole": True, "u_vit": False, "caption": False,
    }  # fmt: skip


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
        made.alphabet.output(hidden).flatten(0, 1), codes.flatten(), reduction="none"
    ).view(3, 12)
    loss = made.losses(hidden, span._replace(orphans=torch.tensor([False, True, False])))["image"]
    assert (float(loss.count), loss.weight) == (35, 1)
    torch.testing.assert_close(loss.sum, terms.sum() - terms[1, 0])
    assert made.terms(codes, torch.tensor([False, True, False])) is None


def test_the_same_seed_gives_the_same_codes():
    made, given = head(), prompts(8)

    def sample(seed):
        source = Generators([seed] * 8)
        return written(made, ToyStep(given), source, temperature=1.0)

    assert torch.equal(sample(5), sample(5))
    assert not torch.equal(sample(5), sample(6))


def test_every_parameter_gets_a_gradient():
    made = head()
    _, losses = teacher_forced(made, torch.randint(0, CODES, (4, *GRID)), prompts(4))
    losses["image"].sum.backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


def test_with_networks_round_the_codes_sampling_is_what_training_saw():
    torch.manual_seed(0)
    made, given = head({"type": "mlp", "hidden": 8, "code_width": 3}, cells=False), prompts(2)
    codes = written(made, ToyStep(given), guidance=1)
    logits, losses = teacher_forced(made, codes, given)
    assert torch.equal(logits.argmax(-1).flatten(), codes.flatten())
    losses["image"].sum.backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_without_cells_a_code_says_nothing_of_its_place_and_no_code_need_be_likelier_at_first():
    made = plain({"type": "own", "deviation": 0.0}, cells=False)
    span = made.prepare(torch.full((1, *GRID), 3))
    assert torch.equal(span.embeddings[0], span.embeddings[0, :1].expand(12, -1))
    assert torch.allclose(
        made.losses(torch.randn(1, 12, WIDTH), span)["image"].mean, torch.tensor(11.0).log()
    )
    assert {name for name, _ in made.named_parameters()} == {
        "alphabet.codes.weight",
        "alphabet.output.weight",
    }


@pytest.mark.parametrize("guided_codes", [None, 0, 1, 3, 99])
def test_only_the_first_codes_are_guided(guided_codes):
    """None of a head is guided less than all, unless it is asked to be."""
    made = head() if guided_codes is None else head(guided_codes=guided_codes)
    given = prompts(16)
    codes = written(made, ToyStep(given), guidance=9.0)
    (with_prompt, _), (without, _) = (teacher_forced(made, codes, rows) for rows in given.chunk(2))
    guided = without + 9.0 * (with_prompt - without)
    count = guided_codes or 12
    expected = torch.cat([guided[:, :count], with_prompt[:, count:]], 1).argmax(-1)
    assert torch.equal(codes.flatten(1), expected)
    assert not torch.equal(guided.argmax(-1), with_prompt.argmax(-1))


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
