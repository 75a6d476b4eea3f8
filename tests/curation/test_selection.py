"""Selection of data: planted sets that are redundant, wrong or harmful are told from one that helps."""

import json

import pytest
import torch
import yaml

from chiasm.curation.samples import Gradients, distances, unchanged
from chiasm.curation.selection import select
from chiasm.curation.trials import Trial, learn, read_rates
from chiasm.data.chat import Chat
from chiasm.errors import ChiasmError, DataError
from chiasm.inference.likelihood import answer_losses
from chiasm.model import Model
from chiasm.model.checkpoint import save_model
from chiasm.recipe import load_recipe
from chiasm.terminal.select import SelectionFiles, run
from tiny_recipe import TINY

THINGS = ["cup", "hat", "key", "map", "pen", "rug", "box", "fan", "jug", "toy", "bag", "pot"]
COLOURS = dict(zip(THINGS, ["red", "blue", "green"] * 4))
PLACES = dict(zip(THINGS, ["shelf", "door", "desk", "wall"] * 3))
OLD, NEW = THINGS[:6], THINGS[6:]
LANGUAGE = TINY["model"]["language"] | {
    "config": TINY["model"]["language"]["config"] | {"num_hidden_layers": 1}
}
TRIAL = Trial(steps=12, train={"language": 1e-2}, rows=4, length=64)


def colour(thing, answers=COLOURS):
    return f"What colour is the {thing}?", answers[thing]


def place(thing, answers=PLACES):
    return f"Where is the {thing}?", answers[thing]


def turned(answers, by):
    """The same answers, to other questions."""
    values = list(answers.values())
    return dict(zip(answers, values[by:] + values[:by]))


