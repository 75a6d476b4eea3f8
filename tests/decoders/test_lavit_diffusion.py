"""LaVIT's decoders: what they condition on, what they refuse."""

import sys

import pytest
import torch

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.generators import Generators

KINDS = ["lavit_diffusion", "lavit_diffusion_sd15"]


@pytest.fixture(params=KINDS)
def decoder(request):
    return build(request.param)


def build(kind, **options):
    part = parts.lookup("image_decoder", kind)
    tokenizer = parts.build("image_tokenizer", part.example_neighbours()["image_tokenizer"])
    context = DecoderContext(tokenizer.space, tokenizer)
    return parts.build("image_decoder", {"type": kind, **part.example(), **options}, context).eval()


def codes_of(decoder, *rows):
    tokenizer = decoder._tokenizer[0]
    made = torch.full((len(rows), 1, tokenizer.most), tokenizer.end)
    for row, codes in zip(made[:, 0], rows, strict=True):
        row[: len(codes)] = torch.tensor(codes)
    return made


def test_a_picture_depends_on_its_own_codes_and_noise_alone(decoder):
    both = decoder.latents(codes_of(decoder, [3, 5], [7]), Generators([1, 2]))
    alone = decoder.latents(codes_of(decoder, [7]), Generators([2]))
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)


def test_what_stands_behind_the_end_changes_nothing(decoder):
    codes = codes_of(decoder, [3, 5])
    other = codes.clone()
    other[0, 0, 4] = 9
    torch.testing.assert_close(decoder.features(codes), decoder.features(other), atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_picture_and_another_another(decoder):
    codes = codes_of(decoder, [1, 2, 3])
    one, again, other = (decoder.decode(codes, generators=Generators([seed])) for seed in (4, 4, 5))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.shape == (1, 3, decoder.size, decoder.size)


def test_the_noise_of_a_picture_depends_on_its_seed_alone(decoder):
    codes = codes_of(decoder, [3, 5], [7])
    used = Generators([1, 2])
    used.uniform(9)  # as many numbers as its codes took
    both, alone = (
        decoder.decode(codes, generators=used),
        decoder.decode(codes[1:], generators=Generators([2])),
    )
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[:1], decoder.decode(codes[:1], generators=Generators([2])), atol=1e-2)


def test_xl_is_led_away_from_zeros():
    decoder = build("lavit_diffusion")
    condition = decoder.condition(decoder.features(codes_of(decoder, [1])))
    empty = decoder.empty(condition)
    assert empty.tokens.abs().sum() == empty.added["text_embeds"].abs().sum() == 0
    assert torch.equal(empty.added["time_ids"], condition.added["time_ids"])
    assert condition.added["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]]


def test_the_first_decoder_is_led_away_from_an_empty_text_whose_rest_is_masked():
    decoder = build("lavit_diffusion_sd15")
    decoder.empty_text.uniform_()
    condition = decoder.condition(decoder.features(codes_of(decoder, [1], [2, 4])))
    empty = decoder.empty(condition)
    assert bool(condition.mask.all())
    assert empty.mask.sum(1).tolist() == [5, 5]
    assert torch.equal(empty.tokens[1, :5], decoder.empty_text)


def test_without_guidance_the_network_runs_on_the_pictures_alone():
    decoder = build("lavit_diffusion", guidance=1.0)
    seen = []
    decoder.denoising.denoiser.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    decoder.decode(codes_of(decoder, [1], [2]))
    assert seen == [2, 2]


def test_codes_of_another_tokenizer_are_refused():
    other = parts.build("image_tokenizer", {"type": "vq", "size": 32, "width": 16})
    with pytest.raises(RecipeError, match="decodes the codes of the image_tokenizer 'lavit', not of 'vq'"):
        parts.build("image_decoder", {"type": "lavit_diffusion"}, DecoderContext(other.space, other))


def test_codes_out_of_range_are_refused(decoder):
    with pytest.raises(ChiasmError, match="codes from 0 to 99 given to a tokenizer of 16 codes"):
        decoder.decode(codes_of(decoder, [0, 99]))


def test_without_diffusers_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RecipeError, match=r"pip install 'chiasm\[diffusion\]'"):
        build("lavit_diffusion")


def test_a_configuration_that_diffusers_refuses_is_named():
    with pytest.raises(RecipeError, match="diffusers refuses the configuration"):
        build("lavit_diffusion", unet={"block_out_channels": [8], "down_block_types": ["DownBlock2D"] * 2})


def test_it_learns_the_noise_in_the_latents_of_images_and_leaves_their_autoencoder_alone(decoder):
    pixels = torch.rand(3, 3, decoder.size, decoder.size)
    decoder.requires_grad_(False)
    for module in decoder.learners().values():
        module.requires_grad_(True)
    loss = decoder.losses(codes_of(decoder, [3, 5], [7], []), pixels)["diffusion"]
    assert float(loss.count) == 3 * 4 * 4 * 4  # images, channels, rows, columns
    loss.mean.backward()
    without = {name for name, parameter in decoder.named_parameters() if parameter.grad is None}
    assert without == {
        name for name, _ in decoder.named_parameters() if name.startswith("denoising.autoencoder.")
    }


def test_its_loss_is_the_error_of_the_predicted_noise(decoder, monkeypatch):
    """At each image's own time; a network that says nothing of it has the variance of noise as its loss."""
    asked = {}

    def silent(noisy, times, condition):
        asked.update(noisy=noisy, times=times, tokens=condition.tokens)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(decoder.denoising.denoiser, "forward", silent)
    pixels = torch.rand(16, 3, decoder.size, decoder.size)
    codes = codes_of(decoder, *[[3, 5]] * 16)
    torch.manual_seed(0)
    loss = decoder.losses(codes, pixels)["diffusion"]
    assert float(loss.mean) == pytest.approx(1.0, abs=0.2)
    assert len(asked["times"].unique()) > 10
    # Some of the images learn without their codes, for guidance.
    whole = decoder.condition(decoder.features(codes)).tokens
    same = [torch.allclose(own, each, atol=1e-5) for own, each in zip(asked["tokens"], whole)]
    assert 0 < sum(same) <= 16
