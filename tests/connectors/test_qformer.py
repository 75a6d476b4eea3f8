"""The Q-Former, and the three losses of its first stage."""

import pytest
import torch

from chiasm import parts
from chiasm.connectors.qformer_stage1 import Stage1, _sample_negatives
from chiasm.errors import RecipeError

SIZES = {"queries": 3, "width": 8, "depth": 3, "heads": 2, "hidden": 16}


def qformer(**options):
    return parts.build("connector", {"type": "qformer", **SIZES, **options}, 6, 10)


def stage(**options):
    torch.manual_seed(0)
    made = Stage1(6, vocabulary=20, context=7, shared=4, begin=1, **SIZES, **options)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        made.temperature.fill_(0.5)
    return made.eval()


def test_queries_look_at_the_features_in_the_first_of_every_two_blocks():
    assert [block.cross is not None for block in qformer().trunk.blocks] == [True, False, True]
    assert [block.cross is not None for block in qformer(cross_every=3).trunk.blocks] == [True, False, False]


def test_there_are_as_many_tokens_as_queries_whatever_the_grid():
    assert qformer().tokens((4, 4)) == qformer().tokens((1, 9)) == 3


def test_the_order_of_the_features_does_not_matter():
    part, grid = qformer().eval(), torch.rand(2, 1, 5, 6)
    torch.testing.assert_close(part(grid), part(grid.flip(2)))


def test_a_projected_one_reads_the_features_in_its_own_width():
    part, grid = qformer(projected=True).eval(), torch.rand(2, 1, 5, 6)
    assert part.trunk.blocks[0].cross.key.in_features == 8
    features = part.input(grid.flatten(1, 2))
    torch.testing.assert_close(part(grid), part.out(part.trunk(part.queries.expand(2, -1, -1), features)))


def test_features_that_are_not_shown_change_nothing():
    part, features = qformer().eval(), torch.rand(2, 5, 6)
    queries = part.queries.expand(2, -1, -1)
    shown = torch.tensor([[True] * 4 + [False]] * 2)
    torch.testing.assert_close(
        part.trunk(queries, features, feature_mask=shown), part.trunk(queries, features[:, :4])
    )


def test_heads_must_divide_the_width():
    with pytest.raises(RecipeError, match="3 heads do not divide the width 8"):
        qformer(heads=3)


def test_a_caption_sees_the_picture_and_earlier_words_only():
    made, features = stage(), torch.rand(1, 4, 6)
    ids = torch.tensor([[1, 5, 9, 7]])
    other = torch.tensor([[1, 5, 9, 8]])
    torch.testing.assert_close(made.caption(features, ids)[:, :3], made.caption(features, other)[:, :3])
    assert not torch.allclose(made.caption(features, ids)[:, :1], made.caption(features + 1, ids)[:, :1])


def test_texts_are_read_without_the_picture_and_without_padding():
    made, ids = stage(), torch.tensor([[2, 5, 9]])
    padded = torch.tensor([[2, 5, 9, 0, 0]])
    torch.testing.assert_close(made.read_texts(ids), made.read_texts(padded)[:, :3])


def test_the_losses_are_those_written_out_by_hand():
    made, grid = stage(), torch.rand(2, 1, 4, 6)
    ids = torch.tensor([[2, 5, 9, 0], [2, 7, 8, 3]])
    losses = made.losses(grid, ids)
    queries, texts = made.read_images(grid[:, 0]), made.read_texts(ids)[:, 0]
    pictures = torch.nn.functional.normalize(made.picture_out(queries), dim=-1)
    words = torch.nn.functional.normalize(made.text_out(texts), dim=-1)
    likeness = torch.tensor(
        [[max((q @ words[j]).item() for q in pictures[i]) for j in range(2)] for i in range(2)]
    )
    targets = torch.eye(2) * 0.9 + 0.05
    both = [-(targets * each.log_softmax(1)).sum(1) for each in (likeness / 0.5, likeness.T / 0.5)]
    torch.testing.assert_close(losses["contrastive"].mean, torch.cat(both).mean())
    features = grid[:, 0]
    right = made.match(features, ids).log_softmax(1)[:, 1]
    wrong = [made.match(features.flip(0), ids), made.match(features, ids.flip(0))]
    terms = torch.cat([right, *(each.log_softmax(1)[:, 0] for each in wrong)])
    torch.testing.assert_close(losses["matching"].mean, -terms.mean())
    assert losses["captioning"].count == 5  # three words of one text, two of the other


def test_every_parameter_of_the_stage_gets_a_gradient():
    made = stage()
    losses = made.losses(torch.rand(3, 1, 4, 6), torch.tensor([[2, 5, 9], [2, 7, 8], [2, 4, 0]]))
    torch.stack([loss.mean for loss in losses.values()]).sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None] == []


def test_a_wrong_pair_is_never_the_right_one():
    likeness = torch.eye(4) * 100
    for seed in range(20):
        drawn = _sample_negatives(likeness, torch.Generator().manual_seed(seed))
        assert (drawn != torch.arange(4)).all()


def test_the_connector_takes_over_what_the_stage_learnt():
    made, part, grid = stage(), qformer(), torch.rand(2, 2, 2, 6)
    made.hand_over(part)
    torch.testing.assert_close(part.ask(grid), made.read_images(grid.flatten(1, 2)))
