"""What every registered part must keep, from the day it is registered: one tiny model a part.

A part brings its own example (`Part.example`). Parts of a file outside the package are tried too with
`pytest tests/test_contracts.py --plugin FILE`.
"""

import pickle
from collections import Counter
from contextlib import contextmanager
from copy import deepcopy
from functools import cache

import pytest
import torch
from PIL import Image

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.data.documents import document, draw_prompt, prompt_of, writes_picture
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.distribution.processes import Ranks
from chiasm.errors import RecipeError
from chiasm.heads import Sampling
from chiasm.heads.denoising import TokenDenoising
from chiasm.inference.drawing import decode, draw
from chiasm.inference.session import Session
from chiasm.model import Model
from chiasm.model.checkpoint import load_model, save_model
from chiasm.nn.generators import Generators
from chiasm.nn.indivisible import reasons
from chiasm.nn.losses import objective
from chiasm.recipe import Stage, load_recipe
from chiasm.recipe.slots import MODEL_SLOTS
from chiasm.recipe.stages import without_weights
from chiasm.sequence import pack
from chiasm.training.aims import DocumentsAim, TokenizerAim
from chiasm.training.optimiser import build_optimiser
from chiasm.training.step import TrainStep
from chiasm.training.train import build_model
from tiny_recipe import TINY


def fits(order, alphabet):
    """Whether both write one space, and the order takes alphabets of that kind."""
    order, alphabet = parts.lookup("order", order), parts.lookup("alphabet", alphabet)
    if order.name == "u_vit" and issubclass(alphabet, TokenDenoising):
        return False
    return parts.takes(order, "alphabet", alphabet)


# Every order with every alphabet that fits, and a network with every quantizer.
HEADS = {
    f"{order}-{alphabet}": (order, alphabet)
    for order in parts.names("order")
    for alphabet in parts.names("alphabet")
    if fits(order, alphabet)
}
EVERY = [
    (slot, name)
    for slot, kind in MODEL_SLOTS.items()
    for name in (HEADS if kind == "order" else parts.names(kind))
]
EVERY.remove(("image_tokenizer", "vqgan"))
IMAGE = Image.effect_mandelbrot((48, 32), (-2, -1, 1, 1), 20).convert("RGB")
EVERY += [("image_tokenizer", f"vqgan.{name}") for name in parts.names("quantizer")]


def head_of(name):
    """A head, and what it needs beside it."""
    order, alphabet = (parts.lookup(*each) for each in zip(("order", "alphabet"), HEADS[name], strict=True))
    spec = {"type": order.name, **order.example(), "alphabet": {"type": alphabet.name, **alphabet.example()}}
    if "grid" in parts.options(order) and alphabet.conditions:
        spec["grid"] = [1, 4]
    return {"heads": {"image": spec}, **order.example_neighbours(), **alphabet.example_neighbours()}


def part_of(slot, name):
    """A part, and what it needs beside it."""
    network, _, quantizer = name.partition(".")
    part = parts.lookup(MODEL_SLOTS[slot], network)
    spec = {"type": network, **part.example()}
    if quantizer:
        spec["quantizer"] = {"type": quantizer, **parts.lookup("quantizer", quantizer).example()}
    return {**part.example_neighbours(), slot: spec}


@pytest.fixture(scope="module", params=EVERY, ids=lambda each: "-".join(each))
def part(request):
    return request.param


@cache
def texts():
    """What vocabularies are learnt from, read once: it is the same with every part."""
    return list(corpus(load_recipe(deepcopy(TINY))))


@pytest.fixture(scope="module")
def built(part):
    """A recipe with the part in its slot, its model and some samples, once for all tests of the part."""
    slot, name = part
    raw = deepcopy(TINY)
    raw["model"] |= head_of(name) if name in HEADS else part_of(slot, name)
    raw["model"] = {slot: spec for slot, spec in raw["model"].items() if spec is not None}
    if name.startswith("caption-"):
        raw["data"]["world"]["tasks"] = {"what": 1, "captioned": 1}
    if slot == "heads.mask":
        raw["data"]["world"]["tasks"] = {"what": 1, "draw": 1, "segment": 2}
    tokenizer = raw["model"].get("image_tokenizer")
    if tokenizer is None or without_weights(tokenizer) is not None:
        raw["stages"] = raw["stages"][1:]
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=texts())
    world = parts.build("data", recipe.data["world"])
    return recipe, model, [sample for i in range(3) for sample in world[i]]


