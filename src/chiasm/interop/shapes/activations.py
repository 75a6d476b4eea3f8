"""Activations by transformers' names and by ours."""

from chiasm.errors import CheckpointError, nearest, quoted
from chiasm.nn.activations import Activation

# The first of several names is the one that is written.
NAMES: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def activation_name(theirs: str) -> Activation:
    """Our name; raises CheckpointError for an activation that parts do not have."""
    if not isinstance(theirs, str) or theirs not in NAMES:
        raise CheckpointError(f"the activation is {quoted(theirs)}{nearest(str(theirs), NAMES)}")
    return NAMES[theirs]


def their_activation(ours: str) -> str:
    return next(theirs for theirs, name in NAMES.items() if name == ours)
