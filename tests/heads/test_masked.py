"""Masked codes: what is masked, what stays at each step, and that no step is kept."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.generators import Generators
from chiasm.heads import masked
from chiasm.heads.masked import masked_share, unsure
from chiasm.sequence import IGNORE

WIDTH, CODES, GRID = 16, 11, (3, 4)


def head(**options):
    torch.manual_seed(0)
    return parts.build("image_head", {"type": "masked", **options}, WIDTH, CODES, GRID)


def test_all_cells_of_a_picture_share_one_block_and_predict_themselves():
    layout = head().layout()
    assert layout.opens == (True,) + (False,) * 11
    assert all(layout.exposed)
    assert layout.rows == tuple(range(12))


def test_what_is_masked_is_what_is_predicted_and_nothing_else():
    made = head()
    codes = torch.randint(CODES, (5, *GRID), generator=torch.Generator().manual_seed(1))
    span = made.prepare(codes)
    masked = span.targets != IGNORE
    assert bool((masked.sum(1) >= 1).all())
    assert torch.equal(span.targets[masked], codes.flatten(1)[masked])
    cells = span.embeddings - made.cells.weight
    assert torch.allclose(cells[masked], made.codes.weight[CODES].expand(int(masked.sum()), -1), atol=1e-6)
    assert torch.allclose(cells[~masked], made.codes(codes.flatten(1)[~masked]), atol=1e-6)


def test_a_picture_that_is_only_looked_at_has_no_mask():
    made, codes = head(), torch.zeros(1, *GRID, dtype=torch.long)
    assert torch.equal(made.show(codes), made.embed(codes.flatten(1)))


def test_the_loss_has_one_term_a_picture_the_mean_over_its_masked_codes():
    made = head()
    span = made.prepare(torch.zeros(3, *GRID, dtype=torch.long))
    hidden = torch.randn(3, 12, WIDTH)
    loss = made.losses(hidden, span)["image"]
    expected = sum(
        functional.cross_entropy(made.output(hidden[i]), span.targets[i], ignore_index=IGNORE)
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


@pytest.mark.parametrize("schedule", ["cosine", "linear", "sigmoid", "pow2"])
def test_schedules_fall_from_all_to_none(schedule):
    shares = masked_share(schedule, torch.linspace(0, 1, 11))
    assert shares[0] == pytest.approx(1)
    assert shares[-1] == pytest.approx(0, abs=1e-5)
    assert bool((shares.diff() < 0).all())


class Recorder:
    """Hidden states that say the same at every step; counts the calls."""

    half = None

    def __init__(self, hidden):
        self.hidden, self.start, self.calls = hidden, hidden[:, 0], []

    def __call__(self, embeddings, *, keep=True):
        self.calls.append((tuple(embeddings.shape), keep))
        return self.hidden


def test_the_surest_codes_stay_and_no_step_is_kept():
    made = head(steps=4)
    step = Recorder(torch.randn(2, 12, WIDTH, generator=torch.Generator().manual_seed(4)))
    rounds = list(made.rounds(step, 1.0, 0.0, 0, None))
    assert step.calls == [((2, 12, WIDTH), False)] * 4
    masked = [int((each.codes == made.mask).sum(1)[0]) for each in rounds]
    assert masked == [11, 8, 4, 0]  # floor(12 cos(i / 4 * pi / 2))
    logits = made.logits(step.hidden)
    assert torch.equal(rounds[-1].codes, logits.argmax(-1))
    surest = logits.softmax(-1).amax(-1).argsort(-1, descending=True)
    for row in range(2):
        kept = (rounds[1].codes[row] != made.mask).nonzero()[:, 0].tolist()
        assert set(kept) == set(surest[row, :4].tolist())


def test_guidance_by_hand():
    made = head(steps=1)
    step = Recorder(torch.randn(4, 12, WIDTH, generator=torch.Generator().manual_seed(4)))
    codes = made.sample(step, guidance=3.0, temperature=0, top_k=0, generators=None)
    with_prompt, without = made.logits(step.hidden).chunk(2)
    assert torch.equal(codes.flatten(1), (without + 3 * (with_prompt - without)).argmax(-1))


def test_the_same_seed_gives_the_same_codes():
    made = head()
    hidden = torch.zeros(2, 12, WIDTH)

    def sample(seed):
        source = Generators([seed, seed])
        return made.sample(Recorder(hidden), guidance=1.0, temperature=1.0, top_k=0, generators=source)

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
        made.show(torch.tensor([0, 11] * 6).view(1, *GRID))
    with pytest.raises(
        RecipeError, match="the schedule is 'powder'; it must be cosine, linear, sigmoid or powX"
    ):
        head(schedule="powder")
    with pytest.raises(ChiasmError, match="'unconditional' is 0"):
        head(unconditional=0.0).sample(
            Recorder(torch.zeros(2, 12, WIDTH)), guidance=2.0, temperature=0, top_k=0, generators=None
        )


def test_the_noise_on_the_confidence_falls_as_the_originals_does(monkeypatch):
    """Each step multiplies what is left of the temperature by the share of steps that are left."""
    seen = []

    def noted(confidence, left, temperature, generators):
        seen.append(temperature)
        return unsure(confidence, left, 0.0, generators)

    monkeypatch.setattr(masked, "unsure", noted)
    step = Recorder(torch.randn(2, 12, WIDTH, generator=torch.Generator().manual_seed(4)))
    sources = Generators([1, 2])
    head(steps=4).sample(step, guidance=1.0, temperature=2.0, top_k=0, generators=sources)
    assert seen == [2 * 3 / 4, 2 * 3 / 4 * 2 / 4, 2 * 3 / 4 * 2 / 4 * 1 / 4]


def test_noise_on_the_confidence_is_gumbels():
    """With it the surest cell is a draw from the softmax of the confidences (the Gumbel-max trick); with its
    negative it would be another."""
    rows, confidence = 20_000, torch.tensor([2.0, 0.0, 0.0])
    for temperature in (1.0, 2.0):
        stays = ~unsure(
            confidence.expand(rows, 3), torch.full((rows, 1), 2), temperature, Generators(range(rows))
        )
        assert stays.sum(1).eq(1).all()
        expected = (confidence / temperature).softmax(0)[0]
        assert float(stays[:, 0].float().mean()) == pytest.approx(float(expected), abs=0.012)


def test_until_the_last_step_something_is_masked_and_each_step_settles_a_code():
    """Even with more steps than codes."""
    step = Recorder(torch.randn(3, 12, WIDTH, generator=torch.Generator().manual_seed(4)))
    made = head(steps=40)
    counts = [(each.codes == made.mask).sum(1) for each in made.rounds(step, 1.0, 0.0, 0, None)]
    assert all(bool((each >= 1).all()) for each in counts[:-1])
    assert all(bool((b < a).all()) or bool((b == 1).all()) for a, b in pairwise(counts[:-1]))
    assert int(counts[-1].sum()) == 0


@pytest.mark.parametrize("done", [0.0, 0.5, 0.999, 1.0 - 2**-24])
def test_at_least_one_code_of_a_picture_is_masked_in_training(monkeypatch, done):
    monkeypatch.setattr(
        masked, "_draws", lambda codes: torch.cat([torch.full((5, 1), done), torch.rand(5, 12)], 1)
    )
    codes = torch.zeros(5, *GRID, dtype=torch.long)
    count = (head().prepare(codes).targets != IGNORE).sum(1)
    assert bool((count == max(1, round(12 * math.cos(done * math.pi / 2)))).all())
