"""The decoder `diffusion`: conditions of codes and vectors, guidance, editing, and what learns."""

import pytest
import torch

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.decoders.denoisers.unet import EXAMPLE_UNET
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.generators import Generators
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers.spaces import Codes, Vectors
from chiasm.tokenizers.vae import EXAMPLE_VAE

VECTORS = Vectors((2, 2), 24)
ALONE = DecoderContext(None)
LATENT = {"autoencoder": {"type": "vae", "size": 32, "config": EXAMPLE_VAE}}
XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24 + 6 * 8,
}


def unet(channels=4, **config):
    inner = {**EXAMPLE_UNET, "cross_attention_dim": 24, "in_channels": channels, "out_channels": 4, **config}
    return {"type": "unet", "config": inner}


def built(space=VECTORS, **options):
    spec = {"denoiser": unet(), **LATENT, "conditioner": {"type": "vectors"}, "scheduler": {"type": "euler"}}
    spec |= {"type": "diffusion", "size": 32, "steps": 2, **options}
    torch.manual_seed(0)
    return parts.build("image_decoder", spec, DecoderContext(space)).eval()


def target(*rows):
    """Vectors of images, each from its own seed."""
    return torch.stack([torch.randn(2, 2, 24, generator=torch.Generator().manual_seed(row)) for row in rows])


@pytest.mark.parametrize("scheduler", parts.names("scheduler"))
def test_an_image_depends_on_its_own_target_and_seed_alone(scheduler):
    decoder = built(scheduler={"type": scheduler})
    both = decoder.decode(target(1, 2), generators=Generators([5, 6]))
    alone = decoder.decode(target(2), generators=Generators([6]))
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    assert both.shape == (2, 3, 32, 32)
    assert not torch.allclose(alone, decoder.decode(target(2), generators=Generators([7])), atol=1e-3)
    assert not torch.allclose(alone, decoder.decode(target(3), generators=Generators([6])), atol=1e-6)


def test_what_guidance_leads_away_from_may_be_given():
    decoder = built()
    images = [
        decoder.decode(target(1), generators=Generators([0]), negative=negative)
        for negative in (None, torch.zeros(1, 2, 2, 24), target(2))
    ]
    torch.testing.assert_close(images[0], images[1])
    assert not torch.allclose(images[0], images[2], atol=1e-6)


def test_what_is_read_of_a_source_is_the_targets_with_a_negative_target_too(monkeypatch):
    decoder, asked, read = built(edits=True, denoiser=unet(8)), [], []
    denoiser = decoder.denoising.denoiser

    def source(latents, own_scale, condition):
        asked.append(condition.tokens)
        return own_scale * condition.tokens.mean()

    monkeypatch.setattr(denoiser, "source", source)
    denoiser.register_forward_pre_hook(lambda _, inputs: read.append(inputs[2].source))
    decoder.decode(target(1), negative=target(2), source=torch.rand(1, 3, 32, 32))
    (tokens,) = asked  # and not once more, of the negative
    assert torch.equal(tokens, decoder.condition(target(1)).tokens)
    for nothing, without, whole in (each.chunk(3) for each in read):
        assert not nothing.any()
        assert torch.equal(without, whole)


def test_guidance_of_one_runs_the_network_once_a_step():
    decoder, rows = built(), []
    decoder.denoising.denoiser.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    decoder.decode(target(1, 2), guidance=1.0)
    decoder.decode(target(1, 2), guidance=2.0)
    assert rows == [2, 2, 4, 4]
    with pytest.raises(ChiasmError, match="guidance: it must be a number from 0 to 100, not 101"):
        decoder.decode(target(1), guidance=101)


