"""All positions of an image denoised together, with the language model as the network."""

import pytest
import torch
from einops import rearrange
from torch import nn
from writing import Recorded, Vocabulary

from chiasm.errors import RecipeError
from chiasm.heads import HeadContext, Sampling, finish
from chiasm.heads.building import build_head
from chiasm.nn.generators import Generators
from chiasm.tokenizers.spaces import Vectors

SPACE = Vectors((4, 4), 2)
LINEAR = {"type": "flow", "depth": 0, "steps": 5}


def head(**options):
    spec = {"type": "whole", "patch": 2, "alphabet": LINEAR, **options}
    return build_head(spec, HeadContext(8, SPACE, Vocabulary(8)))


def passing(whole):
    """The head with an alphabet that takes hidden states for velocities."""
    whole.alphabet.network.output = nn.Identity()
    return whole


def patches(values):
    return rearrange(values, "n (gh p) (gw q) c -> n (gh gw) (p q c)", p=2, q=2)


def test_an_image_is_one_block_that_nothing_behind_it_sees():
    layout = head().layout()
    assert layout.opens == (True, False, False, False)
    assert layout.exposed == (False,) * 4
    assert head().read_layout().exposed == (True,) * 4
    assert layout.rows == (0, 1, 2, 3)


def test_its_targets_are_velocities_at_random_times():
    whole = passing(head())
    target = torch.randn(3, 4, 4, 2)
    torch.manual_seed(1)
    span = whole.prepare(target)
    noisy = span.drawn
    # On the line from noise to values: x = noise + t v, values = noise + v.
    times = noisy.times[:, None, None, None]
    torch.testing.assert_close(noisy.values + (1 - times) * span.targets, target)
    assert len(set(noisy.times.tolist())) == 3
    loss = whole.losses(patches(span.targets), span)["image"]
    assert loss.sum < 1e-8
    assert loss.count == 12
    off = whole.losses(patches(span.targets) + 2, span)["image"]
    torch.testing.assert_close(off.mean, torch.tensor(4.0))


def test_true_velocities_lead_to_the_image_in_as_many_passes_as_steps():
    whole = passing(head())
    target, asks = torch.randn(2, 4, 4, 2), []
    noise = Generators([3, 4]).normal(4, 4, 2)

    def read(ask):
        asks.append(ask)
        return patches(target - noise)

    with torch.no_grad():
        drawn = finish(whole.write(torch.zeros(2, 8), Sampling(), Generators([3, 4])), read)
    torch.testing.assert_close(drawn, target)
    assert len(asks) == 5
    assert not any(ask.keep for ask in asks)


def test_guidance_acts_on_velocities():
    whole = passing(head())
    with_prompt, without = torch.randn(1, 4, 8), torch.randn(1, 4, 8)

    def read(ask):
        assert torch.equal(*ask.embeddings.chunk(2))
        return torch.cat([with_prompt, without])

    with torch.no_grad():
        drawn = finish(whole.write(torch.zeros(2, 8), Sampling(guidance=3.0, temperature=0)), read)
    torch.testing.assert_close(patches(drawn), without + 3 * (with_prompt - without))


@pytest.mark.parametrize("alphabet", ["flow", "diffusion"])
def test_stopped_between_steps_it_goes_on(alphabet):
    spec = {"type": alphabet, "depth": 1, "hidden": 8, "steps": 6}
    whole = head(alphabet=spec)
    for parameter in whole.parameters():
        nn.init.normal_(parameter, std=0.3)

    def drawn(progress):
        with torch.no_grad():
            writing = whole.write(torch.zeros(2, 8), Sampling(), progress.restored(), progress)
            return finish(writing, lambda ask: ask.embeddings.tanh())

    stopped = Recorded([1, 2], stop=3)
    with pytest.raises(KeyboardInterrupt):
        drawn(stopped)
    stopped.stop = None
    assert torch.equal(drawn(stopped), drawn(Recorded([1, 2])))


def test_an_image_that_is_looked_at_has_no_noise():
    whole = head()
    target = torch.randn(1, 4, 4, 2)
    expected = whole.input(patches(target)) + whole.cells.weight + whole.time(torch.ones(1))[:, None]
    torch.testing.assert_close(whole.embed_read(target), expected)


def test_what_does_not_fit_is_a_sentence():
    with pytest.raises(
        RecipeError, match="order 'whole' takes no alphabet 'regression': use alphabet 'diffusion' or 'flow'"
    ):
        head(alphabet={"type": "regression"})
    with pytest.raises(RecipeError, match="4 x 4 vectors cannot be cut into squares of 3"):
        head(patch=3)
