"""The aim of a stage with an objective hands everything on, and begins from the seed and the stage's name."""

from types import SimpleNamespace

import torch
from torch import nn

from chiasm.training import pretraining
from chiasm.training.pretraining import Pretraining, build_objective


class Objective(nn.Module):
    """Answers each call with its name and what it was called with."""

    names = ("contrast", "reach")

    def __init__(self):
        super().__init__()
        self.called = []

    def __getattr__(self, name):
        if name not in (
            "losses",
            "terms",
            "buffers",
            "health",
            "collapse",
            "after_step",
            "forget",
            "hand_over",
        ):
            return super().__getattr__(name)
        return lambda *given: self.called.append((name, *given)) or name

    def buffers(self):
        return "buffers"


def test_everything_is_the_objectives():
    model, objective = nn.Linear(1, 1), Objective()
    aim = Pretraining(model, objective)
    assert (aim.unit, aim.names) == ("pictures", {"contrast", "reach"})
    assert aim.losses("batch") == "losses"
    assert aim.counts("batch") == "terms"
    assert (aim.buffers(), aim.health(), aim.warning()) == ("buffers", "health", "collapse")
    aim.after_step(), aim.forget(), aim.finish()
    assert objective.called == [
        ("losses", model, "batch"),
        ("terms", "batch"),
        ("health",),
        ("collapse",),
        ("after_step", model),
        ("forget",),
        ("hand_over", model),
    ]
    aim.before_step(0.25)
    assert objective.done == 0.25
    assert list(aim.modules()) == [model, objective]


def test_its_first_weights_depend_on_the_seed_and_the_stages_name_alone(monkeypatch):
    built = []

    def build(slot, spec, setting, where):
        built.append((slot, spec, setting, where))
        return nn.Linear(3, 3)

    monkeypatch.setattr(pretraining.parts, "build", build)
    model = SimpleNamespace(device=torch.device("cpu"))
    batches = SimpleNamespace(size=7, labels="labels")

    def weights(seed, name, noise):
        torch.manual_seed(noise)
        stage = SimpleNamespace(name=name, objective={"type": "contrastive"})
        return build_objective(model, stage, batches, seed).weight

    first = weights(0, "a", 1)
    assert torch.equal(first, weights(0, "a", 2))
    assert not torch.equal(first, weights(1, "a", 1))
    assert not torch.equal(first, weights(0, "b", 1))
    slot, spec, setting, where = built[0]
    assert (slot, spec, where) == ("objective", {"type": "contrastive"}, "stages.a.objective")
    assert (setting.model, setting.size, setting.labels) == (model, 7, "labels")
