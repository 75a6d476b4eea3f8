import torch

from chiasm import parts
from chiasm.tokenizers.vq import VQ


def test_it_decodes_as_its_tokenizer_does_and_owns_no_weights():
    vq = VQ(size=16, downsample=4, codebook_size=8, code_width=4, width=32, depth=1).eval()
    decoder = parts.build("image_decoder", {"type": "tokenizer"}, vq)
    codes = torch.randint(0, 8, (2, 4, 4))
    assert torch.equal(decoder.decode(codes), vq.decode(codes))
    assert decoder.state_dict() == {}
    assert list(decoder.modules()) == [decoder]
