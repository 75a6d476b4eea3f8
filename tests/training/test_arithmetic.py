"""A step by hand: weights of losses, means over micro-batches, clipping, betas, decay, the scale of Muon."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toy import Squares, raw, toy

from chiasm.data import Message, Sample
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss, objective
from chiasm.recipe import Stage, load_recipe
from chiasm.sequence import pack
from chiasm.training.aims import Aim, DocumentsAim, TokenizerAim
from chiasm.training.optimiser import build_optimiser, optimiser_state, restore_optimiser
from chiasm.training.step import TrainStep, uses_bf16
from chiasm.training.train import build_model

CPU = torch.device("cpu")


class Slopes(Aim):
    """Losses that are straight lines in two weights: each batch says how steep, by name (sum, count, weight)."""

    def __init__(self):
        self.names = {"a", "b"}
        self.weight = nn.Parameter(torch.tensor([2.0, 5.0]))
        self.forgotten = self.stepped = 0

    def losses(self, batch):
        return {
            name: Loss(self.weight[i] * slope, torch.tensor(float(count)), weight)
            for i, (name, (slope, count, weight)) in enumerate(batch.items())
        }

    def counts(self, batch):
        return {name: float(count) for name, (_, count, _) in batch.items()}

    def after_step(self):
        self.stepped += 1

    def forget(self):
        self.forgotten += 1


class Batch(dict):
    """Of `Slopes`: by name, the slope, the number of terms and the loss's own weight."""

    def to(self, device):
        return self


def stage(**options):
    options = {"train": {"language": 1e-3}, "clip": 1e9, "precision": "fp32"} | options
    return Stage(name="s", data={"squares": 1.0}, steps=4, **options)


def step_of(aim, **options):
    made = torch.optim.SGD([{"params": [aim.weight]}], lr=1.0)
    return TrainStep(aim, made, stage(**options), Ranks(), CPU)


def test_a_loss_counts_by_its_own_weight_times_the_stages():
    aim = Slopes()
    outcome = step_of(aim, weights={"b": 3.0})([Batch(a=(4.0, 2, 0.5), b=(6.0, 3, 0.25))])
    assert outcome.losses == {"a": 2.0 * 4 / 2, "b": 5.0 * 6 / 3}
    assert outcome.objective == pytest.approx(0.5 * 4 + 0.25 * 3 * 10)
    torch.testing.assert_close(aim.weight.grad, torch.tensor([0.5 * 4 / 2, 0.25 * 3 * 6 / 3]))


def test_micro_batches_are_divided_by_the_terms_of_all():
    """Three terms and one, not the mean of two means."""
    aim = Slopes()
    outcome = step_of(aim, accumulate=2)([Batch(a=(6.0, 3, 0.5)), Batch(a=(10.0, 1, 0.5))])
    assert outcome.losses == {"a": 2.0 * (6 + 10) / 4}
    assert outcome.objective == pytest.approx(0.5 * 8)
    torch.testing.assert_close(aim.weight.grad, torch.tensor([0.5 * 16 / 4, 0.0]))


def test_other_counts_than_were_promised_are_refused():
    aim = Slopes()
    aim.counts = lambda batch: {"a": 2.0}
    with pytest.raises(ChiasmError, match=r"\{'a': 2.0\} were promised, not \{'a': 3.0\}"):
        step_of(aim, accumulate=2)([Batch(a=(6.0, 3, 1.0)), Batch(a=(6.0, 3, 1.0))])


@pytest.mark.parametrize(("clip", "shrunk"), [(10.0, 1.0), (0.5, 0.1)])
def test_a_gradient_longer_than_clip_is_shortened_to_it_and_reported_whole(clip, shrunk):
    """A gradient of (3, 4) is 5 long."""
    aim = Slopes()
    outcome = step_of(aim, clip=clip)([Batch(a=(3.0, 1, 1.0), b=(4.0, 1, 1.0))])
    assert outcome.norm == pytest.approx(5.0)
    torch.testing.assert_close(aim.weight.data, torch.tensor([2 - 3 * shrunk, 5 - 4 * shrunk]))
    assert (aim.stepped, aim.forgotten) == (1, 0)


def test_a_step_that_is_skipped_is_forgotten():
    aim = Slopes()
    assert step_of(aim)([Batch(a=(float("inf"), 1, 1.0))]).skipped
    assert (aim.stepped, aim.forgotten) == (0, 1)
    assert aim.weight.tolist() == [2.0, 5.0]


