"""JanusFlow's order: what is learnt, how an image is drawn, and what is refused."""

from contextlib import suppress

import pytest
import torch

from chiasm.errors import ChiasmError, RecipeError
from chiasm.heads import DrawingState, HeadContext, Sampling, finish
from chiasm.heads.building import build_head
from chiasm.heads.u_vit import LAST
from chiasm.nn.generators import Generators
from chiasm.tokenizers.spaces import Vectors

WIDTH = 16
SPACE = Vectors((8, 8), 5)
SPEC = {"type": "u_vit", "alphabet": {"type": "regression", "depth": 0}, "width": 8, "depth": 1, "steps": 4}


def head(**options):
    torch.manual_seed(0)
    return build_head({**SPEC, **options}, HeadContext(WIDTH, SPACE, None)).eval()


def as_read(ask):
    """A language model that says what it reads."""
    return ask.embeddings


PLAIN = Sampling()


def drawn(order, seeds, sampling=PLAIN, read=as_read):
    rows = len(seeds) * (1 if sampling.guidance == 1 else 2)
    with torch.no_grad():
        return finish(order.write(torch.zeros(rows, WIDTH), sampling, Generators(seeds)), read)


def test_an_image_is_its_time_and_a_position_for_each_square_of_latents():
    layout = head().layout()
    assert layout.length == 1 + 4 * 4
    assert layout.rows == tuple(range(1, 17))
    assert all(layout.opens)
    assert layout.coordinates[0] == (0, 0, 0)
    assert layout.coordinates[-1] == (16, 3, 3)
    assert head(stride=4).layout().length == 1 + 2 * 2


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_drawing_has_as_many_latents_as_the_space_whatever_square_of_them_a_position_is(stride):
    assert drawn(head(stride=stride), [3]).shape == (1, 8, 8, 5)


def test_the_target_is_the_way_from_noise_to_image_wherever_on_it_the_image_is():
    order = head()
    image, noise = torch.randn(2, 1, 8, 8, 5)
    early, late = (order.between(image, noise, torch.tensor([time])) for time in (0.0, 1.0))
    assert torch.equal(early.targets, image - noise)
    assert torch.equal(late.targets, image - noise)
    assert torch.equal(early.embeddings, order.embed(order.encoder(noise, torch.zeros(1))))
    assert torch.equal(late.embeddings, order.embed(order.encoder(image, torch.tensor([LAST]))))


def test_the_loss_of_the_true_velocity_is_zero():
    order = head()
    span = order.between(*torch.randn(2, 3, 8, 8, 5), torch.rand(3))
    hidden = torch.randn(3, 16, WIDTH)
    span = span._replace(targets=order.spoken(hidden, span.drawn))
    assert order.losses(hidden, span)["image"].mean.item() == pytest.approx(0, abs=1e-9)


def test_a_drawing_follows_the_velocity_from_its_noise_in_equal_steps(monkeypatch):
    order, times = head(), []
    constant = torch.full((1, 8, 8, 5), 3.0)
    monkeypatch.setattr(order, "spoken", lambda hidden, noisy: constant)
    encoder = order.encoder.forward
    monkeypatch.setattr(
        order.encoder, "forward", lambda latents, at: times.append(float(at[0])) or encoder(latents, at)
    )
    noise = Generators([7]).normal(8, 8, 5)
    torch.testing.assert_close(drawn(order, [7]), noise + 3.0)
    assert times == [0.0, 250.0, 500.0, 750.0]


def test_cells_are_told_apart_by_an_embedding_of_their_own_where_that_is_wanted():
    order = head(cells=True)
    noisy = order.encoder(torch.zeros(2, 8, 8, 5), torch.zeros(2))
    without = head().embed(noisy)
    added = order.embed(noisy) - without
    assert torch.equal(added[:, 0], torch.zeros(2, WIDTH))  # the time stands in no cell
    torch.testing.assert_close(added[0, 1:], order.cells.weight)
    torch.testing.assert_close(added[0], added[1])


def test_a_shift_moves_steps_and_times_of_learning_toward_the_noise(monkeypatch):
    order, times = head(shift=3.0), []
    encoder = order.encoder.forward
    monkeypatch.setattr(
        order.encoder, "forward", lambda latents, at: times.append(at.tolist()) or encoder(latents, at)
    )
    drawn(order, [7])
    shares = [1 - steps / 4 for steps in range(4)]  # of noise, without a shift
    shifted = [3 * share / (1 + 2 * share) for share in shares]
    assert [time for (time,) in times] == pytest.approx([LAST * (1 - share) for share in shifted])
    order.prepare(torch.randn(200, 8, 8, 5))
    early = sum(time < LAST / 4 for time in times[-1])  # a shift of 3 makes a quarter of the half
    assert early / 200 == pytest.approx(0.5, abs=0.15)


def test_whoever_predicts_the_image_itself_learns_it_and_draws_it_from_any_noise(monkeypatch):
    order = head(predicts="x")
    image, noise = torch.randn(2, 1, 8, 8, 5)
    assert torch.equal(order.between(image, noise, torch.rand(1)).targets, image)
    monkeypatch.setattr(order, "spoken", lambda hidden, noisy: image)
    torch.testing.assert_close(drawn(order, [7]), image, rtol=1e-4, atol=1e-5)


def test_an_image_depends_on_its_own_seed_alone():
    order = head()
    both, alone = drawn(order, [4, 9]), drawn(order, [9])
    torch.testing.assert_close(both[1:], alone)
    assert not torch.allclose(both[:1], alone)


@torch.no_grad()
def test_a_drawing_that_was_stopped_goes_on_to_the_same_image():
    order, progress = head(), DrawingState(Generators([5]))

    def stops(ask):
        if progress.steps == 2:
            raise KeyboardInterrupt
        return ask.embeddings

    for read in (stops, as_read):
        writing = order.write(torch.zeros(1, WIDTH), PLAIN, progress.restored(), progress)
        with suppress(KeyboardInterrupt):
            image = finish(writing, read)
    assert progress.steps == 4
    assert torch.equal(image, drawn(order, [5]))


def test_guidance_leads_from_the_velocity_without_a_prompt_to_that_with_it():
    order = head()

    def read(ask):
        prompted, bare = ask.embeddings.chunk(2)
        return torch.cat([prompted + 1, bare])

    plain = drawn(order, [3], read=lambda ask: ask.embeddings + 1)
    torch.testing.assert_close(
        drawn(order, [3], Sampling(guidance=2.0), lambda ask: ask.embeddings + 1), plain
    )
    assert not torch.allclose(drawn(order, [3], Sampling(guidance=2.0), read), plain)


def test_without_warmth_every_drawing_begins_at_zero_and_needs_no_seed():
    order, cold = head(), Sampling(temperature=0.0)
    assert torch.equal(drawn(order, [1], cold), drawn(order, [2], cold))
    with pytest.raises(ChiasmError, match="needs generators, one for each image"):
        finish(order.write(torch.zeros(1, WIDTH), Sampling()), as_read)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"stride": 3}, "has stride 3; it must be 2, 4, 8"),
        ({"stride": 16}, "which must be 0.5 x 0.5"),
        ({"kernel": 5, "padding": 0}, "make 2 x 2 positions of 8 x 8 latents, which must be 4 x 4"),
    ],
)
def test_networks_that_do_not_fit_the_latents_are_refused(options, problem):
    with pytest.raises(RecipeError, match=problem):
        head(**options)
