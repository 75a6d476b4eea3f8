"""Conditions in rows, and guidance between them."""

import pytest
import torch

from chiasm.decoders.conditions import Condition
from chiasm.decoders.guidance import Guidance


def condition(value, *, mask=None, source=None):
    """Two rows that hold one value everywhere."""
    return Condition(
        torch.full((2, 3, 4), value),
        None if mask is None else torch.full((2, 3), mask),
        {"text_embeds": torch.full((2, 5), value)},
        None if source is None else torch.full((2, 1, 2, 2), source),
    )


def test_conditions_are_stacked_row_behind_row():
    both = Condition.stacked([condition(0.0, mask=False), condition(1.0, mask=True)])
    assert both.tokens[:, 0, 0].tolist() == both.added["text_embeds"][:, 0].tolist() == [0, 0, 1, 1]
    assert both.mask[:, 0].tolist() == [False, False, True, True]
    assert both.source is None


def test_a_condition_is_replaced_row_by_row():
    chosen = torch.tensor([False, True])
    mixed = condition(1.0, mask=True, source=1.0).where(chosen, condition(0.0, mask=False, source=0.0))
    assert mixed.tokens[:, 0, 0].tolist() == mixed.source[:, 0, 0, 0].tolist() == [1, 0]
    assert mixed.added["text_embeds"][:, 0].tolist() == [1, 0]
    assert mixed.mask[:, 0].tolist() == [True, False]


def test_without_guidance_there_is_one_branch():
    assert len(Guidance(1.0).branches(condition(1.0), condition(0.0))) == 1
    assert len(Guidance(1.0, 1.0).branches(condition(1.0, source=1.0), condition(0.0))) == 1
    prediction = torch.randn(2, 4, 3, 3)
    assert Guidance(1.0).combined([prediction]) is prediction


def test_two_branches_lead_from_the_empty_condition_to_the_whole_one():
    without, whole = torch.randn(2, 2, 4, 3, 3)
    expected = without + 3.0 * (whole - without)
    torch.testing.assert_close(Guidance(3.0).combined([without, whole]), expected)


def test_three_branches_lead_to_the_source_and_to_the_whole_by_their_own_scales():
    """Formula 3 of InstructPix2Pix (arXiv 2211.09800)."""
    none, source, whole = torch.randn(3, 2, 4, 3, 3)
    expected = none + 1.5 * (source - none) + 7.5 * (whole - source)
    torch.testing.assert_close(Guidance(7.5, 1.5).combined([none, source, whole]), expected)
    branches = Guidance(7.5, 1.5).branches(condition(1.0, source=1.0), condition(0.0, source=1.0))
    assert [(float(each.tokens.mean()), float(each.source.mean())) for each in branches] == [
        (0, 0),
        (0, 1),
        (1, 1),
    ]


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_a_rescaled_prediction_has_a_deviation_nearer_to_the_conditional_ones(rescale):
    """Formula 15 and 16 of arXiv 2305.08891."""
    without, whole = torch.randn(2, 5, 4, 8, 8)
    plain = without + 9.0 * (whole - without)
    deviation = [each.flatten(1).std(1)[:, None, None, None] for each in (whole, plain)]
    expected = rescale * plain * deviation[0] / deviation[1] + (1 - rescale) * plain
    torch.testing.assert_close(Guidance(9.0, rescale=rescale).combined([without, whole]), expected)
