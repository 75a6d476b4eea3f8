"""Masked codes: what is masked, what stays at each step, and that no step is kept."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional
from writing import Recorded, written
from writing import head as built

from chiasm.errors import ChiasmError, RecipeError
from chiasm.heads import Ask, Sampling
from chiasm.heads.masking import masked_share, unsure
from chiasm.heads.orders import masked
from chiasm.heads.sampling import choose
from chiasm.nn.generators import Generators
from chiasm.sequence import IGNORE

WIDTH, CODES, GRID = 16, 11, (3, 4)


def head(**options):
    torch.manual_seed(0)
    return built({"type": "masked", "alphabet": {"type": "own"}, **options}, WIDTH, CODES, GRID)


def test_all_cells_of_a_picture_share_one_block_and_predict_themselves():
    layout = head().layout()
    assert layout.opens == (True,) + (False,) * 11
    assert all(layout.exposed)
    assert layout.rows == tuple(range(12))


def test_it_has_a_row_for_each_code_one_for_the_mask_and_one_for_each_cell():
    made = head()
    shapes = {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
    assert shapes == {
        "alphabet.codes.weight": (CODES + 1, WIDTH),
        "cells.weight": (12, WIDTH),
        "alphabet.output.weight": (CODES, WIDTH),
    }
    for parameter in made.parameters():
        assert float(parameter.std()) == pytest.approx(0.02, rel=0.3)


def test_without_options_a_picture_takes_twelve_steps_of_the_cosine():
    made = head()
    step = Recorder(torch.zeros(1, 12, WIDTH))
    written(made, step)
    assert (len(step.calls), made.schedule, made.unconditional) == (12, "cosine", 0.1)


def test_what_is_masked_is_what_is_predicted_and_nothing_else():
    made = head()
    codes = torch.randint(CODES, (5, *GRID), generator=torch.Generator().manual_seed(1))
    span = made.prepare(codes)
    masked = span.targets != IGNORE
    assert bool((masked.sum(1) >= 1).all())
    assert torch.equal(span.targets[masked], codes.flatten(1)[masked])
    cells = span.embeddings - made.cells.weight
    assert torch.allclose(
        cells[masked], made.alphabet.codes.weight[CODES].expand(int(masked.sum()), -1), atol=1e-6
    )
    assert torch.allclose(cells[~masked], made.alphabet.codes(codes.flatten(1)[~masked]), atol=1e-6)


def test_a_picture_that_is_only_looked_at_has_no_mask():
    made, codes = head(), torch.zeros(1, *GRID, dtype=torch.long)
    assert torch.equal(made.embed_read(codes), made.embed(codes.flatten(1)))


def test_the_loss_has_one_term_a_picture_the_mean_over_its_masked_codes():
    made = head()
    span = made.prepare(torch.zeros(3, *GRID, dtype=torch.long))
    hidden = torch.randn(3, 12, WIDTH)
    loss = made.losses(hidden, span)["image"]
    expected = sum(
        functional.cross_entropy(made.alphabet.output(hidden[i]), span.targets[i], ignore_index=IGNORE)
        for i in range(3)
    )
    assert loss.count == 3
    assert torch.allclose(loss.sum, expected)


def test_without_gradients_the_mask_depends_on_the_picture_alone():
    made = head()
    codes = torch.randint(CODES, (4, *GRID), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together = made.prepare(codes).targets
        alone = torch.cat([made.prepare(each[None]).targets for each in codes])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize(("schedule", "share"), [("cosine", 2 / math.pi), ("linear", 1 / 2), ("pow3", 3 / 4)])
def test_the_masked_share_is_drawn_from_the_schedule_and_every_cell_is_masked_alike(
    gradients, schedule, share
):
    """The integral of the schedule, as the time is uniform."""
    torch.manual_seed(0)
    made = built({"type": "masked", "alphabet": {"type": "own"}, "schedule": schedule}, 2, 5000, GRID)
    with torch.set_grad_enabled(gradients):
        hidden = made.prepare(torch.randint(5000, (4000, *GRID))).targets != IGNORE
    assert float(hidden.float().mean()) == pytest.approx(share, abs=0.02)
    frequencies = hidden.float().mean(0)
    assert float(frequencies.max() - frequencies.min()) < 0.05
    counts = torch.bincount(hidden.sum(1), minlength=13)
    assert counts[0] == 0
    assert bool((counts[1:] > 0).all())


def test_in_training_a_picture_is_masked_anew_each_time():
    made, codes = head(), torch.zeros(4, *GRID, dtype=torch.long)
    assert not torch.equal(made.prepare(codes).targets, made.prepare(codes).targets)


def test_there_may_be_no_picture():
    made = head()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            assert made.prepare(torch.zeros(0, *GRID, dtype=torch.long)).embeddings.shape == (0, 12, WIDTH)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", lambda t: math.cos(math.pi / 2 * t)),
        ("linear", lambda t: 1 - t),
        ("pow2", lambda t: 1 - t * t),
        ("pow0.5", lambda t: 1 - math.sqrt(t)),
        # The logistic function from 3 down to -3, stretched from 1 to 0.
        ("sigmoid", lambda t: (math.tanh(1.5 * (1 - 2 * t)) / math.tanh(1.5) + 1) / 2),
    ],
)
def test_schedules_by_hand(schedule, expected):
    times = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0]
    shares = masked_share(schedule, torch.tensor(times))
    torch.testing.assert_close(shares, torch.tensor([expected(t) for t in times]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "sigmoid", "pow2"])
def test_schedules_fall_from_all_to_none(schedule):
    shares = masked_share(schedule, torch.linspace(0, 1, 11))
    assert shares[0] == pytest.approx(1)
    assert shares[-1] == pytest.approx(0, abs=1e-5)
    assert bool((shares.diff() < 0).all())


class Recorder:
    """Hidden states that say the same at every step; counts the calls."""

    def __init__(self, hidden):
        self.hidden, self.start, self.calls = hidden, hidden[:, 0], []

    def __call__(self, ask):
        self.calls.append((tuple(ask.embeddings.shape), ask.keep))
        return self.hidden


def test_the_surest_codes_stay_and_no_step_is_kept():
    made = head(steps=4)
    step = Recorder(torch.randn(2, 12, WIDTH, generator=torch.Generator().manual_seed(4)))
    progress = Recorded([])
    written(made, step, progress=progress)
    assert step.calls == [((2, 12, WIDTH), False)] * 4
    masked = [int((codes == made.mask).sum(1)[0]) for codes in progress.history]
    assert masked == [11, 8, 4, 0]  # floor(12 cos(i / 4 * pi / 2))
    logits = made.alphabet.logits(step.hidden)
    assert torch.equal(progress.history[-1], logits.argmax(-1))
    surest = logits.softmax(-1).amax(-1).argsort(-1, descending=True)
    for row in range(2):
        kept = (progress.history[1][row] != made.mask).nonzero()[:, 0].tolist()
        assert set(kept) == set(surest[row, :4].tolist())


class Mixer:
    """Hidden states that follow from what stands at every cell, and from each row's prompt."""

    def __init__(self, rows):
        self.prompts = torch.randn(rows, 1, WIDTH, generator=torch.Generator().manual_seed(4))
        self.places = torch.randn(1, 12, WIDTH, generator=torch.Generator().manual_seed(5))
        self.start = self.prompts[:, 0]

    def __call__(self, ask):
        embeddings = ask.embeddings
        return torch.tanh(self.prompts + self.places + embeddings + embeddings.mean(1, keepdim=True))


