"""The slots wired together."""

import copy

import pytest
import torch

from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.errors import DataError, RecipeError
from chiasm.model import Model
from chiasm.nn.losses import Loss, objective
from chiasm.recipe import load_recipe
from chiasm.sequence import pack


def batch_of(model, documents, *, packed=True):
    rows = [documents] if packed else [[each] for each in documents]
    made, slots = pack(rows)
    return PictureReader(model.contract).attach(made, slots)


def documents_of(model, world, groups=3):
    return [document(model.contract, sample) for i in range(groups) for sample in world[i]]


def test_packed_loss_equals_the_sum_of_its_documents(tiny_model):
    model, world = tiny_model
    documents = documents_of(model, world)
    packed = model.losses(batch_of(model, documents))
    alone = [model.losses(batch_of(model, [each])) for each in documents]
    for name in ("text", "image"):
        parts = [losses[name] for losses in alone if name in losses]
        torch.testing.assert_close(
            packed[name].sum, torch.stack([p.sum for p in parts]).sum(), rtol=1e-5, atol=1e-4
        )
        assert packed[name].count == sum(p.count for p in parts)


def test_no_document_moves_another(tiny_model):
    """Each document's gradient is the same whatever stands beside it: the leak test of every model."""
    model, world = tiny_model
    documents = documents_of(model, world, groups=1)
    batch = batch_of(model, documents)
    embeddings = model.language.embed(batch.ids).detach().requires_grad_()
    hidden = model.language(embeddings, batch.layout)
    first = batch.documents[0] == 0
    hidden[0, first].sum().backward()
    assert embeddings.grad[0, first].abs().sum() > 0
    assert embeddings.grad[0, ~first].abs().sum() == 0


def test_the_same_picture_is_encoded_once(tiny_model):
    model, world = tiny_model
    documents = [
        document(model.contract, sample) for sample in world[0] if sample.truth["task"] in ("what", "where")
    ]
    batch = batch_of(model, documents)
    assert len(documents) == 2
    assert batch.read.groups[0].shape[0] == 1
    assert len(batch.read.places) == 2 * batch.read.tokens[0]


def test_text_only_batches_need_no_picture(tiny_model):
    model, world = tiny_model
    samples = [sample for sample in world[0] if sample.truth["task"] == "words"]
    assert set(model.losses(batch_of(model, [document(model.contract, s) for s in samples]))) == {"text"}


def test_what_is_frozen_gets_no_gradient_and_what_learns_gets_one(tiny_model):
    model, world = tiny_model
    model.train_only(["connector", "heads.image"])
    objective(model.losses(batch_of(model, documents_of(model, world)))).backward()
    for name, parameter in model.named_parameters():
        learns = name.startswith(("connector.", "heads.image."))
        assert (parameter.grad is not None) == learns, name
        assert not learns or parameter.grad.abs().sum() > 0, name


def test_models_that_share_a_part_share_its_first_values(tiny):
    one = Model(load_recipe(tiny).model, texts=["a"])
    other = Model(load_recipe(tiny, ["model.connector.depth=3"]).model, texts=["a"])
    for name, value in one.language.state_dict().items():
        assert torch.equal(value, other.language.state_dict()[name])
    assert not torch.equal(
        one.language.inner.lm_head.weight,
        Model(load_recipe(tiny).model, texts=["a"], seed=1).language.inner.lm_head.weight,
    )


def test_a_connector_that_breaks_its_word_is_an_error(tiny_model):
    model, world = tiny_model
    batch = batch_of(model, documents_of(model, world, groups=1))
    batch.read.tokens = [7]
    with pytest.raises(
        DataError, match=r"connector 'mlp' made 16 tokens of a grid of \(4, 4\) but promised 7"
    ):
        model.losses(batch)


def test_a_model_without_an_encoder_refuses_pictures_and_names_the_sample(tiny, tiny_model):
    _, world = tiny_model
    blind = copy.deepcopy(tiny)
    for slot in ("views", "encoder", "connector", "image_tokenizer", "heads"):
        del blind["model"][slot]
    blind["stages"] = [{**blind["stages"][1], "train": {"language": 1e-3}}]
    model = Model(load_recipe(blind).model, texts=["a"])
    seen = next(s for s in world[0] if s.truth["task"] == "what")
    with pytest.raises(DataError, match=r"scene 0 .* shows a picture, but this model has no encoder"):
        document(model.contract, seen)


def test_a_model_without_an_image_head_refuses_to_draw(tiny, tiny_model):
    _, world = tiny_model
    for slot in ("image_tokenizer", "heads"):
        del tiny["model"][slot]
    tiny["stages"] = tiny["stages"][1:]
    del tiny["stages"][0]["train"]["heads.image"]
    model = Model(load_recipe(tiny).model, texts=["a"])
    drawn = next(s for s in world[0] if s.truth["task"] == "draw")
    with pytest.raises(DataError, match="writes a picture, but this model has no image head"):
        document(model.contract, drawn)
    with pytest.raises(Exception, match="no image head"):
        model.generate("a dog")


def test_sizes_that_do_not_fit_are_an_error_before_training(tiny):
    tiny["model"]["views"]["size"] = 30
    with pytest.raises((DataError, RecipeError), match="30"):
        Model(load_recipe(tiny).model, texts=["a"])


def test_losses_are_divided_once():
    losses = {
        "a": Loss(torch.tensor(6.0), torch.tensor(3.0)),
        "b": Loss(torch.tensor(4.0), torch.tensor(1.0), 0.5),
    }
    assert objective(losses) == 6 / 3 + 0.5 * 4
    assert objective(losses, {"a": 6, "b": 2}) == 6 / 6 + 0.5 * 4 / 2


def test_a_picture_that_begins_its_document_learns_no_first_code(tiny_model):
    """Nothing stands before it: its first row would be a hidden state of another document."""
    model, _ = tiny_model
    head = model.image_head
    codes = torch.zeros(2, *model.image_tokenizer.grid, dtype=torch.long)
    span = head.prepare(codes)
    hidden = torch.randn(2, len(head.layout().rows), model.language.width)
    alone = head.losses(hidden, span._replace(orphans=torch.tensor([True, False])))["image"]
    assert float(alone.count) == 2 * head.space.length - 1
    moved = hidden.clone()
    moved[0, 0] += 1
    again = head.losses(moved, span._replace(orphans=torch.tensor([True, False])))["image"]
    assert torch.equal(again.sum, alone.sum)


@pytest.mark.parametrize("alphabet", [{}, None, [], {"type": 5}])
def test_a_head_without_an_alphabet_is_refused_by_name(tiny_model, alphabet):
    spec = copy.deepcopy(tiny_model[0].spec)
    spec["heads.image"]["alphabet"] = alphabet
    with pytest.raises(RecipeError, match=r"model\.heads\.image\.alphabet"):
        Model(spec)
