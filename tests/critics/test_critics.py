"""Perceptual and adversarial losses of image tokenizers: who learns from what, when, and how strongly."""

import pytest
import torch
from rich.console import Console
from torch.nn import functional

import chiasm
from chiasm import parts
from chiasm.critics.efficientnet_lite0 import EfficientNetLite0Distance
from chiasm.critics.patchgan import PatchGAN
from chiasm.errors import RecipeError
from chiasm.model.checkpoint import load_model
from chiasm.nn.losses import Loss, objective
from chiasm.nn.stepwise import after_step
from chiasm.recipe import load_recipe
from chiasm.training import train
from chiasm.training.loop import Training

GAN = {"type": "patchgan", "width": 8, "depth": 2, "start": 0}
VQGAN = {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1}
TAKERS = {
    "vq": {"size": 32, "width": 16, "depth": 1, "codebook_size": 16, "code_width": 8, "settle": 0},
    "vqgan": {**VQGAN, "latent_width": 8, "quantizer": {"type": "gumbel", "codebook_size": 16, "width": 8}},
    "open_magvit2": {**VQGAN, "quantizer": {"type": "lfq", "bits": 5}},
    "open_magvit2_video": {**VQGAN, "quantizer": {"type": "lfq", "bits": 5}},
    "vqgan_video": {"size": 32, "width": 32, "multipliers": [1, 1, 1], "depth": 1, "attention_levels": [2],
                    "quantizer": {"type": "nearest", "codebook_size": 16, "width": 4}},
    "multi_scale": {"scales": [1, 2, 4], "width": 32, "multipliers": [1, 1, 1, 1], "depth": 1, "code_width": 8,
                    "codebook_size": 16},
}  # fmt: skip


def tokenizer(name="vq", critics=(GAN,), **options):
    torch.manual_seed(0)
    spec = {"type": name, **TAKERS[name], **options, "critics": list(critics)}
    return parts.build("image_tokenizer", spec).train()


@pytest.mark.parametrize("name", TAKERS)
def test_a_tokenizer_and_its_discriminator_learn_each_from_its_own_loss(name):
    made = tokenizer(name, [{"type": "efficientnet_lite0"}, GAN])
    losses = made.losses(torch.rand(2, 3, made.size, made.size))
    assert list(losses)[:4] == ["reconstruction", "perceptual", "adversarial", "discriminator"]
    judge, rest = made.critics[1], [p for n, p in made.named_parameters() if not n.startswith("critics.")]
    ours = {name: loss for name, loss in losses.items() if name != "discriminator"}
    objective(ours).backward(retain_graph=True)
    assert all(p.grad is None for p in judge.parameters())
    assert sum(p.grad is not None for p in rest) > len(rest) / 2
    before = [p.grad.clone() if p.grad is not None else None for p in rest]
    losses["discriminator"].sum.backward()
    assert all(p.grad is not None for p in judge.parameters())
    assert all((p.grad is None) == (b is None) and (b is None or torch.equal(p.grad, b))
               for p, b in zip(rest, before, strict=True))  # fmt: skip


def test_clips_are_judged_frame_by_frame():
    losses = tokenizer("open_magvit2_video").video_losses(torch.rand(2, 5, 3, 32, 32))
    assert losses["adversarial"].count == losses["discriminator"].count == 10


def judged(gan, made, true, error=None, last=None):
    error = torch.tensor(1.0) if error is None else error
    return gan.losses(made, true, error, torch.zeros(1) if last is None else last)


def test_the_losses_are_hinges():
    gan = PatchGAN(start=0, width=8, depth=2, balanced=False, weight=0.3, own=0.7).eval()
    true, made = torch.rand(2, 2, 3, 32, 32)
    real, fake = gan.network(2 * true - 1), gan.network(2 * made - 1)
    losses = judged(gan, made, true)
    assert losses["adversarial"].weight == 0.3
    assert losses["discriminator"].weight == 0.7
    torch.testing.assert_close(losses["adversarial"].mean, -fake.mean())
    hinges = (functional.relu(1 - real) + functional.relu(1 + fake)).mean() / 2
    torch.testing.assert_close(losses["discriminator"].mean, hinges)
    losses = judged(PatchGAN(start=0, non_saturating=True, balanced=False).eval(), made, true)
    assert losses["adversarial"].sum > 0


def test_the_weight_balances_the_gradients_at_the_last_layer():
    gan = PatchGAN(start=0, width=8, depth=2, weight=0.5).eval()
    last = torch.full((3, 1, 1), 0.5, requires_grad=True)
    true = torch.rand(2, 3, 32, 32)
    made = true.flip(0) * last
    error = Loss.of((made - true).abs()).mean
    found = judged(gan, made, true, error, last)["adversarial"]
    (ours,) = torch.autograd.grad(found.mean, last, retain_graph=True)
    (theirs,) = torch.autograd.grad(error, last, retain_graph=True)
    assert found.weight == pytest.approx(float(0.5 * theirs.norm() / (ours.norm() + 1e-4)), rel=1e-4)
    still = judged(gan, made, true, 1e9 * error, last)["adversarial"]
    assert still.weight == pytest.approx(0.5 * 1e4)


