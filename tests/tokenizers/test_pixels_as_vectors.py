"""Pixels themselves as an image's vectors: patches from -1 to 1, and back."""

import torch

from chiasm import parts


def test_a_vector_is_a_patch_from_black_at_minus_one_to_white_at_one():
    tokenizer = parts.build("image_tokenizer", {"type": "pixels", "size": 4, "patch_size": 2})
    image = torch.rand(2, 3, 4, 4)
    image[0, :, :2, :2], image[0, :, :2, 2:] = 0.0, 1.0
    vectors = tokenizer.encode(image)
    assert vectors.shape == (2, 2, 2, 12)
    assert vectors[0, 0].tolist() == [[-1.0] * 12, [1.0] * 12]
    patch = image[1, :, 2:, :2].permute(1, 2, 0).flatten()  # row by row, the channels of a pixel together
    torch.testing.assert_close(vectors[1, 1, 0], 2 * patch - 1)
    torch.testing.assert_close(tokenizer.decode(vectors), image)
    beyond = torch.full((1, 2, 2, 12), 3.0)
    assert tokenizer.decode(beyond).eq(1).all()
    assert tokenizer.decode(-beyond).eq(0).all()