def test_a_loss_without_terms_is_zero_and_no_nonsense():
    nothing = Loss(torch.zeros((), requires_grad=True), torch.tensor(0.0), 2.0)
    assert float(nothing.mean.detach()) == 0.0
    for counts in (None, {"a": 0.0}):
        value = objective({"a": nothing}, counts)
        value.backward()
        assert float(value.detach()) == 0.0
    assert torch.isfinite(nothing.sum.grad)


@pytest.mark.parametrize("batches", [1, 2])
def test_a_step_in_which_a_loss_has_no_terms_reports_it_as_zero(batches):
    """As the loss of images, where none came up."""
    aim = Slopes()
    outcome = step_of(aim, accumulate=batches)([Batch(a=(6.0, 3, 0.5), b=(0.0, 0, 2.0))] * batches)
    assert outcome.losses == {"a": 2.0 * 6 / 3, "b": 0.0}
    assert (outcome.objective, outcome.skipped) == (pytest.approx(0.5 * 4), False)
    torch.testing.assert_close(aim.weight.grad, torch.tensor([0.5 * 6 / 3, 0.0]))


def test_losses_of_one_name_are_one_mean():
    both = Loss(torch.tensor(6.0), torch.tensor(3.0), 0.5) + Loss(torch.tensor(2.0), torch.tensor(1.0), 0.5)
    assert (float(both.mean), both.weight) == (2.0, 0.5)
    assert float(objective({"a": both})) == 1.0
    assert float(objective({"a": both}, {"a": 16.0})) == 0.25


def model_of(*parameters):
    """A stand-in of a model whose `language` holds these weights; the last is the head over the vocabulary."""
    language = nn.Module()
    language.name, language.head = "stand-in", nn.Linear(1, 1, bias=False)
    language.layers = nn.ModuleList(nn.Linear(p.shape[1], p.shape[0], bias=False) for p in parameters)
    for layer, parameter in zip(language.layers, parameters, strict=True):
        layer.weight.data.copy_(parameter)
    return SimpleNamespace(
        slots=lambda: {"language": language}, language=language, device=CPU, speaks=True
    ), language


def test_adamw_has_the_stages_betas_and_decay_by_hand():
    start, gradients = torch.tensor([[2.0]]), (0.5, -0.25)
    model, language = model_of(start)
    made = build_optimiser(model, stage(betas=(0.8, 0.5), weight_decay=0.1))
    weight, first, second = 2.0, 0.0, 0.0
    for i, gradient in enumerate(gradients, 1):
        language.layers[0].weight.grad = torch.tensor([[gradient]])
        made.step()
        first, second = 0.8 * first + 0.2 * gradient, 0.5 * second + 0.5 * gradient**2
        weight -= 1e-3 * 0.1 * weight
        weight -= 1e-3 * (first / (1 - 0.8**i)) / ((second / (1 - 0.5**i)) ** 0.5 + 1e-8)
    assert language.layers[0].weight.item() == pytest.approx(weight, abs=1e-6)


def test_muon_steps_as_far_as_adamw_and_decays_as_the_stage_says():
    """An orthogonal matrix of m x n has a root mean square of 1/sqrt(max(m, n)); AdamW's updates have about 0.2."""
    torch.manual_seed(0)
    steps = {}
    for decay in (0.0, 0.1):
        model, language = model_of(torch.ones(16, 64), torch.ones(64, 16))
        made = build_optimiser(model, stage(optimiser="muon", weight_decay=decay))
        generator = torch.Generator().manual_seed(0)
        for layer in language.layers:
            layer.weight.grad = torch.randn(layer.weight.shape, generator=generator)
        made.step()
        steps[decay] = [(1 - layer.weight.detach()) / 1e-3 for layer in language.layers]
    for step, decayed in zip(steps[0.0], steps[0.1], strict=True):
        assert float(step.square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)  # Newton-Schulz is rough
        torch.testing.assert_close(decayed - step, torch.full_like(step, 0.1), atol=1e-3, rtol=0)


def test_a_state_that_is_put_back_is_a_copy():
    """What was read may be a file, mapped into memory; a step must not change it."""
    model, language = model_of(torch.ones(2, 2))
    made = build_optimiser(model, stage())
    language.layers[0].weight.grad = torch.ones(2, 2)
    made.step()
    saved = {name: tensor.clone() for name, tensor in optimiser_state(made).items()}
    before = copy.deepcopy(saved)
    again = build_optimiser(model, stage())
    restore_optimiser(again, saved)
    language.layers[0].weight.grad = torch.ones(2, 2)
    again.step()
    assert saved
    assert saved.keys() == before.keys()
    assert all(torch.equal(saved[name], before[name]) for name in saved)


