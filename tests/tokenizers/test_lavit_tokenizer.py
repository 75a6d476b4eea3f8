"""LaVIT's tokenizer: how many codes a picture gets, what they carry, what learns."""

import pytest
import torch

from chiasm import parts
from chiasm.connectors.selection import WeightedAttention, best, expected, gumbel, sampled
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers.lavit import LaVITTokenizer


def tokenizer(**options):
    torch.manual_seed(1)
    return parts.build("image_tokenizer", {"type": "lavit", **LaVITTokenizer.example(), **options}).eval()


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
    kept = sampled(scores, gumbel(scores, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(kept.mean(0), torch.tensor([0.3, 0.9]), atol=0.02, rtol=0)


def test_the_choice_is_hard_and_its_gradient_soft():
    scores = chances([0.4, 0.2, 0.8, 0.1]).requires_grad_()
    kept = best(scores, 2)
    kept.sum().backward()
    assert set(kept.tolist()[0]) == {0.0, 1.0}
    assert bool((scores.grad[..., 0] != 0).all())


def test_keys_that_do_not_count_are_not_seen():
    torch.manual_seed(0)
    attention, x, source = WeightedAttention(8, 2), torch.randn(1, 3, 8), torch.randn(1, 4, 8)
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


def prepared(**options):
    """A tokenizer whose codes are near its latents, and what it makes of the pictures without chance."""
    made = tokenizer(**options)
    with torch.no_grad():
        seen = made.select(PICTURES)
        latents = torch.nn.functional.normalize(seen.latents.flatten(0, 1)[:16], dim=-1)
        made.quantizer.vectors.copy_(latents + 0.1 * torch.randn(16, 8)[:, :1])
    return made, seen


def test_its_losses_are_means_over_features_pictures_and_kept_patches():
    made, seen = prepared(keep=0.4, commitment=0.125, foreground=3.0)
    kept, vectors, distances = seen.kept > 0.5, torch.zeros(3, 16, 8), torch.zeros(3, 16)
    for picture, place in kept.nonzero().tolist():
        direction = seen.latents[picture, place] / seen.latents[picture, place].norm()
        gaps = (made.quantizer.vectors - direction).square().sum(-1)
        vectors[picture, place] = made.quantizer.vectors[gaps.argmin()]
        distances[picture, place] = gaps.min() / 8
    rebuilt = made.detokenizer(vectors, seen.kept)
    losses = made.losses(PICTURES)
    cosine = (rebuilt * seen.features).sum(-1) / (rebuilt.norm(dim=-1) * seen.features.norm(dim=-1))
    counts = kept.sum(1)
    expected = {
        "reconstruction": ((1 - cosine).sum(), 48, 1.0),
        "keep": ((0.4 - counts / 16).square().sum(), 3, 2.0),
        "commitment": ((distances.sum(1) / counts).sum(), 3, 0.125),
        "pixels": (made.painter.loss(made.painter(rebuilt), PICTURES, 3.0).sum, PICTURES.numel(), 1.0),
    }
    assert counts.min() < 16
    assert losses.keys() == expected.keys()
    for name, (total, count, weight) in expected.items():
        torch.testing.assert_close(losses[name].sum, total, rtol=1e-4, atol=1e-5, msg=name)
        assert (float(losses[name].count), losses[name].weight) == (count, weight), name


def test_nothing_kept_is_no_commitment_and_no_division_by_nothing():
    made, _ = prepared()
    select = made.select
    made.select = lambda *args: (seen := select(*args))._replace(kept=torch.zeros_like(seen.kept))
    assert float(made.losses(PICTURES)["commitment"].sum.detach()) == 0


def test_the_share_of_kept_patches_is_a_moving_average_over_steps_in_training():
    made = tokenizer(keep=0.5, decay=0.75).train()
    assert made.health()["kept"] == 0.5
    shares = []
    for size in (2, 1):
        made.losses(PICTURES[:size])
        shares += [float(each) for part in made._shares[-1:] for each in part]
    after_step(made)
    assert len(shares) == 3
    first = 0.75 * 0.5 + 0.25 * sum(shares) / 3
    assert made.health()["kept"] == pytest.approx(first)
    after_step(made)
    made.losses(PICTURES)
    made.forget()
    after_step(made)
    made.eval().losses(PICTURES)
    after_step(made)
    assert made.health()["kept"] == pytest.approx(first)
    assert "share" not in made.state_dict()


def test_in_training_every_picture_keeps_a_patch_and_elsewhere_the_noise_decides():
    made, drop = tokenizer(), torch.zeros(3, 16, 2)
    drop[..., 1] = 50.0
    assert made.select(PICTURES, drop).kept.sum(1).tolist() == [0, 0, 0]
    assert made.train().select(PICTURES, drop).kept.sum(1).tolist() == [1, 1, 1]


def test_what_a_frozen_encoder_sees_is_merged_and_bent_into_codes():
    made, seen = prepared()
    with torch.no_grad():
        features = made.encoder(PICTURES).flatten(1, 2)
    torch.testing.assert_close(seen.features, features)
    torch.testing.assert_close(seen.scores.exp().sum(-1), torch.ones(3, 16))
    first, last = made.to_code[0], made.to_code[2]
    torch.testing.assert_close(seen.latents, last(torch.tanh(first(seen.merged))))
    assert first.weight.shape == (16, 16)
    codes = made.encode(PICTURES)[:, 0]
    for row, own, kept in zip(codes, seen.latents, seen.kept > 0.5, strict=True):
        directions = own[kept] / own[kept].norm(dim=-1, keepdim=True)
        expected = torch.cdist(directions, made.quantizer.vectors).argmin(-1)
        assert torch.equal(row[: len(expected)], expected)


def test_places_are_told_only_where_asked_for():
    assert not any("positions.table" in name for name in tokenizer().state_dict())
    made = tokenizer(positions=True)
    assert made.positions.table.shape == (4, 4, 16)
    assert not torch.equal(made.select(PICTURES).merged, tokenizer().select(PICTURES).merged)


def test_the_encoder_stays_frozen_and_in_evaluation_mode():
    made = tokenizer()
    made.requires_grad_(True).train()
    assert not any(p.requires_grad for p in made.encoder.parameters())
    assert all(p.requires_grad for p in made.merger.parameters())
    assert (made.training, made.merger.training, made.encoder.training) == (True, True, False)
    assert not any(p.requires_grad for p in made.requires_grad_(False).parameters())
    assert not made.eval().merger.training


def test_sizes_follow_from_the_encoders_grid_and_the_options():
    made = tokenizer()
    assert (made.grid, made.codebook_size, made.end, made.codebooks) == ((1, 16), 17, 16, 1)
    assert (tokenizer(most=99).grid, tokenizer(most=1).grid) == ((1, 16), (1, 1))
    assert tokenizer(decoder_width=8).detokenizer.queries.shape == (16, 8)
    assert made.detokenizer.queries.shape == (16, 16)
    quantizer = tokenizer(settle=7, revive_after=3, decay=0.5).quantizer
    assert (quantizer.settle, quantizer.revive_after, quantizer.decay, quantizer.cosine) == (7, 3, 0.5, True)
    for options in ({"heads": 3}, {"decoder_width": 9}):
        with pytest.raises(
            RecipeError, match="heads must divide the encoder's 16 channels and the decoder's"
        ):
            tokenizer(**options)


def test_the_end_is_a_code_and_what_stands_behind_it_means_nothing():
    made, _ = prepared()
    codes = torch.full((2, 1, 16), 16)
    codes[0, 0, :3] = torch.tensor([0, 15, 4])
    codes[1, 0, 5] = 7
    vectors, before = made.vectors(codes)
    assert before.tolist() == [[1.0] * 3 + [0.0] * 13, [0.0] * 16]
    assert torch.equal(vectors[0, :3], made.quantizer.vectors[[0, 15, 4]])
    assert made.vectors(codes[:0])[0].shape == (0, 16, 8)
    codes[0, 0, 1] = -1
    with pytest.raises(
        ChiasmError, match=r"codes from -1 to 16 .* of 16 codes \(0 to 15, and 16 for the end\)"
    ):
        made.vectors(codes)
    assert made.decode(codes.clamp(min=0)).shape == (2, 3, 32, 32)


def test_what_is_painted_beyond_black_and_white_is_black_and_white(monkeypatch):
    made, _ = prepared()
    monkeypatch.setattr(made.painter, "forward", lambda features: torch.tensor([-0.5, 0.5, 1.5]))
    assert made.decode(torch.zeros(1, 1, 16, dtype=torch.long)).tolist() == [0.0, 0.5, 1.0]


def test_without_a_decoder_it_neither_learns_nor_paints():
    made = tokenizer(decoder_depth=0, painter=None)
    assert made.encode(PICTURES).shape == (3, 1, 16)
    with pytest.raises(ChiasmError, match="without a decoder cannot learn"):
        made.losses(PICTURES)
    assert set(tokenizer(painter=None).losses(PICTURES)) == {"reconstruction", "keep", "commitment"}


def test_what_it_was_built_with_can_be_told_whole():
    assert tokenizer().standalone()["encoder"]["type"] == "vit"
