"""VQGAN's encoder and decoder equal the network written out; blocks and attention stand where asked for."""

import pytest
import torch
from plain import decode, encode, group_norm, noise, shaken

from chiasm.errors import RecipeError
from chiasm.tokenizers.convolutional import Attention, ConvDecoder, ConvEncoder, check_widths, nearest

OPTIONS = [
    {"multipliers": [1, 2, 1], "depth": [1, 2, 1]},
    {"multipliers": [2, 1], "depth": 1, "attention": [0], "middle_attention": False, "convolved": False},
    {"multipliers": [1, 2], "depth": 2, "attention": [1], "heads": 4},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_encoder_is_the_network_written_out(options):
    encoder = shaken(ConvEncoder(32, latent_width=5, **options))
    pixels = noise(2, 3, 8, 8)
    levels = len(options["multipliers"])
    expected = encode(pixels, encoder.state_dict(), levels, options.get("heads", 1))
    assert expected.shape == (2, 5, 8 >> levels - 1, 8 >> levels - 1)
    torch.testing.assert_close(encoder(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("middle_blocks", [0, 2])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_decoder_is_the_network_written_out(options, middle_blocks):
    decoder = shaken(ConvDecoder(32, latent_width=5, middle_blocks=middle_blocks, **options))
    latents = noise(2, 5, 2, 2)
    levels = len(options["multipliers"])
    expected = decode(latents, decoder.state_dict(), levels, options.get("heads", 1))
    assert expected.shape == (2, 3, 2 << levels - 1, 2 << levels - 1)
    torch.testing.assert_close(decoder(latents), expected, rtol=1e-4, atol=1e-4)


class Marked(torch.nn.Module):
    """A normalisation that is told a mark, and adds it."""

    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x, mark):
        return x + mark + self.weight


def test_every_normalisation_of_the_decoder_is_told_what_the_decoder_is_told():
    decoder = shaken(ConvDecoder(32, [1, 1], 1, 4, [1], normalise=Marked, heads=2, middle_blocks=1))
    mark = torch.tensor(0.5)
    expected = decode(
        noise(1, 4, 2, 2),
        decoder.state_dict(),
        2,
        2,
        lambda x, w, name: x + mark + w[f"{name}.weight"],
    )
    torch.testing.assert_close(decoder(noise(1, 4, 2, 2), mark), expected, rtol=1e-4, atol=1e-4)


def names(module, kind):
    """Of the blocks (or attentions, or changes of resolution) of a network, by level."""
    found = {}
    for name in module.state_dict():
        side, level, *rest = name.split(".")
        if side in ("down", "up") and rest[0] == kind:
            found.setdefault(int(level), set()).add(rest[1])
    return {level: len(each) for level, each in found.items()}


@pytest.mark.parametrize(("kind", "change"), [(ConvEncoder, "downsample"), (ConvDecoder, "upsample")])
def test_blocks_and_attention_stand_at_the_levels_that_were_asked_for(kind, change):
    network = kind(32, [1, 2, 4], [1, 2, 3], 4, attention=[0, 2], middle_attention=False)
    assert names(network, "block") == {0: 1, 1: 2, 2: 3}
    assert names(network, "attn") == {0: 1, 2: 3}
    assert names(network, change) == ({0: 1, 1: 1} if kind is ConvEncoder else {1: 1, 2: 1})
    assert not any("mid.attn" in name for name in network.state_dict())
    widths = [network.state_dict()[f"{change[:-6]}.{i}.block.0.conv1.weight"].shape[:2] for i in range(3)]
    if kind is ConvEncoder:
        assert widths == [(32, 32), (64, 32), (128, 64)]
    else:
        assert widths == [(32, 64), (64, 128), (128, 128)]


@pytest.mark.parametrize("kind", [ConvEncoder, ConvDecoder])
def test_by_default_only_the_latents_attend_with_one_head_and_convolutions_change_the_resolution(kind):
    network = kind(32, [1, 1], 1, 4)
    assert {name.rpartition(".")[0] for name in network.state_dict() if ".q." in name} == {"mid.attn_1.q"}
    assert network.mid.attn_1.heads == 1
    assert names(network, "downsample" if kind is ConvEncoder else "upsample")
    assert not any("extra" in name for name in network.state_dict())


def test_widths_that_cannot_be_normalised_or_split_are_refused():
    check_widths(32, [1, 3])
    for width, multipliers, channels in ((16, [2], 16), (48, [2], 48), (0, [1], 0), (31, [1], 31)):
        with pytest.raises(RecipeError, match=f"{channels} channels cannot be normalised in 32 groups"):
            check_widths(width, multipliers)
    with pytest.raises(RecipeError, match="at least one level"):
        check_widths(32, [])
    with pytest.raises(RecipeError, match="32 channels cannot be split into 3 attention heads"):
        Attention(32, None, 3)


@pytest.mark.parametrize("elements", [1, 40, 2**24])
def test_the_nearest_code_is_found_however_many_distances_are_held_at_once(elements):
    vectors, codebook = noise(50, 3), noise(8, 3, seed=2)
    expected = [
        min(range(8), key=lambda i: float((vector - codebook[i]).square().sum())) for vector in vectors
    ]
    assert nearest(vectors, codebook, elements).tolist() == expected
    assert nearest(vectors[:0], codebook, elements).shape == (0,)


def test_groups_are_normalised_each_by_itself():
    """Of the written-out normalisation, that it is the field's."""
    w = {"n.weight": noise(64), "n.bias": noise(64, seed=3)}
    x = noise(2, 64, 3, 3)
    expected = torch.nn.functional.group_norm(x, 32, w["n.weight"], w["n.bias"], 1e-6)
    torch.testing.assert_close(group_norm(x, w, "n"), expected, rtol=1e-5, atol=1e-5)