def test_the_vocabularys_own_head_is_not_muons():
    model, _ = model_of(torch.ones(2, 2))
    made = build_optimiser(model, stage(optimiser="muon"))
    names = [name for group in made.muon.param_groups for name in group["names"]]
    assert names == ["language.layers.0.weight"]


def gradients(model, micro_batches, chosen):
    model = copy.deepcopy(model)
    model.train_only(chosen.train)
    step = TrainStep(DocumentsAim(model), build_optimiser(model, chosen), chosen, Ranks(), CPU)
    outcome = step([attached(model, rows) for rows in micro_batches])
    return outcome, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def attached(model, rows):
    batch, slots = pack(rows)
    return PictureReader(model.contract).attach(batch, slots)


def assert_same(one, other):
    assert one[0].losses == pytest.approx(other[0].losses, rel=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=1e-6, msg=name)


ALPHABETS = {
    "own": {},
    "shared": {"first": 0},
    "factorised": {"bits": [1, 3], "depth": 1, "heads": 4, "hidden": 16},
}


def wordless(name):
    """A model of visual sentences: images follow one another with nothing before them and nothing between."""
    recipe = raw()
    for slot in ("views", "encoder", "connector"):
        del recipe["model"][slot]
    recipe["model"]["language"] |= {"vocabulary": 0, "draw_marker": None}
    recipe["model"]["language"]["config"] |= {"vocab_size": 32, "tie_word_embeddings": False}
    alphabet = {"type": name, **ALPHABETS[name]}
    recipe["model"]["heads"] = {"image": {"type": "raster", "alphabet": alphabet, "unconditional": 0.0}}
    recipe["stages"][1]["train"] = {"language": 1e-3}
    return build_model(load_recipe(recipe))


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_visual_sentences_count_their_first_code_in_no_batch(alphabet):
    """Two images of 2 x 2 codes with nothing before them are seven terms, however they are batched."""
    model = wordless(alphabet)
    images = [Squares()[index][1].messages[1].content[0] for index in range(4)]
    sentences = [
        document(model.contract, Sample(f"sentence {i}", (Message("document", tuple(images[i : i + 2])),)))
        for i in range(3)
    ]
    aim = DocumentsAim(model)
    assert [aim.counts(attached(model, [[each]])) for each in sentences] == [{"image": 7.0}] * 3
    assert aim.counts(attached(model, [sentences])) == {"image": 21.0}
    whole = gradients(model, [[[each] for each in sentences]], stage())
    assert whole[1]
    apart = gradients(model, [[sentences[:1]], [[each] for each in sentences[1:]]], stage(accumulate=2))
    assert_same(whole, apart)


def test_a_routing_without_a_balance_accumulates_and_one_with_it_is_weighed():
    free, balanced = (
        build_model(toy(f"model.routing={{type: moe, experts: 2, noise: never, balance: {balance}}}"))
        for balance in (0.0, 0.5)
    )
    samples = [document(free.contract, Squares()[index][0]) for index in range(2)]
    rows = [[each] for each in samples]
    train = {"routing": 1e-3, "language": 1e-3}
    whole = gradients(free, [rows], stage(train=train))
    assert set(whole[0].losses) == {"text"}
    assert_same(whole, gradients(free, [[row] for row in rows], stage(train=train, accumulate=2)))
    outcome, _ = gradients(balanced, [rows], stage(train=train, weights={"balance": 3.0}))
    assert outcome.objective == pytest.approx(
        outcome.losses["text"] + 0.5 * 3.0 * outcome.losses["balance"], rel=1e-5
    )


class Pair(Ranks):
    """The first of two ranks, of which the other had other losses, and as many terms of what both had."""

    def gather(self, value):
        if isinstance(value, dict):
            return [value, {"a": 3.0, "b": 1.0}]
        return [value, ({"a": 12.0, "b": 5.0}, {"a": 3.0, "b": 1.0}, {"a": 0.5, "b": 2.0})]

    def sum_gradients(self, parameters):
        pass


def test_what_is_told_of_a_step_is_that_of_all_ranks():
    aim = Slopes()
    made = torch.optim.SGD([{"params": [aim.weight]}], lr=1.0)
    outcome = TrainStep(aim, made, stage(), Pair(0, 2), CPU)([Batch(a=(4.0, 1, 0.5))])
    assert outcome.losses == {"a": (2 * 4 + 12) / 4, "b": 5.0}
    assert outcome.objective == pytest.approx(0.5 * 5 + 2 * 5)
    torch.testing.assert_close(aim.weight.grad, torch.tensor([0.5 * 4 / 4, 0.0]))


