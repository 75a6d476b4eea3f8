"""A model that practises: what is verified is learnt, what harms is rolled back, and what was planned is spent."""

import json
import os
import shutil
import signal
import sys

import pytest

from chiasm.cli import main
from chiasm.curation import evolution, gate, practice
from chiasm.curation.evolution import Evolution, EvolutionPlan, evolve
from chiasm.curation.gate import Gate, ScoreChange
from chiasm.curation.practice import FILE, LOG, Practice, attempts, problems_of, write_practice
from chiasm.data.chat import Chat
from chiasm.data.world import World
from chiasm.errors import ChiasmError, DivergedError, RecipeError
from chiasm.evaluation.evaluate import evaluate
from chiasm.evaluation.metrics import metric
from chiasm.evaluation.subject import written_image
from chiasm.recipe import load_recipe
from chiasm.storage.folders import read_json, write_json
from chiasm.training import loop
from chiasm.training.loop import Interrupted
from chiasm.training.train import train

pytestmark = pytest.mark.usefixtures("nothing_left_behind")
QUESTIONS = [f"Is {one} a letter?" for one in "abcdefgh"]
STEPS = 8


def lines(path, answers):
    """A data file of the questions, each with each of the answers."""
    path.write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]})
            + "\n"
            for q in QUESTIONS
            for a in answers
        )
    )
    return {"type": "chat", "path": str(path)}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A model that says yes to everything, and in a third of its tries no; by the answer that is right to it."""
    folder = tmp_path_factory.mktemp("evolution")
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    }
    raw = {
        "name": "words",
        "model": {"language": {"type": "causal", "vocabulary": 300, "config": config}},
        "data": {
            "said": lines(folder / "said.jsonl", ("yes", "yes", "no")),
            "yes": lines(folder / "yes.jsonl", ("yes",) * 2),
            "no": lines(folder / "no.jsonl", ("no",) * 2),
            "exam-yes": lines(folder / "exam-yes.jsonl", ("yes",)),
            "exam-no": lines(folder / "exam-no.jsonl", ("no",)),
        },
        "stages": [
            {"name": "words", "train": {"language": 1e-2}, "data": {"said": 1.0}, "steps": 24, "length": 128}
        ],
    }
    runs = {}
    for right in ("yes", "no"):
        runs[right] = folder / f"run-{right}"
        if right == "no":
            shutil.copytree(runs["yes"], runs["no"])
        train(load_recipe({**raw, "evaluation": {"data": f"exam-{right}"}}), runs[right], other_data=True)
    return runs


def plan(data, verifier="exact", **options):
    return EvolutionPlan(data, Practice(8, 6, verifier=verifier), steps=STEPS, share=1.0, **options)


def steps_of(run):
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_what_is_verified_is_learnt_and_a_stopped_run_goes_on(judged, tmp_path, monkeypatch, capsys):
    def stop(folder, **options):
        raise KeyboardInterrupt

    evaluate(judged["no"])
    monkeypatch.setattr(evolution, "evaluate", stop)
    with pytest.raises(
        Interrupted, match=r"what is whole is saved in .*out\. To go on, give the same command"
    ):
        evolve(judged["no"], tmp_path / "out", plan("no", rounds=1))
    monkeypatch.undo()
    first = tmp_path / "out" / "round-1"
    before = {path: path.stat().st_mtime_ns for path in (first / "practice" / LOG, first / "metrics.jsonl")}

    options = ["--rounds", "1", "--problems", "8", "--tries", "6", "--steps", str(STEPS), "--share", "1"]
    command = ["chiasm", "evolve", str(judged["no"]), "no", "--out", str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert f"best: {first}" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}  # neither tried nor trained again
    assert steps_of(first)[-1] == STEPS
    record = json.loads((tmp_path / "out" / "rounds.json").read_text())
    (change,) = record["rounds"][0]["changes"]
    assert (change["before"], change["after"]) == (0.0, 1.0)
    assert record["rounds"][0]["retained"]
    verified = Chat(path=str(first / "practice" / FILE))
    assert {verified[i][0].messages[1].content for i in range(len(verified))} == {("no",)}


def test_a_stop_in_the_last_step_of_a_round_stops_the_rounds(judged, tmp_path, monkeypatch):
    original, steps, evaluated = loop.TrainStep.__call__, [], []

    def stopping(self, batches):
        steps.append(None)
        if len(steps) == STEPS:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batches)

    evaluate(judged["no"])
    monkeypatch.setattr(loop.TrainStep, "__call__", stopping)
    monkeypatch.setattr(evolution, "evaluate", lambda run, **options: evaluated.append(run))
    with pytest.raises(Interrupted, match="stopped after step 8 of 8 of stage 'round-1'; all is saved"):
        evolve(judged["no"], tmp_path / "out", plan("no", rounds=1))
    assert (tmp_path / "out" / "round-1" / "final").is_dir()
    assert not evaluated


def test_what_a_fooled_verifier_lets_through_is_rolled_back_and_the_budget_is_spent_once(judged, tmp_path):
    @metric("fooled")
    def fooled(answer, truths):
        return float(answer == "no")

    result = evolve(judged["yes"], tmp_path / "out", plan("yes", "fooled", rounds=2))
    assert [each.retained for each in result.rounds] == [False, False]
    assert [each.begins for each in result.rounds] == [judged["yes"]] * 2
    assert result.best == judged["yes"]
    assert [each.changes[0].after for each in result.rounds] == [0.0, 0.0]
    assert [each.counts["answers"] for each in result.rounds] == [48, 48]
    tried = [(each.run / "practice" / LOG).read_text() for each in result.rounds]
    problems = [{json.loads(line)["problem"] for line in log.splitlines()} for log in tried]
    assert not problems[0] & problems[1]  # every round has its own

    with pytest.raises(ChiasmError, match=r"was begun with another plan .*budget and its gate were fixed"):
        evolve(judged["yes"], tmp_path / "out", plan("yes", "fooled", rounds=3))


def test_a_round_whose_training_diverges_is_rolled_back_and_says_why(judged, tmp_path, monkeypatch):
    def diverging(recipe, folder, **options):
        raise DivergedError("the loss was not finite in 20 steps in a row")

    monkeypatch.setattr(evolution, "train", diverging)

    @metric("lenient")
    def lenient(answer, truths):
        return 1.0

    result = evolve(judged["yes"], tmp_path / "out", plan("yes", "lenient", rounds=2))
    assert [each.retained for each in result.rounds] == [False, False]
    assert [each.begins for each in result.rounds] == [judged["yes"]] * 2
    assert "not finite in 20 steps in a row; rolled back" in str(result.rounds[0])
    assert "not finite" in read_json(tmp_path / "out" / "rounds.json")["rounds"][0]["reason"]


def test_small_losses_round_by_round_do_not_add_up(judged, tmp_path, monkeypatch):
    """A round is compared with the best so far, and with the first too."""
    compared = []

    def changes(gate, before, after):
        compared.append((before.name, after.name))
        return [ScoreChange("text.score", 0.5, 0.5, -0.1, 0.1 if len(compared) < 3 else -0.01)]

    @metric("lenient")
    def lenient(answer, truths):
        return 1.0

    monkeypatch.setattr(Gate, "changes", changes)
    monkeypatch.setattr(Gate, "score", lambda gate, run: len(run.name) + int(run.name[-1] == "1"))
    result = evolve(judged["yes"], tmp_path / "out", plan("yes", "lenient", rounds=2))
    first = judged["yes"].name
    assert compared == [(first, "round-1"), (first, "round-2"), ("round-1", "round-2")]
    assert [each.retained for each in result.rounds] == [True, False]


def test_another_model_under_the_same_name_is_not_gone_on_with(judged, tmp_path):
    @metric("strict")
    def strict(answer, truths):
        return 0.0

    evolve(judged["yes"], tmp_path / "out", plan("yes", "strict", rounds=1))
    fixed = read_json(tmp_path / "out" / "plan.json")
    write_json(tmp_path / "out" / "plan.json", {**fixed, "weights of the run": "others"})
    with pytest.raises(ChiasmError, match="was begun with another weights of the run"):
        evolve(judged["yes"], tmp_path / "out", plan("yes", "strict", rounds=1))


def test_overrides_may_be_of_a_whole_section(judged, tmp_path):
    """Problems are looked for in the data that the override names."""
    with pytest.raises(RecipeError, match="no data of the run; did you mean 'more'"):
        evolve(judged["yes"], tmp_path / "out", plan("mor"), overrides=["data={more: {type: world}}"])


@pytest.mark.parametrize("name", [".", ".."])
def test_rounds_stand_beside_a_run_that_is_named_by_a_dot(name, tmp_path, monkeypatch):
    places = []
    (tmp_path / "run" / "within").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" if name == "." else tmp_path / "run" / "within")
    monkeypatch.setattr(sys, "argv", ["chiasm", "evolve", name, "yes"])
    monkeypatch.setattr(evolution, "evolve", lambda run, out, *_, **__: places.append(out) or Evolution(run))
    main()
    assert places == [tmp_path / "run-evolved"]


def test_a_gate_that_cannot_close_is_refused(judged, monkeypatch):
    evaluate(judged["yes"])
    monkeypatch.setattr(gate, "_items", lambda samples, place: [(3, 1.0), (3, 0.0)])
    with pytest.raises(ChiasmError, match="one scene alone"):
        Gate.of(judged["yes"])


def test_a_round_in_which_nothing_is_verified_trains_nothing(judged, tmp_path):
    @metric("strict")
    def strict(answer, truths):
        return 0.0

    (only,) = evolve(judged["yes"], tmp_path / "out", plan("yes", "strict", rounds=1)).rounds
    assert only.retained is None
    assert not (only.run / "final").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "exam-yes"}, "is the held-out data that the gate judges by"),
        ({"data": "exam-ye"}, "no data of the run; did you mean"),
        (
            {"data": "yes", "rounds": 3},
            "has 16 problems whose answers can be verified, and 24 are to be tried",
        ),
        ({"data": "yes", "gate": ("questions.score",)}, "'questions.score' is not in the evaluation"),
        ({"data": "yes", "gate": ("text.n",)}, "no score with an interval; such are text.score"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_round(judged, tmp_path, options, words):
    with pytest.raises(ChiasmError, match=words):
        evolve(judged["yes"], tmp_path / "out", plan(**options))
    assert not (tmp_path / "out" / "round-1").exists()


def test_a_stop_among_the_tries_is_said_and_they_are_made_again(judged, tmp_path, monkeypatch):
    """Tries are drawn in twos here, and the third two are not."""

    @metric("never")
    def never(answer, truths):
        return 0.0

    evaluate(judged["yes"])
    original, reported, drawn = practice.answers, [], []

    def stopping(model, prompts, **options):
        drawn.append(len(prompts))
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return original(model, prompts, **options)

    monkeypatch.setattr(practice, "answers", stopping)
    for module in (practice, evolution):
        monkeypatch.setattr(module, "ROWS", 2)
    once = EvolutionPlan("yes", Practice(2, 3, verifier="never"), rounds=1)

    with pytest.raises(
        Interrupted, match=r"stopped; no tries are saved yet in .*out\. To go on, give the same"
    ):
        evolve(judged["yes"], tmp_path / "out", once, say=reported.append)
    assert reported == ["round-1: 6 tries", "round-1: 2 of 6 tries", "round-1: 4 of 6 tries"]
    evolve(judged["yes"], tmp_path / "out", once)
    assert drawn == [2] * 6


@pytest.mark.parametrize("place", ["run-yes", "run-yes/final", "run-no"])
def test_a_folder_that_holds_a_run_gets_no_rounds(judged, place):
    folder = judged["yes"].parent / place
    before = set(folder.rglob("*"))
    with pytest.raises(
        ChiasmError, match="holds a run or a checkpoint; choose another folder for the rounds"
    ):
        evolve(judged["yes"], folder, plan("yes"))
    assert set(folder.rglob("*")) == before


def test_what_is_no_run_of_its_own_does_not_practise(judged, tmp_path):
    final = judged["yes"] / "final"
    for run, words in ((final, "final is a checkpoint of the run"), ("quickstart", "is a recipe, not a run")):
        with pytest.raises(ChiasmError, match=words):
            evolve(run, tmp_path / "out", plan("yes"))
    assert not (final / "eval.json").exists()
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_number_is_called_so():
    with pytest.raises(ChiasmError, match="share is not a number"):
        EvolutionPlan("yes", Practice(), share=float("nan"))
    with pytest.raises(ChiasmError, match="temperature is not a number"):
        Practice(temperature=float("nan"))


def test_rounds_cannot_change_the_model_or_how_it_is_judged(judged, tmp_path):
    for override in ("model.language.vocabulary=400", "evaluation.text=1", "data.exam-yes.most_turns=2"):
        with pytest.raises(RecipeError, match="override"):
            evolve(judged["yes"], tmp_path / "out", plan("yes"), overrides=[override])


def test_a_score_without_questions_is_compared_by_its_intervals(tmp_path):
    for name, score, interval in (("before", 0.5, [0.4, 0.6]), ("after", 0.3, [0.22, 0.4])):
        tasks = {"generation": {"score": score, "ci": interval}}
        (tmp_path / name).mkdir()
        measured = {"tasks": tasks, "settings": {}, "fingerprint": "one"}
        (tmp_path / name / "eval.json").write_text(json.dumps(measured))
        (tmp_path / name / "samples.json").write_text("{}")
    gate = Gate.of(tmp_path / "before")
    (change,) = gate.changes(tmp_path / "before", tmp_path / "after")
    assert change.low == pytest.approx(-0.2 - (0.08**2 + 0.1**2) ** 0.5)
    assert change.high == pytest.approx(-0.2 + (0.1**2 + 0.1**2) ** 0.5)
    assert change.worse
    (tmp_path / "after" / "eval.json").write_text(
        json.dumps(
            {**measured, "tasks": {"phrasings": {**tasks["generation"], "by": {"a": tasks["generation"]}}}}
        )
    )
    with pytest.raises(
        RecipeError, match=r"'phrasings' .* such are phrasings\.score, phrasings\.by\.a\.score$"
    ):
        Gate.of(tmp_path / "after", ["phrasings"])
    with pytest.raises(ChiasmError, match="evaluated with other settings than the gate's"):
        Gate(gate.places, {**gate.frozen, "settings": {"seed": 1}}).changes(*[tmp_path / "before"] * 2)


def test_images_that_show_what_was_asked_for_are_verified_and_become_data(tiny_model, tmp_path, monkeypatch):
    model, _ = tiny_model
    world = World(emoji=8, grid=2, objects=(1, 2), scenes=4, drawn_canvas=64, tasks={"draw": 1, "what": 1})
    problems = [each for each in problems_of(world, 8, 0, draws=True) if each.truth["task"] == "draw"]
    assert len(problems) == 4
    assert all(each.truth["task"] == "what" for each in problems_of(world, 4, 0, draws=False))
    images = [written_image(each).open() for each in problems]
    drawn = [images[0], images[0], images[2], images[3]]  # the second shows the first one's scene
    monkeypatch.setattr(practice, "draw_images", lambda *arguments: drawn)
    tried = list(attempts(model, world, problems, Practice(4, 1), seed=0))
    assert [each.verified for each in tried] == [True, False, True, True]

    assert write_practice(tmp_path, tried) == {"answers": 4, "verified": 3, "solved": 3}
    data = Chat(path=str(tmp_path / FILE))
    assert [data[i][0].messages[0].content for i in range(3)] == [
        problems[i].messages[0].content for i in (0, 2, 3)
    ]
    assert written_image(data[1][0]).open().tobytes() == images[2].convert("RGB").tobytes()
