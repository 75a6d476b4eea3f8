"""What a part answers without its weights, in another process too."""

import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.connectors.mlp import MLP
from chiasm.data.contract import Contract
from chiasm.encoders import Encoder
from chiasm.encoders.hybrid import Hybrid
from chiasm.encoders.patches import Patches
from chiasm.encoders.transformers import Transformers
from chiasm.errors import DataError, RecipeError
from chiasm.parts.outline import outline
from chiasm.views import Size
from chiasm.views.framed import Framed
from chiasm.views.whole import Whole


@dataclass
class Setting:
    factor: int


class Folded(MLP):
    """A stranger's connector: counts by a dataclass, its parent, a property and the shape of a weight."""

    def __init__(self, in_width, out_width):
        super().__init__(in_width, out_width)
        self.setting, self.queries = Setting(2), nn.Parameter(torch.zeros(3, out_width))

    @property
    def factor(self):
        return self.setting.factor

    def tokens(self, grid):
        return super().tokens(grid) // self.factor + len(self.queries) + self.queries.shape[0]


class Heavy(Connector):
    """Counts by a layer, which no outline has."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def tokens(self, grid):
        return self.layer.out_features

    def forward(self, grid):
        raise NotImplementedError


def elsewhere(part):
    return pickle.loads(pickle.dumps(outline(part)))


def held(value):
    """Everything within a value."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for each in (*inner, *getattr(value, "__dict__", {}).values()):
        yield from held(each)


@pytest.mark.parametrize(
    ("part", "ask"),
    [
        (Folded(4, 8), lambda part: (part.tokens((4, 6)), part.token_grid((4, 6)), part.block())),
        (Framed(8, size=16), lambda part: (part.split(Size(9, 7)), part.arrange(Size(9, 7), [(2, 2)]))),
        (Whole(size=16), lambda part: part.split(Size(9, 7))),
        (
            Hybrid(encoders=[Patches(patch_size=8), Patches(patch_size=4)], sizes=[None, 16]),
            lambda part: part.grid(32, 32),
        ),
    ],
    ids=["a stranger's", "with markers", "without weights", "parts within"],
)
def test_an_outline_answers_as_its_part_does_and_holds_no_weights(part, ask):
    assert ask(elsewhere(part)) == ask(part)
    assert not any(isinstance(each, nn.Module | Tensor) for each in held(outline(part)))


def test_an_outline_raises_what_its_part_raises():
    encoder = Hybrid(encoders=[Patches(patch_size=8), Patches(patch_size=4)], sizes=[None, 16])
    for each in (encoder, elsewhere(encoder)):
        with pytest.raises(
            RecipeError, match=r"the grids of its encoders for 16x16 pixels differ \(2x2, 4x4\)"
        ):
            each.grid(16, 16)


def test_an_encoder_with_stages_finds_the_grid_of_sizes_that_it_has_not_met():
    config = {"model_type": "convnext", "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
    encoder = Transformers(config=config)
    away = elsewhere(encoder)
    assert not any(isinstance(each, nn.Module | Tensor) for each in held(away))
    assert away.grid(64, 96) == encoder.grid(64, 96) == (8, 12)


def test_a_part_that_counts_with_its_layers_is_named_with_what_is_missing():
    class Grid(Encoder):
        def grid(self, height, width):
            return 2, 2

        def forward(self, pixels):
            raise NotImplementedError

    contract = Contract(tokenizer=None, context=8, views=Whole(size=16), encoder=Grid(), connector=Heavy())
    with pytest.raises(
        DataError, match=r"the recipe: a part counts its tokens with more than plain data: .*'layer'"
    ):
        contract.read_tokens(Size(16, 16), "the recipe")


def test_a_contract_that_is_given_parts_keeps_their_outlines():
    contract = Contract(tokenizer=None, context=8, encoder=Patches(patch_size=8), connector=MLP(4, 8))
    assert not isinstance(contract.encoder, nn.Module)
    assert (contract.encoder.grid(16, 16), contract.connector.tokens((2, 2))) == ((2, 2), 4)