def drawn_by_hand(made, step, guidance, temperature, top_k, seed):
    """MaskGIT's drawing of one image as Show-o has it: the codes of each step, -1 where one is masked."""
    sources, codes, rounds = Generators([seed]), [-1] * 12, []
    for done in range(1, made.steps + 1):
        block = made.embed(torch.tensor([[CODES if code == -1 else code for code in codes]]))
        hidden = made.alphabet.output(step(Ask(block if guidance == 1 else torch.cat([block, block]))))
        logits = hidden if guidance == 1 else hidden[1:] + guidance * (hidden[:1] - hidden[1:])
        drawn = Sampling(temperature=1.0 if temperature else 0, top_k=top_k)
        proposed = choose(logits, drawn, sources)[0].tolist()
        masked = [cell for cell in range(12) if codes[cell] == -1]
        codes = [proposed[cell] if cell in masked else codes[cell] for cell in range(12)]
        if done < made.steps:
            remain = max(1, min(len(masked) - 1, math.floor(12 * math.cos(done / made.steps * math.pi / 2))))
            temperature *= 1 - done / made.steps
            noise = sources.uniform(12)[0].tolist() if temperature else [0.5] * 12
            chances = logits[0].softmax(-1).tolist()
            surety = {
                cell: math.log(chances[cell][codes[cell]]) + temperature * -math.log(-math.log(noise[cell]))
                for cell in masked
            }
            for cell in sorted(masked, key=lambda cell: surety[cell])[:remain]:
                codes[cell] = -1
        rounds.append(list(codes))
    return rounds


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize(("temperature", "top_k"), [(0, 0), (0.5, 0), (2.0, 0), (5.0, 3)])
def test_drawing_by_hand(guidance, temperature, top_k):
    """Every step keeps the surest of the codes that it proposes, under noise whose temperature each step multiplies
    by the share of steps that are left; codes themselves are drawn as likely as they are."""
    made = head(steps=5)
    torch.nn.init.normal_(made.alphabet.codes.weight)
    torch.nn.init.normal_(made.alphabet.output.weight)
    for seed in range(4):
        step = Mixer(1 if guidance == 1 else 2)
        progress, options = Recorded([seed]), {"temperature": temperature, "top_k": top_k}
        drawn = written(made, step, progress.generators, progress, guidance=guidance, **options)
        by_hand = drawn_by_hand(made, step, guidance, temperature, top_k, seed)
        for ours, codes in zip(progress.history, by_hand, strict=True):
            assert [-1 if code == CODES else code for code in ours[0].tolist()] == codes
        assert drawn.shape == (1, *GRID)
        assert drawn.flatten().tolist() == codes