@pytest.mark.parametrize("half", [False, True])
def test_a_stage_computes_in_the_precision_that_it_asks_for(half):
    aim, seen = Slopes(), []
    losses = aim.losses

    def watched(batch):
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        return losses(batch)

    aim.losses = watched
    step_of(aim, precision="bf16" if half else "fp32")([Batch(a=(4.0, 1, 1.0))])
    assert seen == [(half, torch.bfloat16)]


def test_gradients_of_the_step_before_are_gone():
    aim = Slopes()
    step = step_of(aim)
    for _ in range(2):
        step([Batch(a=(4.0, 1, 1.0))])
        assert aim.weight.grad.tolist() == [4.0, 0.0]


class Normalised(Slopes):
    """With a module that no step of several batches, and one that no step of several ranks may have."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def modules(self):
        return (self.module,)


class OfAllRanks(Indivisible):
    def indivisible(self, *, ranks, rows):
        return f"of {rows} rows" if ranks else None


def test_what_is_of_a_whole_batch_is_refused_where_a_step_has_several():
    norm = Normalised(nn.BatchNorm1d(1))
    step_of(norm)
    with pytest.raises(
        RecipeError, match=r"accumulates over 3 batches, but .*BatchNorm1d.*, or use accumulate: 1"
    ):
        step_of(norm, accumulate=3)
    aim = Normalised(OfAllRanks())
    step_of(aim, accumulate=3)
    made = torch.optim.SGD([{"params": [aim.weight]}], lr=1.0)
    with pytest.raises(RecipeError, match="runs in 2 processes, but of 8 rows, or run it in one process"):
        TrainStep(aim, made, stage(), Ranks(0, 2), CPU)


@pytest.mark.parametrize(
    ("precision", "features", "half"),
    [
        ("bf16", (), True),
        ("fp32", ("bf16", "amx"), False),
        ("auto", (), False),
        ("auto", ("bf16",), True),
        ("auto", ("amx",), True),
        ("auto", None, False),
    ],
)
def test_a_processor_computes_in_bf16_where_it_can_unless_told_otherwise(
    monkeypatch, precision, features, half
):
    for name, feature in (("_is_avx512_bf16_supported", "bf16"), ("_is_amx_tile_supported", "amx")):
        if features is None:
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda f=feature: f in features, raising=False)
    assert uses_bf16(precision, CPU) is half


def test_cards_compute_in_bf16_where_they_have_it_and_others_do_not(monkeypatch):
    for supported in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation, s=supported: s and not including_emulation,
        )
        assert uses_bf16("auto", torch.device("cuda")) is supported
    assert uses_bf16("auto", torch.device("mps")) is False


def test_a_tokenizers_terms_are_tried_on_one_image_which_leaves_it_as_it_is():
    model = build_model(toy())
    tokenizer = model.image_tokenizer.train()
    tokenizer.encoder.eval()
    aim, images = TokenizerAim(model), torch.rand(3, 3, 16, 16)
    before, noise = copy.deepcopy(tokenizer.state_dict()), torch.get_rng_state()
    calls, losses = [], tokenizer.losses
    tokenizer.losses = lambda batch: calls.append(len(batch)) or losses(batch)
    assert aim.counts(images) == {"reconstruction": 3 * 3 * 16 * 16, "commitment": 3 * 2 * 2 * 8}
    assert aim.counts(images[:2]) == {"reconstruction": 2 * 3 * 16 * 16, "commitment": 2 * 2 * 2 * 8}
    assert calls == [1]
    assert (tokenizer.training, tokenizer.encoder.training) == (True, False)
    assert not tokenizer.quantizer._notes
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())


def test_a_codebook_is_watched_by_the_images_of_a_whole_step():
    aim, seen = TokenizerAim(build_model(toy())), []
    aim._watch.observe = seen.append
    aim.tokenizer.train()
    for sizes, learn in (((2, 3), aim.after_step), ((4,), aim.forget), ((1, 1), aim.after_step)):
        for size in sizes:
            aim.losses(torch.rand(size, 3, 16, 16))
        learn()
    assert seen == [5, 2]
    assert int(aim.tokenizer.quantizer.batches) == 2
    assert (aim.unit, DocumentsAim.unit) == ("pictures", "tokens")
    assert list(aim.modules()) == [aim.tokenizer]
    assert aim.health() == aim.tokenizer.health()


def test_an_aim_needs_to_know_no_more_than_its_losses():
    aim = Slopes()
    assert (list(Aim.modules(aim)), list(Aim.buffers(aim)), Aim.health(aim), Aim.warning(aim)) == (
        [],
        [],
        {},
        None,
    )
    assert Aim.names is None
    unnamed = Slopes()
    unnamed.names = None
    step_of(unnamed, weights={"whatever": 1.0})
