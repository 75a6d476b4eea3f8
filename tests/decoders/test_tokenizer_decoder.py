"""The decoder of the image tokenizer itself: it decodes the codes, and may learn alone."""

import pytest
import torch

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.errors import RecipeError
from chiasm.nn.losses import objective
from chiasm.tokenizers.vq import VQ


def test_it_decodes_as_its_tokenizer_does_and_owns_no_weights():
    vq = VQ(size=16, downsample=4, codebook_size=8, code_width=4, width=32, depth=1).eval()
    decoder = parts.build("image_decoder", {"type": "tokenizer"}, DecoderContext(vq.space, vq))
    codes = torch.randint(0, 8, (2, 4, 4))
    assert torch.equal(decoder.decode(codes), vq.decode(codes))
    assert decoder.state_dict() == {}
    assert list(decoder.modules()) == [decoder]


DECODE = [name for name in parts.names("image_tokenizer") if parts.lookup("image_tokenizer", name).decodes]


@pytest.mark.parametrize("name", DECODE)
def test_it_learns_alone_all_that_stands_behind_the_codes_or_says_that_it_cannot(name):
    example = parts.lookup("image_tokenizer", name).example()
    tokenizer = parts.build("image_tokenizer", {"type": name, **example})
    decoder = parts.build("image_decoder", {"type": "tokenizer"}, DecoderContext(tokenizer.space, tokenizer))
    pixels = torch.rand(2, 3, decoder.size, decoder.size)
    codes = tokenizer.eval().encode(pixels)
    if not decoder.learners():
        with pytest.raises(RecipeError, match=f"image_tokenizer '{name}' has no decoder that learns alone"):
            decoder.losses(codes, pixels)
        return
    tokenizer.requires_grad_(False)
    for module in decoder.learners().values():
        module.requires_grad_(True)
    objective(decoder.losses(codes, pixels)).backward()
    for key, parameter in tokenizer.named_parameters():
        behind = any(key.startswith(f"{learner}.") for learner in decoder.learners())
        assert (parameter.grad is not None) == behind, key


def test_a_tokenizer_that_makes_no_pixels_needs_another_decoder():
    example = parts.lookup("image_tokenizer", "features").example()
    features = parts.build("image_tokenizer", {"type": "features", **example})
    with pytest.raises(RecipeError, match="image_tokenizer 'features' makes no pixels"):
        parts.build("image_decoder", {"type": "tokenizer"}, DecoderContext(features.space, features))