@pytest.mark.parametrize("stopped", [1, 3, 5])
def test_an_image_that_was_stopped_goes_on_as_if_never_interrupted(stopped):
    made, options = head(steps=5), {"guidance": 2.0, "temperature": 1.5}
    torch.nn.init.normal_(made.alphabet.codes.weight)
    torch.nn.init.normal_(made.alphabet.output.weight)
    whole = written(made, Mixer(4), Generators([1, 2]), **options)
    progress = Recorded([1, 2], stop=stopped)
    with pytest.raises(KeyboardInterrupt):
        written(made, Mixer(4), progress.generators, progress, **options)
    assert bool((progress.values == made.mask).any()) == (stopped < 5)
    progress.generators.uniform(7)  # whatever else they have drawn since
    assert torch.equal(written(made, Mixer(4), progress.restored(), progress, **options), whole)
    assert len(progress.history) == 5  # no step is done twice


def test_the_same_seed_gives_the_same_codes():
    made = head()
    hidden = torch.zeros(2, 12, WIDTH)

    def sample(seed):
        source = Generators([seed, seed])
        return written(made, Recorder(hidden), source, temperature=1.0)

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))


def test_as_many_cells_as_asked_are_unsure():
    confidence = torch.tensor([[-1.0, -3.0, -2.0, 88.0]])
    assert unsure(confidence, torch.tensor([[2]]), 0.0, None).tolist() == [[False, True, True, False]]


def test_what_does_not_fit_is_refused():
    made = head()
    with pytest.raises(ChiasmError, match=r"codes from 0 to 11 .* 11 codes \(0 to 10\)"):
        made.prepare(torch.tensor([0, 11] * 6).view(1, *GRID))
    with pytest.raises(ChiasmError, match=r"codes from 0 to 11"):
        made.embed_read(torch.tensor([0, 11] * 6).view(1, *GRID))
    for schedule in ("powder", "pow", "pow0", "pow-1", "pownan", "powinf", "cosines"):
        with pytest.raises(RecipeError, match=f"the schedule is '{schedule}'; it must be cosine, linear,"):
            head(schedule=schedule)
    with pytest.raises(ChiasmError, match="'unconditional' is 0"):
        written(head(unconditional=0.0), Recorder(torch.zeros(2, 12, WIDTH)), guidance=2.0)


def test_noise_on_the_confidence_is_gumbels():
    """With it the surest cell is a draw from the softmax of the confidences (the Gumbel-max trick); with its
    negative it would be another."""
    rows, confidence = 5_000, torch.tensor([2.0, 0.0, 0.0])
    for temperature in (1.0, 2.0):
        stays = ~unsure(
            confidence.expand(rows, 3), torch.full((rows, 1), 2), temperature, Generators(range(rows))
        )
        assert stays.sum(1).eq(1).all()
        expected = (confidence / temperature).softmax(0)[0]
        assert float(stays[:, 0].float().mean()) == pytest.approx(float(expected), abs=0.025)


def test_until_the_last_step_something_is_masked_and_each_step_settles_a_code():
    """Even with more steps than codes."""
    step = Recorder(torch.randn(3, 12, WIDTH, generator=torch.Generator().manual_seed(4)))
    made = head(steps=40)
    progress = Recorded([])
    written(made, step, progress=progress)
    counts = [(codes == made.mask).sum(1) for codes in progress.history]
    assert all(bool((each >= 1).all()) for each in counts[:-1])
    assert all(bool((b < a).all()) or bool((b == 1).all()) for a, b in pairwise(counts[:-1]))
    assert int(counts[-1].sum()) == 0


@pytest.mark.parametrize("done", [0.0, 0.5, 0.999, 1.0 - 2**-24])
def test_at_least_one_code_of_a_picture_is_masked_in_training(monkeypatch, done):
    monkeypatch.setattr(
        masked,
        "training_numbers",
        lambda codes, shape: torch.cat([torch.full((5, 1), done), torch.rand(5, 12)], 1),
    )
    codes = torch.zeros(5, *GRID, dtype=torch.long)
    count = (head().prepare(codes).targets != IGNORE).sum(1)
    assert bool((count == max(1, round(12 * math.cos(done * math.pi / 2)))).all())
