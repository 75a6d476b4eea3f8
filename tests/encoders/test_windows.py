"""Windows of an image: what each is seen as, updates of its own, and what crosses their edges."""

import pytest
import torch
from torch.nn import functional

from chiasm import parts
from chiasm.encoders.window_crossing import WindowCrossing
from chiasm.errors import RecipeError

INNER = {"type": "qwen_vl", "patch_size": 4, "width": 8, "depth": 2, "heads": 2, "hidden": 12, "side": 2,
         "out_width": 8, "pool_heads": 2, "table": 4}  # fmt: skip
CROSSED = {"crossings": [1], "crossing_widths": [8], "crossing_heads": [2], "crossing_window": 3,
           "crossing_side": 8}  # fmt: skip


def windows(**options):
    torch.manual_seed(0)
    return parts.build("encoder", {"type": "windows", "encoder": INNER, "window": 16, **options}).eval()


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"updates": 6}, {"crossings": [], "updates": 1}])
def test_windows_stand_in_the_order_of_reading_and_the_whole_image_behind(options):
    encoder, pixels = windows(**options), torch.rand(2, 3, 32, 48)
    cells = encoder(pixels).unflatten(1, (7, 2))
    for window in range(6):
        top, left = window // 3 * 16, window % 3 * 16
        expected = encoder.encoder(pixels[..., top : top + 16, left : left + 16])
        torch.testing.assert_close(cells[:, window], expected)
    small = functional.interpolate(pixels, (16, 16), mode="bicubic")
    torch.testing.assert_close(cells[:, 6], encoder.encoder(small))


@torch.no_grad()
def test_a_window_has_updates_of_its_own():
    encoder, pixels = windows(updates=4), torch.rand(1, 3, 32, 32)
    before = encoder(pixels)
    for block in encoder.updates:
        for update in (block.qkv, block.out, block.mlp):
            update.up[2].normal_()
    changes = (encoder(pixels) - before).unflatten(1, (5, 2)).abs().amax((0, 2, 3, 4))
    assert (changes > 1e-3).tolist() == [False, False, True, False, False]


@torch.no_grad()
def test_one_set_of_updates_serves_all_windows_but_not_the_whole_image():
    encoder, pixels = windows(updates=1), torch.rand(1, 3, 32, 32)
    before = encoder(pixels)
    encoder.updates[0].mlp.up.normal_()
    changes = (encoder(pixels) - before).unflatten(1, (5, 2)).abs().amax((0, 2, 3, 4))
    assert (changes > 1e-3).tolist() == [True, True, True, True, False]


def reaches(encoder):
    """Whether the features of the first window depend on the pixels of each window."""
    pixels = torch.rand(1, 3, 32, 32, requires_grad=True)
    encoder(pixels)[:, :2].square().sum().backward()
    return (pixels.grad.unfold(2, 16, 16).unfold(3, 16, 16).abs().amax((0, 1, 4, 5)) > 0).flatten().tolist()


def test_windows_see_each_other_through_a_crossing_alone():
    encoder = windows(**CROSSED, overview=False)
    assert reaches(encoder) == [True, False, False, False]  # nothing crosses at first
    torch.nn.init.normal_(encoder.crossings[0].down.weight)
    assert reaches(encoder) == [True, True, True, True]


def test_a_patch_attends_within_its_shifted_window_and_not_round_the_edge():
    """Of six rows, windows of three shifted by one hold row 0 alone, rows 1 to 3, and rows 4 and 5."""
    torch.manual_seed(0)
    crossing, bounds = WindowCrossing(4, 4, 2, window=3, side=6), [(0, 1), (1, 4), (4, 6)]
    torch.nn.init.normal_(crossing.down.weight)
    for row, column in [(0, 0), (2, 1), (5, 3)]:
        patches = torch.rand(1, 6, 6, 4, requires_grad=True)
        crossing(patches)[0, row, column].sum().backward()
        (top, bottom), (left, right) = (next(b for b in bounds if b[0] <= at < b[1]) for at in (row, column))
        expected = torch.zeros(6, 6, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        assert torch.equal(patches.grad[0].abs().amax(-1) > 1e-12, expected)


def test_a_small_image_attends_as_a_whole():
    crossing = WindowCrossing(4, 4, 2, window=12, side=6)
    assert (crossing.window, crossing.shift) == (6, 0)


def test_what_fills_no_window_is_dropped_where_that_is_wanted():
    pixels = torch.rand(1, 3, 40, 24)
    encoder = windows(remainder="drop", overview=False)
    assert encoder.grid(40, 24) == (4, 2)
    torch.testing.assert_close(encoder(pixels), encoder(pixels[..., :32, :16]))


@pytest.mark.parametrize(
    ("options", "size", "words"),
    [
        ({}, (32, 40), "32x40 pixels into windows of 16"),
        ({"remainder": "drop"}, (8, 32), "8x32 pixels into windows of 16"),
        ({"updates": 3}, (32, 32), "updates for 3 windows, but 32x32 pixels make 4"),
        ({"encoder": {"type": "patches", "patch_size": 4}, "updates": 1}, (32, 32), "'patches' is none"),
        ({**CROSSED, "crossings": [2]}, (32, 32), "rising numbers of the 2 blocks"),
        ({**CROSSED, "crossing_heads": []}, (32, 32), "1 widths and 0 heads"),
        ({"crossing_widths": [8]}, (32, 32), "1 widths and 0 heads"),
        ({**CROSSED, "crossing_heads": [3]}, (32, 32), "3 heads of attention across windows"),
    ],
)
def test_what_cannot_be_is_a_sentence(options, size, words):
    with pytest.raises(RecipeError, match=words):
        windows(**options).grid(*size)


def test_a_fixed_encoder_learns_behind_its_blocks_alone():
    """As Monkey and TextMonkey are trained: updates, crossings, the resampler and what follows it."""
    encoder = windows(**CROSSED, updates=1, fixed=True).train().requires_grad_(True)
    learning = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    starts = ("updates.", "crossings.", "encoder.pool.", "encoder.final_norm.", "encoder.projection.")
    assert learning == {name for name, _ in encoder.named_parameters() if name.startswith(starts)}
    assert not any(weight.requires_grad for weight in encoder.requires_grad_(False).parameters())
    vit = {"type": "vit", "patch_size": 8, "width": 8, "depth": 1, "heads": 2, "size": 16}
    assert not any(weight.requires_grad for weight in windows(encoder=vit, fixed=True).parameters())


def test_pre_training_that_hides_patches_is_refused():
    with pytest.raises(RecipeError, match="no one grid of patches"):
        windows().visible(torch.rand(1, 3, 32, 32), torch.tensor([[0]]))


def test_windows_stand_round_any_encoder():
    encoder = windows(encoder={"type": "patches", "patch_size": 8})
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, *encoder.grid(32, 32), 192) == (2, 10, 2, 192)
