"""Flamingo's gated cross-attention: silent at first, and only what a position may see."""

import pytest
import torch
from torch import nn

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.routing.gated_cross_attention import GatedCrossAttentionBlock
from chiasm.sequence import Kind, pack
from chiasm.sequence.cross_attended import CrossAttended
from chiasm.sequence.layout import Layout, attending


def build(tiny, **options):
    tiny["model"]["routing"] = {"type": "gated_cross_attention", "heads": 2, "head_width": 4, **options}
    tiny["model"]["connector"] = {"type": "perceiver_resampler", "latents": 3, "depth": 1, "heads": 2}
    recipe = load_recipe(tiny)
    return Model(recipe.model, texts=corpus(recipe)).eval(), parts.build("data", recipe.data["world"])


def opened(model):
    for name, parameter in model.routing.named_parameters():
        if name.endswith("_gate"):
            nn.init.constant_(parameter, 0.7)
    return model


def packed(model, samples):
    batch, slots = pack([[document(model.contract, each) for each in samples]])
    return PictureReader(model.contract).attach(batch, slots)


@torch.no_grad()
def test_closed_gates_leave_the_bare_language_model_bit_for_bit(tiny):
    model, _ = build(tiny)
    embeddings = model.language.embed(torch.arange(5, 12)[None])
    layout = Layout.causal(1, 7)
    gated = model.language.logits(model.language(embeddings, layout))
    tiny["model"]["routing"] = {"type": "shared"}
    bare = Model(load_recipe(tiny).model, texts=corpus(load_recipe(tiny))).eval()
    bare.language.load_state_dict(model.language.state_dict())
    assert torch.equal(bare.language.logits(bare.language(embeddings, layout)), gated)
    assert list(bare.language.state_dict()) == list(model.language.state_dict())


def test_a_picture_takes_one_position_and_is_read_through_the_gates(tiny):
    model, world = build(tiny)
    sample = next(s for s in world[0] if s.truth["task"] == "what")
    made = document(model.contract, sample)
    assert sum(kind == Kind.READ for kind in made.kinds) == 1
    batch = packed(model, [sample])
    closed = model.losses(batch)["text"].sum
    batch.read.groups[0] = torch.rand_like(batch.read.groups[0])
    assert torch.equal(model.losses(batch)["text"].sum, closed)
    opened(model)
    other = model.losses(batch)["text"].sum
    batch.read.groups[0] = torch.rand_like(batch.read.groups[0])
    assert not torch.equal(model.losses(batch)["text"].sum, other)


def test_open_gates_keep_packed_documents_apart(tiny):
    model, world = build(tiny)
    opened(model)
    samples = [s for i in range(3) for s in world[i] if s.truth["task"] == "what"][:3]
    with torch.no_grad():
        together = model.losses(packed(model, samples))["text"].sum
        alone = sum(model.losses(packed(model, [each]))["text"].sum for each in samples)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_which_pictures_each_position_knows():
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, -1], [0, 0, 0, 0, 0, 1, 1]])
    images = CrossAttended.of(torch.zeros(5, 2), [2, 1, 2], torch.tensor([1, 4, 9]), documents)
    assert images.owners.tolist() == [0, 0, 1, 2, 2]
    assert images.first.tolist() == [[0, 0, 0, 1, 1, 1, 2], [2, 2, 2, 2, 2, 3, 3]]
    assert images.latest.tolist() == [[-1, 0, 0, 0, 1, 1, 1], [1, 1, 2, 2, 2, 2, 2]]
    assert images.end.tolist() == [[1, 1, 1, 2, 2, 2, 2], [3, 3, 3, 3, 3, 3, 3]]
    assert images.continued(2).latest.tolist() == [[0, 0], [2, 2]]


def test_text_looks_at_its_latest_picture_alone_and_before_the_first_at_none():
    torch.manual_seed(0)
    block, x, tokens = (
        GatedCrossAttentionBlock(8, 6, 2, 4, 16, False),
        torch.randn(1, 4, 8),
        torch.randn(4, 6),
    )
    images = CrossAttended.of(tokens, [2, 2], torch.tensor([1, 3]), torch.zeros(1, 4, dtype=torch.long))
    read = block.attend(x, images)
    assert torch.equal(read[0, 0], torch.zeros(8))
    other = torch.cat([tokens[:2], torch.randn(2, 6)])
    again = block.attend(
        x, CrossAttended.of(other, [2, 2], torch.tensor([1, 3]), torch.zeros(1, 4, dtype=torch.long))
    )
    assert torch.equal(read[0, :3], again[0, :3])
    assert not torch.equal(read[0, 3], again[0, 3])


