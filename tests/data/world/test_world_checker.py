"""The exact checker: clean pictures are read back exactly, noise gives nothing, blur is borne."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageFilter

from chiasm.data.world import Checker, Scene, Thing, World, emoji_set, render, score


def right_cells(checker, scenes, damage=lambda picture: picture, canvas=96):
    """Share of the asked cells that are read right, and share of scenes read back exactly."""
    scores = [score(checker.read(damage(render(scene, canvas))).cells, scene) for scene in scenes]
    cells = sum(s["cells_right"] for s in scores) / sum(s["cells_asked"] for s in scores)
    return cells, np.mean([s["all"] for s in scores])


def scenes_of(count, **options):
    world = World(**options)
    return [world.scene(index) for index in range(count)]


@pytest.mark.parametrize("canvas", [96, 192])
@pytest.mark.parametrize(("emoji", "count"), [(32, 40), (64, 20), (200, 8)])
@pytest.mark.parametrize("split", ["train", "combination"])
def test_every_clean_scene_is_read_back_exactly(split, emoji, count, canvas):
    checker = Checker(emoji_set(emoji))
    assert right_cells(checker, scenes_of(count, emoji=emoji, split=split), canvas=canvas) == (1, 1)


def test_scenes_of_unseen_emoji_are_read_back_exactly():
    assert right_cells(Checker(emoji_set(48)), scenes_of(30, split="emoji")) == (1, 1)


@pytest.mark.parametrize("style", ["flat", "grey", "line", "mirror", "mosaic"])
def test_other_styles_are_read_back_when_their_templates_are_asked_for(style):
    checker = Checker(emoji_set(32), styles=[style])
    cells, _ = right_cells(checker, scenes_of(15, styles=(style,), unseen_styles=()))
    assert cells >= 0.97


def test_other_grids_and_full_scenes_are_read_back():
    assert right_cells(Checker(emoji_set(32), grid=(2, 2)), scenes_of(15, grid=2, objects=(1, 4))) == (1, 1)
    assert right_cells(Checker(emoji_set(32)), scenes_of(10, objects=(9, 9))) == (1, 1)


@pytest.mark.parametrize("tint", [(255, 255, 255), (0, 0, 0), (90, 90, 200), (200, 60, 60)])
def test_any_plain_tint_of_the_ground_is_borne(tint):
    scenes = [Scene(s.grid, s.things, tint) for s in scenes_of(15)]
    assert right_cells(Checker(emoji_set(32)), scenes)[0] >= 0.98


@pytest.mark.parametrize(("radius", "cells"), [(1, 1), (2, 1), (3, 1), (4, 0.98), (5, 0.9)])
def test_blur_is_borne_up_to_a_radius_of_3_pixels_at_96(radius, cells):
    blurred = lambda picture: picture.filter(ImageFilter.GaussianBlur(radius))  # noqa: E731
    assert right_cells(Checker(emoji_set(32)), scenes_of(40), blurred)[0] >= cells


@pytest.mark.parametrize("shift", [(-4, 0), (4, 4), (0, -4), (3, -3)])
def test_a_shift_of_4_pixels_at_96_is_borne(shift):
    scenes = [scene.calmed(0.5) for scene in scenes_of(20)]
    moved = lambda picture: ImageChops.offset(picture, *shift)  # noqa: E731
    assert right_cells(Checker(emoji_set(32)), scenes, moved)[0] >= 0.98


def test_what_image_tokenizers_do_to_pictures_is_borne():
    def jpeg(picture):
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=20)
        return Image.open(data)

    def shrunk(picture):
        return picture.resize((36, 36), Image.Resampling.BOX).resize((96, 96), Image.Resampling.BILINEAR)

    def grainy(picture):
        grain = np.random.default_rng(0).normal(0, 20, (96, 96, 3))
        return Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))

    checker, scenes = Checker(emoji_set(32)), scenes_of(20)
    for damage in (jpeg, shrunk, grainy):
        assert right_cells(checker, scenes, damage)[0] >= 0.95, damage.__name__


def test_noise_blank_and_texture_give_nothing():
    random = np.random.default_rng(0)
    pictures = [Image.new("RGB", (96, 96), colour) for colour in ("white", "black", "#80c0e0")]
    for coarse in (96, 48, 24, 16, 12, 9, 6, 3):
        for _ in range(4):
            noise = random.integers(0, 256, (coarse, coarse, 3), dtype=np.uint8)
            pictures.append(Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC))
    faint = random.normal(200, 4, (96, 96, 3)).clip(0, 255).astype(np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, 96)[:, None, None], (96, 96, 3)).astype(np.uint8)
    pictures += [Image.fromarray(faint), Image.fromarray(ramp)]
    checker = Checker(emoji_set(32))
    assert [checker.read(picture).recognised for picture in pictures] == [0] * len(pictures)


def test_photographs_give_nothing():
    data = pytest.importorskip("skimage.data")
    checker = Checker(emoji_set(32))
    for name in ("astronaut", "coffee", "chelsea", "camera", "brick", "grass", "gravel"):
        photograph = Image.fromarray(getattr(data, name)()).convert("RGB")
        for left in (0, 100, 150):
            for side in (96, 250):
                crop = photograph.crop((left, left, left + side, left + side))
                assert checker.read(crop).recognised == 0, (name, left, side)


def test_a_tensor_is_read_like_the_picture():
    scene = World().scene(3)
    picture = render(scene, 96)
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    checker = Checker(emoji_set(32))
    assert checker.read(tensor).cells == checker.read(picture).cells


def test_scores_by_hand():
    dog, cat, apple = emoji_set(3)
    scene = Scene((2, 2), (Thing(dog, 0), Thing(dog, 1), Thing(cat, 2)))
    assert score((dog, dog, cat, None), scene) == {
        "object": 1, "count": 1, "place": 1, "all": 1, "cells_right": 3, "cells_asked": 3,
    }  # fmt: skip
    swapped = score((dog, cat, dog, None), scene)
    assert (swapped["object"], swapped["count"], swapped["place"], swapped["all"]) == (1, 1, 1 / 3, 0)
    extra = score((dog, apple, cat, cat), scene)
    assert (extra["object"], extra["count"], extra["place"], extra["all"]) == (2 / 3, 0, 2 / 3, 0)
    assert score((None,) * 4, scene)["object"] == 0


def test_a_thing_too_many_spoils_the_whole_but_not_the_places():
    dog, cat, apple = emoji_set(3)
    scene = Scene((2, 2), (Thing(dog, 0), Thing(cat, 2)))
    surplus = score((dog, None, cat, apple), scene)
    assert (surplus["object"], surplus["place"]) == (1, 1)
    assert (surplus["count"], surplus["all"]) == (0, 0)


def test_a_faint_ghost_is_nothing_and_a_pale_thing_is_one():
    """The first guard: shape alone is no sighting, for a correlation does not see contrast."""
    checker = Checker(emoji_set(32))
    for scene in scenes_of(3):
        ground, picture = Image.new("RGB", (96, 96), scene.tint), render(scene, 96)
        assert checker.read(Image.blend(ground, picture, 0.06)).recognised == 0
        assert checker.read(Image.blend(ground, picture, 0.5)).recognised == len(scene.things)


def test_a_picture_without_a_plain_ground_is_no_scene(monkeypatch):
    """The second guard: things on noise are not taken for a scene, though some of them would be recognised."""
    checker, unguarded = Checker(emoji_set(32)), 0
    for index, scene in enumerate(scenes_of(6)):
        noise = np.random.default_rng(index).integers(0, 256, (96, 96, 3))
        pixels = np.asarray(render(scene, 96)).astype(float)
        plain = np.abs(pixels - np.array(scene.tint)).max(2, keepdims=True) < 6
        picture = Image.fromarray(np.where(plain, noise, pixels).astype(np.uint8))
        assert checker.read(picture).recognised == 0
        with monkeypatch.context() as patch:
            patch.setattr("chiasm.data.world.checker.PLAIN", 0)
            unguarded += checker.read(picture).recognised
    assert unguarded > 0
