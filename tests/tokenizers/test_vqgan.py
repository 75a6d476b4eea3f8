"""VQGAN with every quantizer: networks and codebooks written out, gradients, learning, defaults, errors."""

import inspect

import pytest
import torch
from plain import convolve, decode, encode, noise, pictures, shaken

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.losses import objective
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers.entropy import choice_entropy
from chiasm.tokenizers.quantizers.nearest import Nearest
from chiasm.tokenizers.vqgan import VQGAN

NAMES = parts.names("quantizer")


def tiny(name, **options):
    spec = {"size": 16, "width": 32, "multipliers": [1, 1], "depth": 1, "latent_width": 8}
    spec["quantizer"] = {"type": name, **parts.lookup("quantizer", name).example()}
    return parts.build("image_tokenizer", {"type": "vqgan", **spec, **options})


@pytest.mark.parametrize("name", NAMES)
def test_codes_have_the_grid_and_become_pixels(name):
    tokenizer = tiny(name).eval()
    codes = tokenizer.encode(torch.rand(2, 3, 16, 16))
    assert codes.shape == (2, *tokenizer.grid) == (2, 8, 8)
    made = tokenizer.decode(codes)
    assert made.shape == (2, 3, 16, 16)
    assert made.min() >= 0
    assert made.max() <= 1
    assert torch.equal(tokenizer.encode(torch.ones(1, 3, 16, 16)), tokenizer.encode(torch.ones(1, 3, 16, 16)))


