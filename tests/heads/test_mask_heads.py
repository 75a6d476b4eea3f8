"""Mask heads: which mask answers to which query, and what an answer of no mask is."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.heads.masks.seg_codebook import claimed
from chiasm.heads.segmentation import MaskContext
from chiasm.nn.mask_losses import cross_entropy_each, dice_each, matched, resized

LEVELS = (8, 16, 32)


@pytest.fixture(scope="module", params=["mask2former", "seg_token", "seg_codebook"])
def head(request):
    torch.manual_seed(0)
    part = parts.lookup("mask_head", request.param)
    return parts.build("mask_head", {"type": request.param, **part.example()}, MaskContext(12, LEVELS))


def states(head, count):
    torch.manual_seed(1)
    pyramid = [torch.randn(count, 8 >> i, 8 >> i, width) for i, width in enumerate(LEVELS)]
    return torch.randn(count, head.positions, 12), pyramid, torch.randn(count, 12)


def squares(count):
    masks = torch.zeros(count, 32, 32, dtype=torch.bool)
    for i in range(count):
        masks[i, 8 * i : 8 * i + 8, :16] = True
    return masks


def test_each_target_is_matched_with_the_query_that_is_most_like_it():
    wanted = resized(squares(3), (8, 8))
    logits = torch.full((5, 8, 8), -4.0)
    logits[[4, 0, 2]] += 8 * wanted
    chosen, answered = matched(logits, wanted, cross_entropy=1.0, dice=1.0)
    assert dict(zip(answered.tolist(), chosen.tolist())) == {0: 4, 1: 0, 2: 2}
    assert (dice_each(logits[chosen], wanted[answered]) < 0.1).all()


def test_losses_of_masks_are_those_of_their_definition():
    logits, targets = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[0.0, 1.0]]])
    shares = logits.sigmoid()
    expected = -(torch.log(1 - shares[0, 0, 0]) + torch.log(shares[0, 0, 1])) / 2
    torch.testing.assert_close(cross_entropy_each(logits, targets), expected[None])
    dice = 1 - (2 * shares[0, 0, 1] + 1) / (shares.sum() + 1 + 1)
    torch.testing.assert_close(dice_each(logits, targets), dice[None])


def test_a_mask_is_resized_to_the_share_of_each_cell_that_it_covers():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2, 1:] = True
    assert resized(mask, (2, 2)).tolist() == [[[0.5, 1.0], [0.0, 0.0]]]


def test_terms_of_losses_are_known_beforehand(head):
    targets = [squares(2), squares(0), squares(4)]
    losses = head.losses(*states(head, 3), targets)
    counted = {name: float(loss.count) for name, loss in losses.items()}
    assert counted == head.terms([2, 0, 4])
    assert all(torch.isfinite(loss.sum) for loss in losses.values())


def test_a_question_to_which_nothing_is_the_answer_lowers_all_scores(head):
    inputs = states(head, 1)
    losses = head.losses(*inputs, [squares(0)])
    gradients = torch.autograd.grad(losses["mask_score"].sum, list(head.parameters()), allow_unused=True)
    before = head.predict(*inputs).scores
    with torch.no_grad():
        for parameter, gradient in zip(head.parameters(), gradients, strict=True):
            parameter.sub_(0.01 * gradient if gradient is not None else 0.0)
    assert head.predict(*inputs).scores.sum() < before.sum()


def test_a_head_learns_the_masks_of_a_question(head):
    inputs, targets = states(head, 1), [squares(2)]
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        total = sum(loss.mean * loss.weight for loss in head.losses(*inputs, targets).values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_levels_that_do_not_suffice_are_a_sentence():
    example = parts.lookup("mask_head", "mask2former").example()
    with pytest.raises(RecipeError, match="the encoder, which has 1"):
        parts.build("mask_head", {"type": "mask2former", **example}, MaskContext(12, (8,)))
    with pytest.raises(RecipeError, match="looks at 3 levels, but has 1 attended and 1 fused"):
        parts.build("mask_head", {"type": "mask2former", **example, "attended": 1}, MaskContext(12, LEVELS))


def test_a_codebook_writes_each_target_with_its_own_tokens():
    """What stands at one target's positions changes its mask alone."""
    torch.manual_seed(0)
    example = {"type": "seg_codebook", **parts.lookup("mask_head", "seg_codebook").example()}
    head = parts.build("mask_head", example, MaskContext(12, LEVELS)).eval()
    hidden, pyramid, question = states(head, 1)
    assert head.positions == 3 * len(LEVELS) * 2 == len(head.embeddings())
    before = head.predict(hidden, pyramid, question)
    hidden[:, len(LEVELS) * 2 : 2 * len(LEVELS) * 2] += 1
    after = head.predict(hidden, pyramid, question)
    same = [torch.equal(before.masks[:, i], after.masks[:, i]) for i in range(3)]
    assert same == [True, False, True]
    assert (before.scores != after.scores).tolist() == [[False, True, False]]


@torch.no_grad()
def test_a_mask_is_the_product_of_query_and_features_over_the_root_of_their_width(monkeypatch):
    torch.manual_seed(0)
    token, codebook = (
        parts.build(
            "mask_head", {"type": name, **parts.lookup("mask_head", name).example()}, MaskContext(12, LEVELS)
        )
        for name in ("seg_token", "seg_codebook")
    )
    hidden, pyramid, question = states(token, 2)
    features = token._features(pyramid)
    expected = (token.query(hidden)[..., None, None] * features[:, None]).sum(2) / 4
    torch.testing.assert_close(token.predict(hidden, pyramid, question).masks, expected)
    codebook.query[1][2].weight.zero_()
    codebook.query[1][2].bias.fill_(1.0)
    monkeypatch.setattr(codebook.blocks[1], "forward", lambda token, *_: (token, torch.ones(2, 16, 16)))
    monkeypatch.setattr(codebook.doublings[1], "forward", lambda grid: grid)
    mask, _ = codebook._at_scale(1, torch.randn(2, 1, 16), torch.randn(2, 4, 4, 16))
    torch.testing.assert_close(mask, torch.full((2, 1, 4, 4), 16 / 4))


def test_by_default_mask2former_has_its_published_sizes():
    with torch.device("meta"):
        head = parts.build("mask_head", {"type": "mask2former"}, MaskContext(12, (8, 16, 32, 64)))
    assert head.embeddings().shape == (100, 12)
    assert (len(head.pixel_decoder.layers), len(head.decoder.layers)) == (6, 9)
    hidden = [layers[0].mlp[0].out_features for layers in (head.pixel_decoder.layers, head.decoder.layers)]
    assert hidden == [1024, 2048]
    assert head.decoder.layers[0].heads == 8
    assert head.pixel_decoder.mask_features.weight.shape[:2] == (256, 256)


def test_pixels_that_several_targets_claim_weigh_more():
    logits = torch.tensor([[[1.0, 1.0, -1.0]], [[1.0, -1.0, -1.0]], [[-1.0, -1.0, -1.0]]])
    assert claimed(logits, 2.0).tolist() == [[2.0, 1.0, 1.0]]