@pytest.fixture
def made(built):
    """As `built`, with a copy of the model, as tests change it."""
    recipe, model, samples = built
    return recipe, deepcopy(model), samples


def losses(model, documents):
    batch, slots = pack([documents])
    return model.losses(PictureReader(model.contract).attach(batch, slots))


def test_promised_tokens_are_made_and_every_loss_is_finite(made):
    _, model, samples = made
    for training in (True, False):
        batch_losses = losses(model.train(training), [document(model.contract, sample) for sample in samples])
        image = "diffusion" if model.conditions else "image"
        assert set(batch_losses) >= {image, *(["text"] if model.language.says else [])}
        assert all(torch.isfinite(loss.sum) and loss.count > 0 for loss in batch_losses.values())
    span = model.contract.span
    if span is not None:
        assert [place for place, _, _ in span.coordinates] == list(range(span.length))


COUNTING = [each for each in EVERY if each[0] in ("views", "encoder", "connector", "language")]


@pytest.mark.parametrize("part", COUNTING, indirect=True, ids="-".join)
def test_what_the_data_side_knows_of_a_model_counts_the_same_in_another_process(made):
    _, model, samples = made
    away = pickle.loads(pickle.dumps(model.contract))
    batches = [PictureReader(each).attach(*pack([[document(each, sample) for sample in samples]]))
               for each in (model.contract, away)]  # fmt: skip
    ids, pixels = ([getattr(each, name) for each in batches] for name in ("ids", "read"))
    assert torch.equal(*ids)
    for one, other in zip(*(each.groups for each in pixels), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(*(each.sources for each in pixels))
    assert [each.tokens for each in pixels] == 2 * [pixels[0].tokens]


def test_all_that_learns_gets_a_gradient_and_nothing_frozen_does(part, made):
    _, model, samples = made
    slot = learner(part, model)
    model.train_only([slot])
    if slot == "image_tokenizer":
        objective(model.image_tokenizer.losses(torch.stack(images_of(model, samples)))).backward()
    else:
        objective(losses(model, [document(model.contract, sample) for sample in samples])).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, f"{name} is frozen but got a gradient"
        else:
            assert parameter.grad is not None, f"{name} learns but got no gradient"


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A checkpoint of a model that sees and answers, and draws nothing."""
    raw = deepcopy(TINY)
    raw["model"] = {
        key: each for key, each in raw["model"].items() if key not in ("image_tokenizer", "heads")
    }
    recipe = load_recipe(raw | {"stages": []})
    model = Model(recipe.model, texts=texts()).eval()
    with torch.no_grad():
        for parameter in model.language.parameters():
            parameter.mul_(4)  # so that answers depend on questions
    folder = tmp_path_factory.mktemp("checkpoints") / "seeing"
    save_model(model, recipe, folder)
    return folder


@pytest.mark.parametrize("name", HEADS)
def test_a_model_that_gains_a_head_says_what_it_said_bit_for_bit(name, seeing):
    gained = {"image_tokenizer": TINY["model"]["image_tokenizer"], **head_of(name)}
    gained = {slot: spec for slot, spec in gained.items() if spec is not None and slot != "language"}
    raw = {"name": "gaining", "start": str(seeing), "model": gained, "data": {}, "stages": []}
    alone, model = load_model(seeing), build_model(load_recipe(raw)).eval()
    model.train_only([slot for slot in ("heads.image", "image_decoder") if slot in model.slots()])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # as a stage that teaches the head may leave them
                parameter.add_(torch.randn_like(parameter))
    words = len(alone.language.tokenizer)
    for question in ("What is it?", "Where is the dog?", "How many?"):
        sample = Sample("a question", (Message("user", (PictureInMemory(IMAGE), question)),))
        logits = [
            each.language.logits(Session(each, [document(each.contract, sample, prompt=True)]).last)[
                :, :words
            ]
            for each in (alone, model)
        ]
        assert torch.equal(*logits)
        message = [{"role": "user", "content": [IMAGE, question]}]
        assert str(model.chat(message, tokens=6)) == str(alone.chat(message, tokens=6))


def test_no_document_sees_another(made):
    _, model, samples = made
    documents = [document(model.contract, sample) for sample in samples[:4]]
    batch, _ = pack([documents])
    for training in (True, False):
        embeddings = torch.randn(*batch.ids.shape, model.language.width, requires_grad=True)
        hidden = model.train(training).language(embeddings, batch.layout)
        hidden[0, batch.documents[0] == 1].sum().backward()
        assert embeddings.grad[0, batch.documents[0] != 1].abs().sum() == 0
        assert embeddings.grad[0, batch.documents[0] == 1].abs().sum() > 0


def test_packed_loss_is_the_sum_of_the_unpacked(made):
    _, model, samples = made
    model.eval()
    documents = [document(model.contract, sample) for sample in samples]
    with torch.no_grad():
        packed = losses(model, documents)
        alone = [losses(model, [each]) for each in documents]
    for name, loss in packed.items():
        total = sum(each[name].sum for each in alone if name in each)
        torch.testing.assert_close(loss.sum, total, rtol=1e-4, atol=1e-3)


def learner(part, model):
    """The slot of the part; the connector where it has nothing to learn, or decodes, which no document teaches."""
    learns = part[0] not in ("views", "image_decoder") and any(
        True for _ in model.slots()[part[0]].parameters()
    )
    return part[0] if learns and getattr(model.slots()[part[0]], "learns", True) else "connector"


def aim_of(model, stage):
    return TokenizerAim(model) if "image_tokenizer" in stage.train else DocumentsAim(model)


@contextmanager
def unrandom(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "exponential_", lambda self, *_, **__: self.fill_(1.0))
        patched.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)
        torch.manual_seed(0)
        yield


def stepped(model, stage, micro_batches, monkeypatch):
    """Gradients and losses of one step of a copy of the model; what is drawn is the same for every sample."""
    model = deepcopy(model)
    model.train_only(stage.train)
    step = TrainStep(aim_of(model, stage), build_optimiser(model, stage), stage, Ranks(), torch.device("cpu"))
    with unrandom(monkeypatch):
        outcome = step(micro_batches)
    return outcome, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_same_step(one, other):
    assert one[0].losses == pytest.approx(other[0].losses, rel=1e-4, abs=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-3, atol=1e-5 * one[0].norm, msg=name)


def stage_of(part, model, **options):
    """A stage that trains the part, or what else learns from documents (`learner`)."""
    slot = learner(part, model)
    options = {"steps": 1, "rows": 1, "precision": "fp32", "clip": 1e9} | options
    return Stage(name="learn", train={slot: 1e-3}, data={"world": 1.0}, **options)


def batch_of(model, rows):
    batch, slots = pack(rows)
    return PictureReader(model.contract).attach(batch, slots)


def images_of(model, samples):
    return [
        PictureReader(model.contract).target(item)
        for s in samples for m in s.messages for item in m.content if not isinstance(item, str)
    ]  # fmt: skip


def objective_and_gradient(model, stage, batches, monkeypatch):
    """Of a step over these batches, also where it may not be shared out; draws as in `stepped`."""
    model = deepcopy(model)
    model.train_only(stage.train)
    aim = aim_of(model, stage)
    with unrandom(monkeypatch):
        batch_losses = [aim.losses(batch) for batch in batches]
    counts = Counter()
    for each in batch_losses:
        counts.update({name: float(loss.count) for name, loss in each.items()})
    value = sum(objective(each, counts) for each in batch_losses)
    value.backward()
    return value.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_a_step_over_batches_of_one_is_a_step_over_one_batch_of_all(part, made, monkeypatch):
    """In training mode. What refuses it says why, and is right to: it is no sum over samples."""
    _, model, samples = made
    if learner(part, model) == "image_tokenizer":
        images = {image.numpy().tobytes(): image for image in images_of(model, samples)}.values()
        assert len(images) > 2, "different ones, else they are one another's mean"
        whole, apart = [torch.stack(list(images))], [image[None] for image in images]
    else:
        documents = [document(model.contract, sample) for sample in samples[:6]]
        whole = [batch_of(model, [[each] for each in documents])]
        apart = [batch_of(model, [[each]]) for each in documents]
    stage = stage_of(part, model, accumulate=len(apart))
    model.train_only(stage.train)
    why = [
        reason for module in aim_of(model, stage).modules() for reason in reasons(module, ranks=False, rows=1)
    ]
    if why:
        with pytest.raises(RecipeError) as refusal:
            stepped(model, stage, apart, monkeypatch)
        assert f"accumulates over {len(apart)} batches, but {why[0]}" in str(refusal.value)
        one, other = (objective_and_gradient(model, stage, each, monkeypatch) for each in (whole, apart))
        assert any((a - b).norm() > 1e-4 * a.norm() for a, b in zip(one, other, strict=True))
        return
    together = stepped(model, stage_of(part, model), whole, monkeypatch)
    assert_same_step(together, stepped(model, stage, apart, monkeypatch))


def test_packed_is_unpacked_in_training_too(part, made, monkeypatch):
    _, model, samples = made
    if learner(part, model) == "image_tokenizer":
        pytest.skip("it learns from images, which are not packed")
    documents = [document(model.contract, sample) for sample in samples[:6]]
    stage = stage_of(part, model)
    packed = stepped(model, stage, [batch_of(model, [documents])], monkeypatch)
    assert_same_step(packed, stepped(model, stage, [batch_of(model, [[d] for d in documents])], monkeypatch))


def test_saved_and_loaded_it_is_the_same_bit_for_bit(made, tmp_path):
    recipe, model, samples = made
    save_model(model, recipe, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert set(model.state_dict()) == set(again.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    documents = [document(model.contract, sample) for sample in samples]
    for training in (True, False):
        batch_losses = []
        for each in (model, again):
            torch.manual_seed(0)
            with torch.no_grad():
                batch_losses.append(losses(each.train(training), documents))
        assert {name: loss.sum for name, loss in batch_losses[0].items()} == {
            name: loss.sum for name, loss in batch_losses[1].items()
        }


def test_the_cache_equals_a_full_pass(made):
    _, model, samples = made
    if not model.language.says:
        pytest.skip("it reads all of a text at once and says nothing")
    model.eval()
    asked = document(
        model.contract, prompt_of(next(s for s in samples if s.truth["task"] == "what")), prompt=True
    )
    more = [5, 9, 7]
    with torch.no_grad():
        session = Session(model, [asked])
        stepped = [session.last] + [session.step_text(torch.tensor([id])) for id in more]
        asked.add_text(more, learn=False)
        full = Session(model, [asked])
    torch.testing.assert_close(stepped[-1], full.last, atol=1e-5, rtol=1e-4)


def test_a_picture_of_a_batch_is_the_one_that_its_prompt_and_seed_give_alone(made):
    _, model, samples = made
    model.eval()
    prompts = [draw_prompt(model.contract, prompt_of(s)) for s in samples if writes_picture(s)][:2]
    sampling = Sampling(guidance=1.5)
    codes = draw(model, prompts, sampling, generators=Generators(range(len(prompts))))
    alone = draw(model, prompts[-1:], sampling, generators=Generators([len(prompts) - 1]))
    if codes.is_floating_point():  # the last bits of a vector may depend on what else is in a batch
        torch.testing.assert_close(codes[-1:], alone)
    else:
        assert torch.equal(codes[-1:], alone)
    pixels = decode(model, codes, guidance=sampling.guidance)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@pytest.mark.parametrize("slot", [*MODEL_SLOTS.values(), "alphabet", "quantizer"])
def test_every_option_is_documented(slot):
    for name in parts.names(slot):
        for option in parts.options(parts.lookup(slot, name)).values():
            assert option.help, f"{slot}.{name}.{option.name} has no line under Args: in its docstring"
