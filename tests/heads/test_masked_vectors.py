"""Masked vectors (MAR): some cells of an image after others, at random which."""

import pytest
import torch
from writing import Recorded, Vocabulary

from chiasm.heads import HeadContext, Sampling, finish
from chiasm.heads.building import build_head
from chiasm.nn.generators import Generators
from chiasm.tokenizers.spaces import Vectors

SPACE = Vectors((3, 3), 2)


def head(steps=4, **alphabet):
    spec = {"type": "masked", "steps": steps, "alphabet": {"type": "regression", **alphabet}}
    return build_head(spec, HeadContext(4, SPACE, Vocabulary(4)))


def test_masked_cells_hold_the_mask_and_are_what_is_learnt():
    masked = head()
    target = torch.randn(5, 3, 3, 2)
    span = masked.prepare(target)
    learnt = ~span.targets.isnan().any(-1)
    assert learnt.any(1).all()
    assert torch.equal(span.targets[learnt], target.flatten(1, 2)[learnt])
    at_mask = masked.mask_vector + masked.cells.weight
    known = masked.alphabet.input(target.flatten(1, 2)) + masked.cells.weight
    torch.testing.assert_close(span.embeddings, torch.where(learnt[..., None], at_mask, known))
    hidden = torch.randn(5, 9, 4)
    errors = (masked.alphabet.output(hidden) - target.flatten(1, 2)).square().mean(-1)
    expected = torch.stack([e[m].mean() for e, m in zip(errors, learnt, strict=True)]).mean()
    torch.testing.assert_close(masked.losses(hidden, span)["image"].mean, expected)


def test_every_cell_is_drawn_once_and_stays():
    masked, progress = head(), Recorded([1, 2])
    with torch.no_grad():
        writing = masked.write(torch.zeros(2, 4), Sampling(), progress.generators, progress)
        drawn = finish(writing, lambda ask: ask.embeddings.tanh())
    assert drawn.isfinite().all()
    assert len(progress.history) == 4
    unknown = [values.isnan().any(-1) for values in progress.history]
    # The cosine schedule of 9 cells: what is left behind each of four steps.
    assert [each.sum(1).tolist() for each in unknown] == [[8, 8], [6, 6], [3, 3], [0, 0]]
    for before, after in zip(progress.history, progress.history[1:], strict=False):
        known = ~before.isnan()
        assert torch.equal(before[known], after[known])
    assert not torch.equal(unknown[1][0], unknown[1][1])  # each image in its own order


def test_without_generators_cells_follow_row_by_row():
    masked, progress = head(), Recorded([0])
    with torch.no_grad():
        finish(
            masked.write(torch.zeros(1, 4), Sampling(temperature=0), None, progress), lambda a: a.embeddings
        )
    assert progress.history[2][0].isnan().any(-1).tolist() == [False] * 6 + [True] * 3


@pytest.mark.parametrize("type_", ["flow", "diffusion"])
def test_stopped_between_passes_it_goes_on(type_):
    spec = {"type": "masked", "steps": 4, "alphabet": {"type": type_, "steps": 3, "depth": 1, "hidden": 8}}
    masked = build_head(spec, HeadContext(4, SPACE, Vocabulary(4)))

    def drawn(progress):
        with torch.no_grad():
            writing = masked.write(torch.zeros(2, 4), Sampling(), progress.restored(), progress)
            return finish(writing, lambda ask: ask.embeddings.tanh())

    stopped = Recorded([1, 2], stop=2)
    with pytest.raises(KeyboardInterrupt):
        drawn(stopped)
    stopped.stop = None
    assert torch.equal(drawn(stopped), drawn(Recorded([1, 2])))


def test_guided_rows_read_the_same_and_count_as_one_image():
    masked = head()

    def read(ask):
        assert torch.equal(*ask.embeddings.chunk(2))
        return ask.embeddings

    with torch.no_grad():
        drawn = finish(masked.write(torch.zeros(2, 4), Sampling(guidance=2.0), Generators([1])), read)
    assert drawn.shape == (1, 3, 3, 2)