@pytest.mark.parametrize("levels", [1, 4])
def test_each_level_but_the_first_halves_the_grid(levels):
    tokenizer = tiny("nearest", multipliers=[1] * levels)
    assert tokenizer.grid == tuple(tokenizer.encode(torch.rand(1, 3, 16, 16)).shape[1:])
    assert tokenizer.grid == ((16, 16) if levels == 1 else (2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns_and_the_loss_falls(name):
    torch.manual_seed(0)
    tokenizer, pictures = tiny(name).train(), torch.rand(4, 3, 16, 16)
    optimiser = torch.optim.AdamW(tokenizer.parameters(), 2e-3)
    history = []
    for _ in range(12):
        losses = tokenizer.losses(pictures)
        optimiser.zero_grad()
        objective(losses).backward()
        assert all(parameter.grad is not None for parameter in tokenizer.parameters())
        optimiser.step()
        after_step(tokenizer)
        history.append(losses["reconstruction"].mean.item())
    assert history[-1] < 0.95 * history[0]
    assert 0 < tokenizer.health()["codebook_use"] <= 1
    assert tokenizer.health()["perplexity"] >= 1


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused_in_words(name):
    with pytest.raises(ChiasmError, match=r"\(3, 16, 20\) given to a tokenizer of \(3, 16, 16\)"):
        tiny(name).encode(torch.rand(1, 3, 16, 20))
    count = tiny(name).codebook_size
    with pytest.raises(ChiasmError, match=f"codes from 0 to {count} given to a tokenizer of {count} codes"):
        tiny(name).decode(torch.arange(64).clamp(max=count).view(1, 8, 8))
    with pytest.raises(ChiasmError, match="grid"):
        tiny(name).decode(torch.zeros(1, 4, 8, dtype=torch.long))
    with pytest.raises(RecipeError, match="size 15 is no multiple of 2"):
        tiny(name, size=15)
    with pytest.raises(RecipeError, match="48 channels cannot be normalised in 32 groups"):
        tiny(name, width=48)


def nearest(codebook_size, width, **options):
    return Nearest(codebook_size=codebook_size, width=width, **options)


def test_the_nearest_code_is_taken_and_the_gradient_goes_straight_through():
    codebook = nearest(3, 2, codebook_weight=1.0, commitment=1.0)
    codebook.embedding.weight.data = torch.tensor([[0.0, 0], [1, 0], [0, 2]])
    latents = torch.tensor([0.9, 0.2]).view(1, 1, 1, 2).requires_grad_()
    quantized = codebook(latents)
    assert quantized.codes.item() == 1
    quantized.vectors.sum().backward()
    assert torch.equal(latents.grad.flatten(), torch.ones(2))
    assert quantized.losses["codebook"].mean.item() == pytest.approx((0.01 + 0.04) / 2)


SHAPE = {"size": 16, "width": 32, "multipliers": [1, 2, 1]}
NETWORKS = {  # options, levels of the encoder and of the decoder that attend, whether the latents do
    "nearest": (
        {"attention_sizes": [8], "latent_width": 6, "quantizer": {"type": "nearest", "width": 5}}, {1}, {1}, True,
    ),
    "plain": (
        {"attention_sizes": [], "convolved": False, "middle_attention": False, "decoder_multipliers": [2, 1, 1]},
        set(), set(), False,
    ),
    "gumbel": ({"attention_sizes": [16, 4], "quantizer": {"type": "gumbel", "width": 6}}, {0, 2}, {0, 2}, True),
    "cosine": ({"latent_width": 6, "attention_sizes": [4], "quantizer": {"type": "cosine"}}, {2}, {2}, True),
    "unit": ({"attention_sizes": [4], "quantizer": {"type": "unit", "width": 5}}, {2}, {2}, True),
    "fsq": ({"attention_sizes": [8], "quantizer": {"type": "fsq", "levels": [4, 3]}}, {1}, {1}, True),
    "fsq, projected": (
        {"attention_sizes": [], "quantizer": {"type": "fsq", "levels": [4, 3], "width": 5}}, set(), set(), True,
    ),
    "lfq": ({"attention_sizes": [8], "kernel": 3, "quantizer": {"type": "lfq", "bits": 4}}, {1}, {1}, True),
    "lfq_projected": (
        {"attention_sizes": [], "quantizer": {"type": "lfq_projected", "bits": 4, "width": 5}}, set(), set(), True,
    ),
    "lfq_bitwise, as Show-o": (
        {"attention_sizes": [8], "decoder_multipliers": [2, 1, 1], "depth": [1, 2, 1], "latent_width": 4,
         "decoder_depths": [2, 1, 1], "quantizer": {"type": "lfq_bitwise", "bits": 4}},
        {1}, {1}, True,
    ),
    "as open-muse": (
        {"attention_sizes": [8], "depth": 2, "signed": False, "middle_attention": False}, {1}, {1}, False,
    ),
    "as open-muse, of depths": (
        {"attention_sizes": [], "decoder_attention_sizes": [4], "decoder_depths": [2, 1, 2],
         "decoder_multipliers": [2, 1, 1], "decoder_width": 64, "decoder_middle": 2, "signed": False,
         "convolved": False},
        set(), {2}, True,
    ),
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def network(request):
    """A network of small size, with what is expected of its attention."""
    options, *attending = NETWORKS[request.param]
    spec = {"type": "vqgan", "depth": 1, "quantizer": {"type": "nearest", "codebook_size": 12}}
    return shaken(parts.build("image_tokenizer", {**spec, **SHAPE, **options})), options, attending


def under(tokenizer, prefix):
    return {k.removeprefix(prefix): v for k, v in tokenizer.state_dict().items() if k.startswith(prefix)}


def test_latents_and_pixels_are_those_of_the_networks_written_out(network):
    tokenizer, options, _ = network
    signed = options.get("signed", True)
    pixels, weights = pictures(2, 3, 16, 16), tokenizer.state_dict()
    inner = 2 * pixels - 1 if signed else pixels
    expected = convolve(encode(inner, under(tokenizer, "encoder."), 3), weights, "quant_conv")
    latents = tokenizer.latents(pixels)
    torch.testing.assert_close(latents, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    vectors = noise(2, 4, 4, latents.shape[-1])
    expected = convolve(vectors.permute(0, 3, 1, 2), weights, "post_quant_conv")
    expected = decode(expected, under(tokenizer, "decoder."), 3)
    expected = (expected + 1) / 2 if signed else expected
    torch.testing.assert_close(tokenizer.render(vectors), expected, rtol=1e-4, atol=1e-4)


def levels(tokenizer, side, kind):
    """How many blocks (or attentions) each level has."""
    found = {}
    for each in under(tokenizer, side):
        level, which, number, *_ = each.split(".") if each[0].isdigit() else (0, "", 0)
        if which == kind:
            found.setdefault(int(level), set()).add(number)
    return {level: len(numbers) for level, numbers in found.items()}


def test_blocks_and_attention_are_as_many_as_its_options_say(network):
    tokenizer, options, (down, up, middle) = network
    depth = options.get("depth", 1)
    depths = depth if isinstance(depth, list) else [depth] * 3
    decoder_depths = options.get("decoder_depths", [each + 1 for each in depths])
    assert levels(tokenizer, "encoder.down.", "block") == dict(enumerate(depths))
    assert levels(tokenizer, "decoder.up.", "block") == dict(enumerate(decoder_depths))
    assert levels(tokenizer, "encoder.down.", "attn") == {level: depths[level] for level in down}
    assert levels(tokenizer, "decoder.up.", "attn") == {level: decoder_depths[level] for level in up}
    names = set(tokenizer.state_dict())
    assert ("encoder.mid.attn_1.q.weight" in names) == ("decoder.mid.attn_1.q.weight" in names) == middle
    assert (
        f"decoder.mid.extra_mid_res_blocks.{options.get('decoder_middle', 0) - 1}.conv1.weight" in names
    ) == ("decoder_middle" in options)
    convolved = options.get("convolved", True)
    assert ("encoder.down.0.downsample.conv.weight" in names) == convolved
    assert ("decoder.up.1.upsample.conv.weight" in names) == convolved
    width = options.get("decoder_width", 32)
    upwards = options.get("decoder_multipliers", SHAPE["multipliers"])
    for level, multiplier in enumerate(upwards):
        assert len(tokenizer.decoder.up[level].block[0].conv1.weight) == width * multiplier


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_multipliers": [1, 1]}, "one number for every level; there are 3 multipliers"),
        ({"decoder_depths": [1, 1]}, "one number for every level"),
        ({"depth": [1, 1]}, "one number for every level"),
        ({"absolute": 0.0}, "absolute and squared are 0; nothing is learnt"),
        ({"quantizer": {"type": "fsq", "levels": [3, 2]}}, "with 2 of them one is never reached"),
        ({"quantizer": {"type": "fsq", "levels": [2**12, 2**12, 3]}}, "more than 16777216 codes"),
        ({"quantizer": {"type": "fsk"}}, r"no quantizer 'fsk'; did you mean 'fsq'"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        parts.build("image_tokenizer", {"type": "vqgan", "quantizer": {"type": "cosine"}, **SHAPE, **options})


def test_by_default_it_is_the_published_network():
    """taming-transformers' vqgan_imagenet_f16_1024; critics are not of it."""
    defaults = {each.name: each.default for each in inspect.signature(VQGAN).parameters.values()}
    assert defaults.pop("quantizer") is inspect.Parameter.empty  # taming's is `nearest`
    assert defaults == {
        "size": 256,
        "width": 128,
        "multipliers": [1, 1, 2, 2, 4],
        "depth": 2,
        "attention_sizes": [16],
        "latent_width": 256,
        "kernel": 1,
        "middle_attention": True,
        "convolved": True,
        "decoder_width": 0,
        "decoder_multipliers": [],
        "decoder_depths": [],
        "decoder_middle": 0,
        "decoder_attention_sizes": None,
        "signed": True,
        "absolute": 1.0,
        "squared": 0.0,
        "critics": [],
    }


@pytest.mark.parametrize(("absolute", "squared"), [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_the_error_of_pixels_is_absolute_squared_or_both(absolute, squared):
    made, pixels = pictures(2, 3, 4, 4), pictures(2, 3, 4, 4, seed=5)
    loss = tiny("nearest", absolute=absolute, squared=squared).reconstruction(made, pixels)
    error = (2 * made - 1) - (2 * pixels - 1)
    expected = absolute * error.abs().sum() + squared * (error**2).sum()
    assert float(loss.sum) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss.count) == made.numel()


def entropy_of(chances):
    return float(-(chances * chances.clamp(min=1e-30).log()).sum())


def test_the_entropy_of_choices_is_llamagens():
    """Of each choice by a softmax over negative distances a hundredth as warm, less that of the mean choice."""
    latents, codebook = noise(6, 3) / 10, noise(4, 3, seed=2) / 10
    distances = torch.tensor([[float((x - c).square().sum()) for c in codebook] for x in latents])
    chances = (-100 * distances).softmax(1)
    single = [entropy_of(row) for row in chances]
    even = entropy_of(chances.mean(0))
    assert min(single) < 0.9 * even  # the choices differ
    loss = choice_entropy(latents, codebook, 0.5)
    assert float(loss.mean) == pytest.approx(sum(single) / 6 - even, abs=1e-3)
    assert (float(loss.count), loss.weight) == (6.0, 0.5)


@pytest.mark.parametrize("entropy", [0.0, 0.5])
def test_codebook_and_latents_each_feel_the_loss_that_is_theirs(entropy):
    codebook = nearest(3, 2, codebook_weight=2.0, commitment=0.25, entropy=entropy)
    codebook.embedding.weight.data = torch.tensor([[0.0, 0], [1, 0], [0, 2]])
    latents = torch.tensor([[0.9, 0.2], [0.1, 1.5]]).view(2, 1, 1, 2).requires_grad_()
    losses = codebook(latents).losses
    assert set(losses) == {"codebook", "commitment"} | ({"entropy"} if entropy else set())
    total = 0.01 + 0.04 + 0.01 + 0.25
    for name, weight in (("codebook", 2.0), ("commitment", 0.25)):
        assert float(losses[name].sum.detach()) == pytest.approx(total)
        assert (float(losses[name].count), losses[name].weight) == (4.0, weight)
    losses["codebook"].sum.backward()
    assert latents.grad is None
    torch.testing.assert_close(
        codebook.embedding.weight.grad, torch.tensor([[0.0, 0], [0.2, -0.4], [-0.2, 1.0]])
    )
    losses["commitment"].sum.backward()
    torch.testing.assert_close(latents.grad.view(2, 2), torch.tensor([[-0.2, 0.4], [0.2, -1.0]]))
    if entropy:
        flat = latents.detach().view(2, 2)
        expected = choice_entropy(flat, codebook.embedding.weight, entropy)
        torch.testing.assert_close(losses["entropy"].sum, expected.sum)
        assert losses["entropy"].weight == entropy
    reason = codebook.indivisible(ranks=False, rows=1)
    assert (reason is not None) == bool(entropy)


def test_codes_begin_small_and_even_and_are_looked_up_by_distance():
    codebook = nearest(50, 4, codebook_weight=1.0, commitment=1.0)
    weights = codebook.embedding.weight.detach()
    assert -1 / 50 <= float(weights.min()) < -0.9 / 50
    assert 0.9 / 50 < float(weights.max()) <= 1 / 50
    assert codebook.revival is None
    codes = torch.tensor([[[3, 7], [1, 3]]])
    assert torch.equal(codebook.vectors(codes), weights[codes])
    assert torch.equal(codebook.encode(weights[codes] + 1e-4), codes)


def test_dead_codes_are_noted_in_training_only():
    codebook = nearest(4, 2, codebook_weight=1.0, commitment=1.0, revive_after=3)
    assert codebook.revival.after == 3
    codebook.eval()(noise(2, 1, 1, 2))
    after_step(codebook)
    assert not codebook.revival.idle.any()
    codes = codebook.train()(noise(2, 1, 1, 2)).codes
    after_step(codebook)
    assert torch.equal(codebook.revival.idle == 0, torch.bincount(codes.flatten(), minlength=4) > 0)


def test_options_of_a_quantizer_reach_it_and_its_width_the_network():
    options = {"codebook_weight": 2.0, "commitment": 0.125, "entropy": 0.5}
    codes = {"type": "nearest", "codebook_size": 9, "width": 5, "revive_after": 4, **options}
    tokenizer = parts.build("image_tokenizer", {"type": "vqgan", **SHAPE, "depth": 1, "quantizer": codes})
    assert {name: getattr(tokenizer.quantize, name) for name in options} == options
    assert tokenizer.quantize.embedding.weight.shape == (9, 5)
    assert tokenizer.codebook_size == 9
    assert tokenizer.quantize.revival.after == 4
    assert tokenizer.quant_conv.weight.shape == (5, 256, 1, 1)