@pytest.mark.parametrize("looks_at_all", [False, True])
@pytest.mark.parametrize("counts", [(1, 1), (2, 1), (0, 1), (2, 0)])
def test_rows_read_the_same_side_by_side_and_alone(looks_at_all, counts):
    torch.manual_seed(0)
    block, x = GatedCrossAttentionBlock(8, 6, 2, 4, 16, looks_at_all), torch.randn(2, 5, 8)
    alone, tokens, places = [], [], []
    for row, count in enumerate(counts):
        own, stand = torch.randn(3 * count, 6), torch.tensor([1, 3][:count], dtype=torch.long)
        documents = torch.zeros(1, 5, dtype=torch.long)
        images = CrossAttended.of(own, [3] * count, stand, documents) if count else None
        alone.append(block.attend(x[row : row + 1], images) if images else torch.zeros(1, 5, 8))
        tokens.append(own)
        places.append(stand + 5 * row)
    images = CrossAttended.of(
        torch.cat(tokens), [3] * sum(counts), torch.cat(places), torch.zeros(2, 5, dtype=torch.long)
    )
    torch.testing.assert_close(block.attend(x, images), torch.cat(alone))


def test_a_block_adds_what_it_read_and_then_its_mlp_each_through_its_gate():
    torch.manual_seed(0)
    block, x = GatedCrossAttentionBlock(8, 6, 2, 4, 16, False), torch.randn(1, 4, 8)
    images = CrossAttended.of(torch.randn(3, 6), [3], torch.tensor([1]), torch.zeros(1, 4, dtype=torch.long))
    torch.nn.init.constant_(block.attention_gate, 0.7)
    torch.nn.init.constant_(block.mlp_gate, -0.4)
    looked = x + torch.tanh(torch.tensor(0.7)) * block.attend(x, images)
    torch.testing.assert_close(block(x, images), looked + torch.tanh(torch.tensor(-0.4)) * block.mlp(looked))
    torch.testing.assert_close(block(x, None), x + torch.tanh(torch.tensor(-0.4)) * block.mlp(x))
    layer, more = nn.Identity(), torch.ones(1)
    with attending(Layout.causal(1, 4)):
        assert torch.equal(block.enter(layer, (x, more), {})[0][0], block(x, None))
        assert block.enter(layer, (x, more), {"a": 1})[0][1] is more
        _, named = block.enter(layer, (), {"hidden_states": x, "a": 1})
    assert torch.equal(named["hidden_states"], block(x, None))
    assert named["a"] == 1


class Tower(nn.Module):
    """A language model whose outermost list that holds something is its layers."""

    def __init__(self):
        super().__init__()
        self.width, self.before = 8, nn.ModuleList()
        self.layers = nn.ModuleList(nn.Sequential(nn.ModuleList([nn.Linear(8, 8)])) for _ in range(4))


@pytest.mark.parametrize(("every", "places"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2]), (4, [3])])
def test_a_block_stands_before_every_nth_layer(every, places):
    torch.manual_seed(0)
    routing = parts.build("routing", {"type": "gated_cross_attention", "every": every}, Tower(), 6)
    assert list(routing.blocks) == [str(place) for place in places]
    assert routing.marker.shape == (1, 8)
    assert 0.005 < float(routing.marker.detach().std()) < 0.05


def test_without_options_it_has_eight_heads_of_64_before_every_layer_and_an_mlp_of_four_widths():
    routing = parts.build("routing", {"type": "gated_cross_attention"}, Tower(), 6)
    assert len(routing.blocks) == 4
    for block in routing.blocks.values():
        assert (block.heads, block.looks_at_all, block.mlp[1].out_features) == (8, False, 4 * 8)
        assert block.key.weight.shape == (8 * 64, 6)
        assert not any(
            name.endswith("bias")
            for name, _ in block.named_parameters()
            if "norm" not in name and "mlp.0" not in name
        )
        assert float(block.attention_gate) == float(block.mlp_gate) == 0
    spec = {"type": "gated_cross_attention", "hidden": 5, "looks_at": "all"}
    block = parts.build("routing", spec, Tower(), 6).blocks["0"]
    assert (block.mlp[1].out_features, block.looks_at_all) == (5, True)
    tower = Tower()
    del tower.layers
    with pytest.raises(RecipeError, match="found no layers in the language model"):
        parts.build("routing", spec, tower, 6)


def test_every_nth_layer_has_a_block(tiny):
    model, _ = build(tiny, every=2)
    assert list(model.routing.blocks) == ["1"]
    with pytest.raises(RecipeError, match="every 3th layer of 2"):
        build(tiny, every=3)