def test_before_its_start_nobody_hears_it_and_it_does_not_learn():
    made = tokenizer(critics=[{**GAN, "start": 2, "lecam": 0.1}])
    pictures = torch.rand(2, 3, 32, 32)
    for _ in range(2):
        losses = made.losses(pictures)
        objective(losses).backward()
        after_step(made)
        assert all(losses[name].weight == 0 for name in ("adversarial", "discriminator", "lecam"))
        assert all(p.grad is None for p in made.critics.parameters())
    later = made.losses(pictures)
    assert later.keys() == losses.keys()
    assert later["adversarial"].weight > 0
    assert all(later[name].count == losses[name].count for name in losses)


def test_lecam_pulls_towards_the_averages_of_the_others():
    gan = PatchGAN(start=0, width=8, depth=2, lecam=1.0, lecam_decay=0.0).train()
    true, made = torch.rand(2, 2, 3, 32, 32)
    losses = judged(gan, made, true)
    gan.after_step()
    real, fake = gan.averages
    assert real != 0
    assert losses["lecam"].count == 2
    gan.eval()
    logits = [gan.network(2 * each - 1) for each in (true, made)]
    expected = (logits[0] - fake).relu().square().mean() + (real - logits[1]).relu().square().mean()
    torch.testing.assert_close(judged(gan, made, true)["lecam"].mean, expected)


def test_the_perceptual_distance_is_zero_of_the_same_and_grows():
    distance = EfficientNetLite0Distance(weight=2.0)
    true = torch.rand(2, 3, 64, 64)

    def of(made):
        loss = distance.losses(made, true, torch.tensor(0.0), torch.zeros(1))["perceptual"]
        assert (loss.count, loss.weight) == (2, 2.0)
        return float(loss.mean)

    assert of(true) == pytest.approx(0, abs=1e-5)
    little, much = (of((true + s * torch.randn_like(true)).clamp(0, 1)) for s in (0.05, 0.4))
    assert 0 < little < much < 4
    assert not list(distance.parameters())  # its network is nobody's to save or to train


def recipe(**critic):
    return load_recipe(
        {
            "name": "judged",
            "model": {"image_tokenizer": {"type": "vq", **TAKERS["vq"], "critics": [{**GAN, **critic}]}},
            "data": {"world": {"type": "world", "emoji": 8, "grid": 2, "objects": [1, 2], "drawn_canvas": 32,
                               "canvas": 32, "scenes": 20}},
            "stages": [{"name": "codes", "train": {"image_tokenizer": 1e-3}, "data": {"world": 1.0}, "steps": 6,
                        "rows": 4}],
            "checkpoints": {"every": 2, "keep": 2},
        }
    )  # fmt: skip


def test_a_run_that_was_killed_goes_on_bit_for_bit_discriminator_included(tmp_path, monkeypatch):
    asked = recipe(start=1, lecam=0.1)
    quiet = Console(quiet=True)
    train(asked, tmp_path / "whole", console=quiet)
    step = Training._step

    def stopping(self, *args):
        if self.position.step == 3:
            raise RuntimeError("killed")
        step(self, *args)

    monkeypatch.setattr(Training, "_step", stopping)
    with pytest.raises(RuntimeError):
        train(asked, tmp_path / "killed", console=quiet)
    monkeypatch.setattr(Training, "_step", step)
    train(asked, tmp_path / "killed", console=quiet)
    one, other = (load_model(tmp_path / name).state_dict() for name in ("whole", "killed"))
    assert any("critics.0.network" in name for name in one)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert int(one["image_tokenizer.critics.0.batches"]) == 6


def test_a_critic_that_normalises_each_batch_refuses_to_accumulate(tmp_path):
    asked = chiasm.load_recipe(recipe().model_dump(mode="json"), ["stages.codes.accumulate=2"])
    with pytest.raises(RecipeError, match="critic 'patchgan' normalises"):
        train(asked, tmp_path / "run", console=Console(quiet=True))


def test_an_unknown_option_of_a_critic_is_a_sentence():
    with pytest.raises(RecipeError, match=r"critic 'patchgan' has no option 'strat'; did you mean 'start'"):
        tokenizer(critics=[{"type": "patchgan", "strat": 3}])


@pytest.mark.parametrize("name", parts.names("critic"))
def test_every_option_is_documented(name):
    assert all(option.help for option in parts.options(parts.lookup("critic", name)).values())
