"""The whole way, with a real and untrained model."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from chiasm.data.documents import document, prompt_of
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, RecipeError
from chiasm.evaluation.evaluate import evaluate, held_out, is_evaluated
from chiasm.evaluation.subject import ModelSubject
from chiasm.evaluation.tasks import Outcome, Task
from chiasm.inference.session import Session
from chiasm.model import Model
from chiasm.model.checkpoint import save_model
from chiasm.recipe import Recipe, load_recipe, resolve
from chiasm.sequence import Kind

TASKS = dict.fromkeys(("what", "where", "count", "exist", "choice", "relation", "draw", "words"), 1)
LANGUAGE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
SEEING = {
    "views": {"type": "whole", "size": 48},
    "encoder": {"type": "patches", "patch_size": 16},
    "connector": {"type": "linear"},
}
DRAWING = {
    "image_tokenizer": {
        "type": "vq",
        "size": 48,
        "downsample": 16,
        "codebook_size": 16,
        "width": 16,
        "depth": 1,
    },
    "heads": {"image": {"type": "raster", "alphabet": {"type": "own"}}},
}


def recipe(**parts) -> Recipe:
    world = {"type": "world", "canvas": 48, "drawn_canvas": 48, "tasks": TASKS, "scenes": 50}
    return resolve(
        {
            "name": "small",
            "model": {**parts, "language": {"type": "causal", "config": LANGUAGE, "vocabulary": 300}},
            "data": {"train": world, "held": {**world, "split": "combination", "phrasings": "both"}},
            "stages": [{"name": "joint", "train": {"language": 1e-3}, "data": {"train": 1.0}, "steps": 1}],
            "sampling": {"guidance": 2.0},
            "evaluation": {"data": "held", "questions": 24, "phrasings": 12, "pictures": 4, "text": 6},
        }
    )


def build(made: Recipe) -> Model:
    return Model(made.model, texts=["What is at the top left?"] * 4)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "small"
    made = recipe(**SEEING, **DRAWING)
    save_model(build(made), made, folder)
    return folder, evaluate(folder)


def test_eval_json_has_the_agreed_form(run):
    folder, results = run
    assert json.loads((folder / "eval.json").read_text()) == results
    tasks = results["tasks"]
    assert {"score", "blind", "shuffled", "ci", "n", "by_type", "commonest"} <= tasks["questions"].keys()
    assert {"score", "blind", "ci", "n", "by_type", "commonest"} <= tasks["phrasings"].keys()
    assert {"object", "count", "place", "all", "diversity", "ci", "n"} <= tasks["generation"].keys()
    assert {"score", "ci", "n", "by_type", "commonest"} <= tasks["text"].keys()
    assert [tasks[name]["n"] for name in ("questions", "phrasings", "generation", "text")] == [24, 12, 4, 6]
    for each in tasks["questions"]["by_type"].values():
        assert {"score", "ci", "blind", "shuffled", "n", "commonest"} <= each.keys()
    assert all(0 <= score <= 1 for score in _scores(tasks))


def test_cost_is_told(run):
    cost = run[1]["cost"]
    assert cost["parameters"]["total"] == sum(cost["parameters"]["by_slot"].values())
    assert cost["parameters"]["trainable"] == cost["parameters"]["by_slot"]["language"]
    assert cost["image_tokens"] == {"read": 9, "written": 9}
    assert cost["passes"] == {"picture": 9}  # the prompt, and every code but the last
    assert cost["peak_memory"] > 1e7
    assert cost["seconds"]["answer"] > 0
    # reading at least multiplies every position with every weight of the language model once
    matrices = 32 * 32 * 4 + 3 * 32 * 64
    assert cost["flops"]["question"] > 2 * matrices * 9
    assert cost["flops"]["picture"] > cost["flops"]["question"]


def test_a_second_evaluation_finds_the_same(run):
    folder, first = run
    again = evaluate(folder)
    assert again["tasks"] == first["tasks"]


@pytest.mark.parametrize(
    ("override", "current"),
    [
        ("evaluation.questions=25", False),
        ("evaluation.metric=contains", False),
        ("sampling.guidance=3", False),
        ("data.held.scenes=49", False),
        ("data.train.scenes=49", True),
        ("checkpoints.every=7", True),
    ],
)
def test_a_report_is_of_the_settings_that_its_recipe_has_now(run, tmp_path, override, current):
    folder = shutil.copytree(run[0], tmp_path / "run")
    assert is_evaluated(folder)
    load_recipe(run[0], [override]).save(folder / "recipe.yaml")
    assert is_evaluated(folder) == current


@pytest.mark.parametrize("changed", [{"only": ["text"]}, {"weights": "others"}, {"settings": None}])
def test_a_report_of_less_or_of_other_weights_is_measured_anew(run, tmp_path, changed):
    folder = shutil.copytree(run[0], tmp_path / "run")
    (folder / "eval.json").write_text(json.dumps(run[1] | changed))
    assert not is_evaluated(folder)


def test_overrides_and_choice_of_tasks(run, tmp_path):
    folder = tmp_path / "run"
    made = recipe(**SEEING, **DRAWING)
    save_model(build(made), made, folder)
    said = []
    results = evaluate(folder, overrides=["evaluation.text=3"], only=["text"], say=said.append)
    assert list(results["tasks"]) == ["text"]
    assert results["tasks"]["text"]["n"] == 3
    assert said[0].startswith("text: ")


def test_a_model_that_only_reads_words(tmp_path):
    made = recipe()
    save_model(build(made), made, tmp_path / "run")
    results = evaluate(tmp_path / "run")
    assert list(results["tasks"]) == ["text"]
    assert results["left_out"] == {
        "analogies": "the model has no image head",
        "binding": "the held-out data has no questions about lists in words in its 50 groups",
        "drawing": "the model has no image head",
        "editing": "the model has no image head",
        "generation": "the model has no image head",
        "linear_probe": "the recipe names no labelled images; set evaluation.labelled to two sources",
        "masks": "the model has no encoder",
        "nearest_neighbours": "the recipe names no labelled images; set evaluation.labelled to two sources",
        "phrasings": "the model has no encoder",
        "questions": "the model has no encoder",
    }
    assert "no image head" in (tmp_path / "run" / "report.html").read_text()


def test_the_use_of_experts_is_told_by_kind_of_token(tmp_path):
    made = recipe(**SEEING, routing={"type": "moe", "experts": 3})
    save_model(build(made), made, tmp_path / "run")
    results = evaluate(tmp_path / "run")
    assert "questions" in results["tasks"], results["left_out"]
    (use,) = results["routing"].values()
    assert set(use) == {"text", "read"}
    assert all(len(shares) == 3 and abs(sum(shares) - 1) < 1e-6 for shares in use.values())


def test_what_was_trained_cannot_be_overridden(run):
    with pytest.raises(RecipeError, match="would change the model"):
        evaluate(run[0], overrides=["model.connector.type=mlp"])
    with pytest.raises(ChiasmError, match="no task 'question'"):
        evaluate(run[0], only=["question"])


def test_a_recipe_without_held_out_data():
    with pytest.raises(RecipeError, match="says nothing about evaluation"):
        held_out(recipe().model_copy(update={"evaluation": type(recipe().evaluation)()}))


def test_blind_documents_hold_no_picture():
    made = recipe(**SEEING)
    model, sample = build(made), held_out(made)[0][0]
    contract = model.contract
    shown = document(contract, prompt_of(sample), prompt=True)
    blind = document(contract, prompt_of(sample), prompt=True, blind=True)
    assert not blind.slots
    assert blind.ids == [id for id, kind in zip(shown.ids, shown.kinds) if kind == Kind.TEXT]


def test_answers_do_not_depend_on_their_batch():
    made = recipe(**SEEING)
    subject = ModelSubject(
        build(made), made.sampling, answer_tokens=8
    )  # else as the answers asked together need
    samples = [sample for i in range(4) for sample in held_out(made)[i] if sample.truth["task"] != "draw"]
    together = subject.answer(samples)
    assert together == [answer for sample in samples for answer in subject.answer([sample])] or _close(
        subject, samples, together
    )


def test_the_limit_of_tokens_follows_the_longest_true_answer_unless_it_is_set():
    made = recipe()
    subject = ModelSubject(build(made), made.sampling)
    encode = subject.model.language.tokenizer.encode

    def sample(answer, **truth):
        return Sample("s", (Message("user", ("Why?",)), Message("assistant", (answer,))), truth)

    long = "because " * 100
    assert subject._most_tokens([sample("no")]) == len(encode("no")) + 8
    assert subject._most_tokens([sample("no"), sample(long)]) >= 1.5 * len(encode(long)) - 1
    assert subject._most_tokens([sample("no", answers=(long,))]) >= 1.5 * len(encode(long)) - 1
    assert ModelSubject(subject.model, made.sampling, 3)._most_tokens([sample(long)]) == 3


def test_an_answer_that_the_limit_cuts_off_says_so():
    made = recipe()
    subject = ModelSubject(build(made), made.sampling, answer_tokens=1)
    (answer,) = subject.answer([Sample("s", (Message("user", ("Why?",)), Message("assistant", ("no",))))])
    with_end = subject.model.language.tokenizer.end
    assert answer.cut == (_first_id(subject) != with_end)


def _first_id(subject):
    contract = subject.model.contract
    asked = document(contract, Sample("s", (Message("user", ("Why?",)),)), prompt=True)
    with torch.inference_mode():
        return int(subject.model.text_logits(Session(subject.model, [asked]).last, images=False).argmax(-1))


def _close(subject, samples, together) -> bool:
    """The room for an answer follows from the batch; what is said must agree as far as it goes."""
    return all(
        said.startswith(alone) or alone.startswith(said)
        for said, sample in zip(together, samples)
        for alone in subject.answer([sample])
    )


def _scores(value, key="score"):
    """Every number that is a score or an end of an interval."""
    if isinstance(value, dict):
        return [
            x
            for name, each in value.items()
            if name not in ("n", "clusters", "cells", "cut")
            for x in _scores(each, name)
        ]
    if isinstance(value, list):
        return [x for each in value for x in _scores(each, key)]
    return [value]


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_task_of_ones_own_that_fails_leaves_the_results_of_the_others(run, tmp_path):
    type("Boom", (Task,), {"run": lambda self, exam: Outcome({"score": float("nan")}, {})}, name="boom")
    folder = shutil.copytree(run[0], tmp_path / "copy")
    with pytest.raises(ChiasmError, match=r"^task 'boom' gives nan for 'score'"):
        evaluate(folder, only=["boom", "text"])
    written = json.loads((folder / "eval.json").read_text())
    assert written["tasks"].keys() == {"text"}
    assert written["failed"].keys() == {"boom"}
    assert (folder / "report.html").is_file()
    assert not is_evaluated(folder)