def test_a_pooled_vector_is_the_mean_and_sizes_are_those_of_the_image():
    decoder = built(denoiser=unet(**XL))
    condition = decoder.condition(target(1))
    torch.testing.assert_close(condition.added["text_embeds"], target(1).mean((1, 2)))
    assert condition.added["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]]
    empty = decoder.empty(condition)
    assert empty.tokens.abs().sum() == empty.added["text_embeds"].abs().sum() == 0
    assert torch.equal(empty.added["time_ids"], condition.added["time_ids"])
    assert decoder.decode(target(1)).isfinite().all()


def test_a_decoder_alone_says_what_it_takes():
    assert built(space=None).space == Vectors((0, 0), 24)
    assert built(space=Vectors((1, 7), 24)).space == Vectors((1, 7), 24)


@pytest.mark.parametrize("conditioner", ["vectors", "linear"])
@pytest.mark.parametrize("frozen", [True, False])
def test_its_loss_teaches_what_made_the_vectors_and_leaves_what_is_frozen_alone(conditioner, frozen):
    decoder = built(conditioner={"type": conditioner})
    decoder.requires_grad_(False)
    if not frozen:
        for module in decoder.learners().values():
            module.requires_grad_(True)
    vectors = target(1, 2, 3).requires_grad_()
    loss = decoder.losses(vectors, torch.rand(3, 3, 32, 32))["diffusion"]
    assert float(loss.count) == 3 * 4 * 4 * 4
    loss.mean.backward()
    assert vectors.grad.abs().sum() > 0
    learnt = {name for name, parameter in decoder.named_parameters() if parameter.grad is not None}
    expected = {
        name for name, _ in decoder.named_parameters() if not name.startswith("denoising.autoencoder.")
    }
    assert learnt == (set() if frozen else expected)


def test_places_tell_equal_vectors_apart_and_need_a_known_number():
    same = torch.ones(1, *VECTORS.grid, VECTORS.width)
    spread = [
        built(conditioner={"type": "linear", "places": places}).condition(same).tokens.std(1).sum()
        for places in (False, True)
    ]
    assert spread[0] < 1e-6 < spread[1]
    with pytest.raises(
        RecipeError, match="conditioner 'linear' adds places to vectors whose number is known"
    ):
        built(space=Vectors((0, 0), 24), conditioner={"type": "linear", "places": True})


def test_a_share_of_images_learns_without_its_target():
    decoder = built(unconditional=0.25)
    condition = decoder.condition(target(*range(8)))
    dropped = decoder._dropped(condition, torch.arange(8) / 8)
    assert [float(each.abs().sum()) == 0 for each in dropped.tokens] == [True, True] + [False] * 6


def test_an_editor_learns_without_target_without_source_and_without_both():
    decoder = built(edits=True, denoiser=unet(8), unconditional=0.25, source_guidance=1.5)
    condition = decoder.condition(target(*range(4)), torch.rand(4, 3, 32, 32))
    dropped = decoder._dropped(condition, torch.tensor([0.1, 0.3, 0.6, 0.9]))
    assert [float(each.abs().sum()) == 0 for each in dropped.tokens] == [True, True, False, False]
    assert [float(each.abs().sum()) == 0 for each in dropped.source] == [False, True, True, False]


def test_an_edited_image_depends_on_its_source():
    decoder = built(edits=True, denoiser=unet(8), source_guidance=1.5)
    one, other = (decoder.decode(target(1), source=torch.full((1, 3, 32, 32), value)) for value in (0.2, 0.8))
    assert not torch.allclose(one, other, atol=1e-6)
    source = decoder.condition(target(1), torch.rand(1, 3, 32, 32)).source
    assert source.shape == (1, 4, 4, 4)


def test_pixels_are_denoised_where_there_is_no_autoencoder():
    decoder = built(autoencoder=None, denoiser=unet(3, out_channels=3))
    assert decoder.denoising.shape == (3, 32, 32)
    assert 0 <= decoder.decode(target(1)).min() <= decoder.decode(target(1)).max() <= 1


def test_codes_are_embedded_and_those_behind_the_end_masked():
    decoder = built(Codes((1, 4), 9, end=8), conditioner={"type": "codes"})
    condition = decoder.condition(torch.tensor([[[3, 8, 8, 8]], [[1, 2, 3, 4]]]))
    assert condition.mask.tolist() == [[True, True, False, False], [True] * 4]
    with pytest.raises(ChiasmError, match="codes from 0 to 9 given to conditioner 'codes', which has 9"):
        decoder.condition(torch.tensor([[[0, 9, 8, 8]]]))


def test_without_gradients_the_loss_is_a_function_of_images_and_targets():
    decoder, pixels = built(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        one, again = (decoder.losses(target(1, 2), pixels)["diffusion"].mean for _ in range(2))
    assert one == again
    assert one != decoder.losses(target(1, 2), pixels)["diffusion"].mean


@pytest.mark.parametrize(
    ("space", "options", "words"),
    [
        (Vectors((2, 2), 32), {}, "the targets have 32 channels, but the denoiser's tokens 24"),
        (Codes((2, 2), 8), {}, "conditioner 'vectors' takes vectors, but the targets are codes"),
        (VECTORS, {"conditioner": {"type": "codes"}}, "conditioner 'codes' takes codes"),
        (
            None,
            {"conditioner": {"type": "linear"}},
            "conditioner 'linear' takes vectors whose width is known",
        ),
        (VECTORS, {"size": 64}, "makes images of 64 pixels, but its autoencoder works on 32"),
        (VECTORS, {"autoencoder": None}, "in_channels 4 and out_channels 4, but the images have 3 channels"),
        (VECTORS, {"edits": True}, "have 4 channels and 4 of the image to change: they must be 8 and 4"),
        (VECTORS, {"source_guidance": 2.0}, "source_guidance is for a decoder with edits: true"),
        (VECTORS, {"steps": 1001}, "steps is 1001"),
        (VECTORS, {"guidance": -1.0}, "guidance is -1.0"),
        (VECTORS, {"scheduler": {"type": "flow"}, "min_snr": 5.0}, "has no min-SNR weights"),
        (
            VECTORS,
            {"autoencoder": {"type": "vq", "size": 32}},
            "takes no image_tokenizer 'vq': use image_tokenizer .*'vae' \\(at image_decoder.autoencoder\\)",
        ),
        (VECTORS, {"denoiser": unet(class_embed_type="timestep")}, "asks for other inputs: class_embed_type"),
        (VECTORS, {"denoiser": unet(**XL, block_out_channels=[7, 9])}, "diffusers refuses the configuration"),
    ],
)
def test_parts_that_do_not_fit_are_refused(space, options, words):
    with pytest.raises(RecipeError, match=words):
        built(space, **options)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"source": torch.rand(1, 3, 32, 32)}, "changes no image: it takes no source"),
        ({"negative": torch.rand(1, 3, 2, 24)}, "they must be alike"),
        ({"negative": torch.rand(1, 2, 2, 20)}, r"takes vectors, \(images, rows, columns, 24\)"),
    ],
)
def test_inputs_that_it_cannot_use_are_refused(inputs, words):
    with pytest.raises(ChiasmError, match=words):
        built().decode(target(1), **inputs)


