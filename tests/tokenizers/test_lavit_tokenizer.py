"""LaVIT's tokenizer: how many codes a picture gets, what they carry, what learns."""

import pytest
import torch

from chiasm import parts
from chiasm.connectors.selection import Attention, best, drawn, expected, gumbel
from chiasm.errors import ChiasmError, RecipeError
from chiasm.stepwise import after_step
from test_contracts import SMALL_LAVIT


def tokenizer(**options):
    torch.manual_seed(1)
    return parts.build("image_tokenizer", {"type": "lavit", **SMALL_LAVIT, "painter": 16, **options}).eval()


PICTURES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def chances(*rows):
    kept = torch.tensor(rows)
    return torch.stack([kept, 1 - kept], -1).log()


def test_as_many_patches_are_kept_as_the_chances_add_up_to():
    scores = chances([0.9, 0.2, 0.8, 0.1], [0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.9, 0.9])
    assert expected(scores, most=3).tolist() == [[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0]]


def test_a_fixed_share_takes_the_best():
    assert best(chances([0.4, 0.2, 0.8, 0.1]), 2).tolist() == [[1, 0, 1, 0]]


def test_chance_keeps_patches_as_often_as_their_scores_say():
    scores = chances([0.3, 0.9]).expand(20_000, 2, 2)
    kept = drawn(scores, gumbel(scores, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(kept.mean(0), torch.tensor([0.3, 0.9]), atol=0.02, rtol=0)


def test_the_choice_is_hard_and_its_gradient_soft():
    scores = chances([0.4, 0.2, 0.8, 0.1]).requires_grad_()
    kept = best(scores, 2)
    kept.sum().backward()
    assert set(kept.tolist()[0]) == {0.0, 1.0}
    assert bool((scores.grad[..., 0] != 0).all())


def test_keys_that_do_not_count_are_not_seen():
    torch.manual_seed(0)
    attention, x, source = Attention(8, 2), torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    counts = torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])
    alone = attention(x, source[:, ::2])
    torch.testing.assert_close(attention(x, source, counts), alone, atol=1e-6, rtol=1e-5)


def test_a_row_of_codes_is_filled_up_with_the_end():
    made = tokenizer()
    codes = made.encode(PICTURES)
    assert codes.shape == (3, 1, 16)
    kept = made.select(PICTURES).kept.sum(1).long().tolist()
    for row, count in zip(codes[:, 0].tolist(), kept, strict=True):
        assert max(row[:count]) < made.end
        assert set(row[count:]) == {made.end}


def test_noise_decides_how_many_codes_a_picture_gets():
    made = tokenizer()
    noise = torch.zeros(3, 16, 2)
    noise[0, :2, 0], noise[0, 2:, 1] = 50.0, 50.0
    noise[1, ..., 0], noise[2, ..., 1] = 50.0, 50.0
    codes = made.encode(PICTURES, noise)
    assert (codes != made.end).sum((1, 2)).tolist() == [2, 16, 0]


def test_no_picture_has_more_codes_than_the_most():
    made = tokenizer(most=4)
    assert made.grid == (1, 4)
    noise = torch.zeros(3, 16, 2)
    noise[..., 0] = 50.0
    assert (made.encode(PICTURES, noise) != made.end).sum((1, 2)).tolist() == [4, 4, 4]


def test_without_noise_the_codes_are_always_the_same():
    made = tokenizer()
    assert torch.equal(made.encode(PICTURES), made.encode(PICTURES))


def test_the_codes_alone_rebuild_what_training_rebuilds():
    made = tokenizer()
    seen = made.select(PICTURES)
    kept = seen.kept > 0.5
    vectors = torch.zeros_like(seen.latents)
    vectors[kept] = made.quantizer.vectors[made.quantizer.encode(seen.latents[kept])]
    in_training = made.detokenizer(vectors, seen.kept)
    from_codes = made.detokenizer(*made.vectors(made.encode(PICTURES)))
    torch.testing.assert_close(in_training, from_codes, atol=1e-5, rtol=1e-4)


def test_training_lowers_what_it_minimises_and_leaves_the_encoder():
    made = tokenizer(settle=5)
    made.requires_grad_(True).train()
    before = {name: tensor.clone() for name, tensor in made.encoder.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=3e-3)
    means = []
    for _ in range(40):
        losses = made.losses(PICTURES)
        optimiser.zero_grad()
        sum(each.weight * each.mean for each in losses.values()).backward()
        optimiser.step()
        after_step(made)
        means.append(losses["reconstruction"].mean.item())
    assert means[-1] < 0.7 * means[0]
    assert all(torch.equal(tensor, made.encoder.state_dict()[name]) for name, tensor in before.items())
    assert {"codebook_use", "perplexity", "revived", "kept"} == set(made.health())


def test_without_a_painter_it_is_said_what_draws():
    made = tokenizer(painter=None)
    with pytest.raises(ChiasmError, match="image_decoder 'lavit_diffusion'"):
        made.decode(made.encode(PICTURES))


def test_a_painter_needs_features():
    with pytest.raises(RecipeError, match="set decoder_depth"):
        tokenizer(decoder_depth=0)


def test_codes_of_another_tokenizer_are_refused():
    made = tokenizer()
    with pytest.raises(ChiasmError, match="given to a tokenizer of grid"):
        made.decode(torch.zeros(1, 4, 4, dtype=torch.long))
    with pytest.raises(ChiasmError, match="codes from 0 to 17"):
        made.decode(torch.full((1, 1, 16), 17) * torch.eye(16, dtype=torch.long)[None, :1])


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ChiasmError, match="pictures of shape"):
        tokenizer().encode(torch.zeros(1, 3, 16, 16))
