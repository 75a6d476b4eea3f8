import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.interop.shapes.activations import NAMES, activation_name, their_activation
from chiasm.nn.activations import activation


@pytest.mark.parametrize("theirs", NAMES)
def test_an_activation_is_that_of_transformers(theirs):
    from transformers.activations import ACT2FN

    x = torch.linspace(-4, 4, 41)
    torch.testing.assert_close(
        activation(activation_name(theirs))(x), ACT2FN[theirs](x), atol=1e-6, rtol=1e-5
    )


def test_names_come_back():
    assert all(activation_name(their_activation(ours)) == ours for ours in NAMES.values())


def test_an_unknown_activation_is_told():
    with pytest.raises(CheckpointError, match="'gellu'"):
        activation_name("gellu")