COMMON = [colour(thing) for thing in THINGS] + [place(thing) for thing in OLD]
SETS = {
    "base": COMMON,
    "redundant": COMMON,
    "new": [place(thing) for thing in NEW],
    "wrong": [(place(thing)[0], colour(thing)[1]) for thing in NEW],
    "harmful": [colour(t, turned(COLOURS, 1)) for t in THINGS] + [place(t, turned(PLACES, 1)) for t in OLD],
    "known": COMMON,
    "target": [place(thing) for thing in NEW],
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for name, pairs in SETS.items():
        lines = [
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
            for q, a in pairs
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {name: Chat(path=str(folder / f"{name}.jsonl")) for name in SETS}


@pytest.fixture(scope="module")
def model(sources):
    """Knows the colours of the base."""
    texts = [text for pairs in SETS.values() for pair in pairs for text in pair]
    talk = {"name": "joint", "train": {"language": 1e-3}, "data": {"world": 1.0}, "steps": 1}
    recipe = load_recipe({**TINY, "model": {"language": LANGUAGE}, "stages": [talk]})
    model = Model(recipe.model, texts=texts)
    learn(model, {"base": sources["base"]}, {"base": 1.0}, Trial(40, {"language": 1e-2}, 4, 64), seed=0)
    return model


def selected(model, sources, names, target="target", **options):
    return select(
        model,
        {name: sources[name] for name in names},
        {target: sources[target]},
        base={"base": sources["base"]},
        **options,
    )


@pytest.fixture(scope="module")
def selection(model, sources):
    return selected(model, sources, ["redundant", "new", "wrong"], trial=TRIAL)


def test_the_planted_set_that_teaches_something_new_comes_first_and_copies_do_next_to_nothing(selection):
    by_name = {each.source: each for each in selection.sets}
    assert selection.sets[0].source == "new"
    assert by_name["new"].verdict == "improves"
    assert by_name["new"].source in {each.source for each in selection.retained()}
    assert abs(by_name["redundant"].change) < abs(by_name["new"].change) / 3
    assert by_name["wrong"].change > 0
    assert not by_name["wrong"].retained


def test_a_set_that_contradicts_what_the_model_knows_harms(model, sources):
    (harmful,) = selected(model, sources, ["harmful"], target="known", trial=TRIAL).sets
    assert harmful.verdict == "harms"
    assert harmful.change > 0
    assert harmful.gradient < 0


def test_scores_tell_what_is_wrong_with_a_set(selection):
    by_name = {each.source: each for each in selection.sets}
    assert by_name["redundant"].diversity < 1e-3 < by_name["new"].diversity
    assert by_name["redundant"].loss < min(by_name["new"].loss, by_name["wrong"].loss)
    assert by_name["new"].gradient > max(by_name["wrong"].gradient, by_name["redundant"].gradient)


def test_the_model_stays_as_it_was(model, sources):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learns = [parameter.requires_grad for parameter in model.parameters()]
    result = selected(model, sources, ["new"], trial=Trial(1, {"language": 1e-2}, 2, 64), seeds=(0,))
    assert result.sets[0].change is not None
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert learns == [parameter.requires_grad for parameter in model.parameters()]


@pytest.mark.parametrize("by", ["loss", "gradient", "diversity"])
def test_without_trials_samples_are_ranked_by_a_score_and_a_share_is_retained(model, sources, by):
    result = selected(model, sources, ["redundant", "new"], by=by)
    useful = [each.usefulness[by] for each in result.samples]
    assert useful == sorted(useful, reverse=True)
    assert {each.verdict for each in result.sets} == {"not tried"}
    assert result.retained(0.25) == list(result.samples[:6])  # of 24
    assert (result.sets[0].source == "new") == (by != "loss")


def test_a_gradient_points_to_what_lowers_the_targets_losses(model, sources):
    """Independent of cosines: a small step along a sample's own gradient changes a target's loss by its sign."""
    samples, target = [sources["new"][0][0], sources["harmful"][0][0]], [sources["new"][0][0]]
    with unchanged(model):
        gradients = Gradients(model, ["language"])
        direction = gradients.of(target)
        for sample in samples:
            before = float(answer_losses(model, target))
            own = gradients.of([sample])
            with torch.no_grad():
                for parameter, step in zip(gradients.parameters, own, strict=True):
                    parameter -= 1e-4 * step / float(torch.cat([each.flatten() for each in own]).norm())
            lower = float(answer_losses(model, target)) < before
            assert lower == (gradients.alignment(sample, [direction]) > 0)
            with torch.no_grad():
                for parameter, step in zip(gradients.parameters, own, strict=True):
                    parameter += 1e-4 * step / float(torch.cat([each.flatten() for each in own]).norm())


def test_the_farthest_comes_first_and_twins_last():
    points = torch.tensor([[1.0, 0], [1.0, 0.01], [-1, 0], [0, 1.0], [0, -1.0]])
    scores, order = distances(points, torch.zeros(0, 2))
    assert order[-1] in (0, 1)
    assert scores[order[-1]] < 0.01
    assert sorted(order) == [0, 1, 2, 3, 4]
    near, _ = distances(points[:2], points[:1])
    assert near[0] < 1e-6


def test_what_cannot_be_scored_is_named(model, sources, tmp_path):
    with pytest.raises(ChiasmError, match="base is named 2 times"):
        selected(model, sources, ["base"])
    with pytest.raises(ChiasmError, match="a target to choose it for"):
        select(model, {"new": sources["new"]}, {})
    line = {"messages": [{"role": "user", "content": "long " * 400}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "long.jsonl").write_text(json.dumps(line) + "\n")
    long = Chat(path=str(tmp_path / "long.jsonl"))
    with pytest.raises(DataError, match=r"sample 1 of long.jsonl has \d+ tokens"):
        select(model, {"long": long}, {"target": sources["target"]})


def test_the_command_writes_what_stays_as_data_of_a_recipe(model, sources, tmp_path, capsys):
    talk = {"name": "joint", "train": {"language": 1e-3}, "data": {"world": 1.0}, "steps": 1}
    recipe = load_recipe({**TINY, "model": {"language": LANGUAGE}, "stages": [talk]})
    save_model(model, recipe, tmp_path / "model")
    out = tmp_path / "out"
    files = [sources[name].path for name in ("redundant", "new")]
    options = {"targets": [sources["target"].path], "base": [sources["base"].path], "trial": None, "seeds": 1}
    reading = SelectionFiles(by="diversity", share=0.25)
    run(tmp_path / "model", files, out=out, reading=reading, device="cpu", dtype=None, **options)
    assert "6 of 24 samples stay" in capsys.readouterr().out
    ranked = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(ranked) == 24
    assert {each["source"] for each in ranked[:6]} == {"new"}
    (name, spec), *others = yaml.safe_load((out / "data.yaml").read_text())["data"].items()
    assert (name, others) == ("new", [])
    spec.pop("type")
    retained, source = Chat(**spec), sources["new"]
    assert [retained[i][0].messages for i in range(6)] == [source[i][0].messages for i in range(6)]
    with pytest.raises(ChiasmError, match="is there already"):
        run(tmp_path / "model", files, out=out, reading=reading, device="cpu", dtype=None, **options)


def test_rates_are_read_from_slots_and_numbers():
    assert read_rates(["language=1e-4", "connector=0.001"]) == {"language": 1e-4, "connector": 1e-3}
    for entry in ("language", "language=fast", "=1e-4", "language=0", "language=nan"):
        with pytest.raises(ChiasmError, match="--train has"):
            read_rates([entry])
    with pytest.raises(ChiasmError, match=r"language has the rate 0\.001 already"):
        read_rates(["language=1e-3", "language=1e-4"])


def test_a_slot_without_weights_is_named_before_anything_is_scored(model, sources):
    with pytest.raises(ChiasmError, match="'languag', which has no weights here; did you mean 'language'"):
        selected(model, sources, ["new"], trial=Trial(1, {"languag": 1e-2}))


def test_slots_that_are_not_there_are_named(model, sources):
    with pytest.raises(ChiasmError, match="'langage', which has no weights here; did you mean 'language'"):
        selected(model, sources, ["new"], trial=Trial(1, {"langage": 1e-3}, 2, 64))
