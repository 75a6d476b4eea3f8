"""Near-duplicates of texts and of images: alike is found, and other things are not."""

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chiasm.data.filtering.duplicates import (
    RetainedTexts,
    SeenImages,
    perceptual_hash,
    signature,
    words_of_any_language,
)


def words(seed, count=200):
    dice = random.Random(seed)
    return [f"w{dice.randrange(500)}" for _ in range(count)]


def scene(seed):
    dice = np.random.default_rng(seed)
    return Image.fromarray(dice.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((200, 160), 3)


def test_a_text_with_a_changed_word_is_near_and_another_is_not():
    texts = RetainedTexts()
    one = words(0)
    assert texts.duplicate(" ".join(one)) is None
    assert texts.duplicate("  ".join(one).upper()) == "exact"  # letters and spaces do not count
    assert texts.duplicate(" ".join([*one[:100], "other", *one[101:]])) == "near"
    assert texts.duplicate(" ".join(words(1))) is None
    assert texts.duplicate(" ".join(one[:100] + words(2)[:100])) is None  # half of it


def test_signatures_agree_as_often_as_shingles_do():
    one, other = words(0), words(0)[:150] + words(1)[:50]
    shingles = [{tuple(each[i : i + 5]) for i in range(len(each) - 4)} for each in (one, other)]
    truth = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    assert (signature(one) == signature(other)).mean() == pytest.approx(
        truth, abs=0.12
    )  # 3 deviations of 128


def test_chinese_letters_are_words():
    assert words_of_any_language("我爱ABC Cats") == ["我", "爱", "abc", "cats"]


def test_an_image_is_known_again_when_it_is_small_blurred_or_jpeg():
    images = SeenImages()
    assert images.count(scene(0)) == 1
    assert images.count(scene(0).resize((100, 80), 1)) == 2
    assert images.count(scene(0).filter(ImageFilter.GaussianBlur(1))) == 3
    assert images.count(scene(1)) == 1
    assert images.count(scene(0)) == 4


def test_hashes_of_different_images_differ_in_many_bits():
    hashes = [perceptual_hash(scene(seed)) for seed in range(12)]
    distances = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 8