def test_gates_that_would_stay_closed_and_a_scheduler_that_keeps_no_parts_are_refused_before_anything_is_drawn():
    boxes = {**unet(9), "type": "grounded_unet"}
    with pytest.raises(RecipeError, match="are open in none of 2: boxes would not be read"):
        built(edits=True, denoiser=boxes, scheduler={"type": "ddim"}, steps=2)
    with pytest.raises(
        RecipeError, match=r"'euler' has noise of another scale.*'grounded_unet' can keep no part"
    ):
        built(edits=True, denoiser=boxes, scheduler={"type": "euler"}, steps=10)
    assert built(
        edits=True, denoiser=boxes, scheduler={"type": "ddim"}, steps=10
    ).denoising.denoiser.keeps_parts


def test_an_editor_without_its_source_and_a_source_of_another_size_are_refused():
    decoder = built(edits=True, denoiser=unet(8))
    with pytest.raises(ChiasmError, match="needs that image as its source"):
        decoder.decode(target(1))
    with pytest.raises(ChiasmError, match="images of 16 x 16 pixels given to a decoder of images of 32 x 32"):
        decoder.decode(target(1), source=torch.rand(1, 3, 16, 16))


def test_other_decoders_take_no_guidance_and_no_source():
    tokenizer = parts.build("image_tokenizer", {"type": "vq", "size": 16, "width": 32})
    decoder = parts.build("image_decoder", {"type": "tokenizer"}, DecoderContext(tokenizer.space, tokenizer))
    with pytest.raises(ChiasmError, match="image_decoder 'tokenizer' is not guided"):
        decoder.decode(torch.zeros(1, *tokenizer.grid, dtype=torch.long), guidance=2.0)
    with pytest.raises(RecipeError, match="is the image tokenizer's, but the model has none"):
        parts.build("image_decoder", {"type": "tokenizer"}, ALONE)


def test_it_generates_with_the_average_of_the_weights_that_it_had():
    decoder = built(average=0.5).train()
    plain = built()
    plain.load_state_dict(decoder.state_dict(), strict=False)
    before = plain.decode(target(1), generators=Generators([0]))
    torch.testing.assert_close(decoder.decode(target(1), generators=Generators([0])), before)
    denoiser, weights = decoder.denoising.denoiser, []
    for step in range(3):
        with torch.no_grad():
            for parameter in denoiser.parameters():
                parameter.add_(0.1 * (step + 1))
        weights.append([parameter.clone() for parameter in denoiser.parameters()])
        after_step(torch.nn.ModuleList(decoder.learners().values()))
    # The first step is taken whole, of the second the average keeps 2 / 11, of the third 3 / 12.
    for parameter, one, two, three in zip(plain.denoising.denoiser.parameters(), *weights, strict=True):
        average = one * 2 / 11 + two * 9 / 11
        parameter.data = average * 3 / 12 + three * 9 / 12
    expected = plain.decode(target(1), generators=Generators([0]))
    ours = decoder.decode(target(1), generators=Generators([0]))
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(expected, before, atol=1e-2)


def test_a_frozen_network_is_not_averaged():
    decoder = built(average=0.5).requires_grad_(False)
    after_step(decoder)
    assert decoder.denoising.average.steps == 0
