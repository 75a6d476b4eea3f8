"""What an evaluation leaves behind, and the words and units that it reports in."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from chiasm.data.sample import Message, Picture, Sample
from chiasm.evaluation import cost, evaluate, experts, report
from chiasm.evaluation.report import commands, flattened, numbers, others, percent, plain_bytes, seconds


def test_a_summary_is_the_score_with_its_interval_or_the_numbers_there_are():
    assert evaluate.summary("text", {"score": 0.5}) == "text: 50.0%"
    assert evaluate.summary("text", {"score": 0.5, "ci": [0.4, 0.61]}) == "text: 50.0% [40.0%, 61.0%]"
    assert evaluate.summary("drawing", {"n": 3, "FD": 1.23456, "by": {"psnr": 20.0}}) == (
        "drawing: n 3, FD 1.235, by.psnr 20"
    )
    cut = evaluate.summary("text", {"score": 0.5, "cut": 2, "n": 9})
    assert cut == "text: 50.0% (2 of 9 answers cut off by the limit of tokens)"
    assert "cut off" not in evaluate.summary("text", {"score": 0.5, "cut": 0, "n": 9})


def test_a_run_is_evaluated_when_the_report_is_of_its_weights_and_settings_and_of_all_tasks(
    tmp_path, monkeypatch
):
    now = {"weights": "now", "settings": {"seed": 1}, "only": []}
    monkeypatch.setattr(evaluate, "_weights", lambda folder: now["weights"])
    monkeypatch.setattr(evaluate, "load_recipe", lambda folder: folder)
    monkeypatch.setattr(evaluate, "settings_of", lambda recipe: now["settings"])
    assert not evaluate.is_evaluated(tmp_path)
    (tmp_path / "eval.json").write_text(json.dumps(now))
    assert not evaluate.is_evaluated(tmp_path)
    (tmp_path / "report.html").touch()
    assert evaluate.is_evaluated(tmp_path)
    others = [now | {"weights": "before"}, now | {"settings": {"seed": 2}}, now | {"only": ["text"]}]
    for other in (*map(json.dumps, others), "[]", "{"):
        (tmp_path / "eval.json").write_text(other)
        assert not evaluate.is_evaluated(tmp_path)


def test_an_evaluation_leaves_its_own_pictures_and_no_older_ones(tmp_path):
    image = Image.new("RGBA", (8, 8), "red")
    evaluate.save(tmp_path / "run", {"a": "é"}, {"b": 1}, {"old.webp": image, "same.webp": image})
    evaluate.save(tmp_path / "run", {"a": "é"}, {"b": 2}, {"new.webp": image, "same.webp": image})
    assert {path.name for path in (tmp_path / "run" / "samples").iterdir()} == {"new.webp", "same.webp"}
    assert json.loads((tmp_path / "run" / "samples.json").read_text(encoding="utf-8")) == {"b": 2}
    assert "é" in (tmp_path / "run" / "eval.json").read_text(encoding="utf-8")


def test_the_cost_is_measured_on_the_usable_samples_of_twenty_groups():
    class Source(list):
        broken = "error"

    groups = Source([[Sample(f"{i}", ()), Sample(f"{i} bad", ())] for i in range(30)])
    exam = SimpleNamespace(source=groups, usable=lambda source, name, sample: "bad" not in name)
    assert [sample.name for sample in evaluate._some(exam)] == [str(i) for i in range(20)]
    exam.source = Source(groups[:3])
    assert len(evaluate._some(exam)) == 3


class Times:
    """A clock that says these differences."""

    def __init__(self, *durations):
        self.ticks = [tick for duration in durations for tick in (0.0, duration)]

    def __call__(self):
        return self.ticks.pop(0)


@pytest.mark.parametrize(
    ("durations", "expected"), [((9.0, 1.0, 2.0, 4.0), 2.0), ((9.0,), 9.0), ((9.0, 1.0), 1.0)]
)
def test_the_first_run_warms_up_and_the_median_of_the_others_counts(durations, expected, monkeypatch):
    monkeypatch.setattr(cost, "perf_counter", Times(*durations))
    ran = []
    assert cost._seconds([lambda: ran.append(1)] * len(durations)) == expected
    assert len(ran) == len(durations)


def test_parameters_are_counted_once_and_by_slot():
    shared = nn.Linear(4, 4, bias=False)
    head = nn.Sequential(shared, nn.Linear(4, 2, bias=False))
    slots = {
        "language": shared,
        "heads.image": head,
        "views": object(),
        "tied": shared,
        "connector": nn.Linear(3, 3),
    }
    stages = [SimpleNamespace(train={"language": 1e-3}), SimpleNamespace(train={"connector": 1e-3})]
    told = cost.parameters(SimpleNamespace(slots=lambda: slots), SimpleNamespace(stages=stages))
    assert told == {
        "total": 16 + 8 + 12,
        "trainable": 16 + 12,
        "by_slot": {"language": 16, "heads.image": 8, "connector": 12},
    }


def test_passes_are_runs_of_the_language_model_and_nothing_stays_behind():
    language = nn.Linear(2, 2)
    model = SimpleNamespace(language=language)
    assert cost.passes(model, lambda: [language(torch.zeros(1, 2)) for _ in range(3)]) == 3
    assert not language._forward_hooks
    with pytest.raises(ZeroDivisionError):
        cost.passes(model, lambda: 1 / 0)
    assert not language._forward_hooks


def test_attention_costs_two_matrix_products():
    query, key, value = torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8), torch.zeros(2, 3, 7, 8)
    run = lambda: nn.functional.scaled_dot_product_attention(query, key, value)  # noqa: E731
    with torch.inference_mode():
        assert cost.flops(run) == 2 * (2 * 3) * (5 * 7 * 8) * 2
    assert cost.flops(lambda: None) == 0


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(platform, unit, monkeypatch):
    monkeypatch.setattr(cost.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cost.sys, "platform", platform)
    monkeypatch.setattr(cost.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3000))
    assert cost.peak_memory() == 3000 * unit
    monkeypatch.setattr(cost.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cost.torch.cuda, "max_memory_allocated", lambda: 77)
    assert cost.peak_memory() == 77
    monkeypatch.setattr(cost.torch.cuda, "max_memory_allocated", lambda: 0)
    assert cost.peak_memory() == 3000 * unit


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0123, "12.3 ms"), (0.9994, "999 ms"), (1, "1 s"), (119.6, "120 s"), (120, "2 min"), (121, "2 min 1 s"),
        (7199, "119 min 59 s"), (7200, "2 h 0 min"), (7260, "2 h 1 min"),
    ],
)  # fmt: skip
def test_times_are_in_the_unit_that_suits_them(value, said):
    assert seconds(value) == said


def test_shares_and_bytes_are_rounded_as_people_read_them():
    assert [percent(share) for share in (0, 0.1234, 1)] == ["0.0", "12.3", "100.0"]
    assert [plain_bytes(n) for n in (4e6, 999_000_000, 1e9)] == ["4 MB", "999 MB", "1.00 GB"]
    assert plain_bytes(2_346_000_000) == "2.35 GB"


def test_numbers_of_nested_scores_have_dotted_names():
    scores = {
        "score": 1,
        "ci": [0, 1],
        "by": {"a": 0.5, "deep": {"b": 2}},
        "sure": True,
        "name": "x",
        "none": None,
    }
    assert numbers(scores) == {"score": 1, "by.a": 0.5, "by.deep.b": 2}


def test_tasks_without_a_section_of_their_own_are_told_by_their_numbers():
    tasks = {"questions": {"score": 1}, "count_of_things": {"n": 12345}}
    rows = {"count_of_things": {"rows": [1, 2]}}
    assert others(tasks, rows) == [
        {
            "name": "count_of_things", "title": "count of things", "scores": {"n": 12345},
            "numbers": [("n", "12.3k")], "rows": [1, 2],
        }
    ]  # fmt: skip
    assert others({"mine": {}}, {})[0]["rows"] == []


def test_a_record_is_told_line_by_line():
    record = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None, "f": "x"}
    assert flattened(record) == {"a.b": "1", "a.c.d": "1 2", "f": "x"}


def test_the_commands_that_repeat_a_run(tmp_path):
    results = {"overrides": ["evaluation.text=3", "seed=1"]}
    assert commands("runs/a", {}, {}) == ["chiasm train runs/a/recipe.yaml", "chiasm eval runs/a"]
    assert commands("runs/a", {"command": ["chiasm", "train", "x"]}, results) == [
        "chiasm train x", "chiasm eval runs/a evaluation.text=3 seed=1",
    ]  # fmt: skip
    assert commands("runs/a", {"command": "chiasm train y"}, {})[0] == "chiasm train y"


def test_what_the_report_says_of_the_evaluation_is_what_there_is():
    assert report._about({"data": "held", "seed": 0, "overrides": [], "tasks": {}}) == {"data": "held"}


def test_pictures_stand_in_the_page(tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc")
    assert report.data_uri(tmp_path / "a.png") == "data:image/png;base64,YWJj"


def test_experts_are_apart_by_half_the_difference_of_their_shares():
    use = {
        "inner.a": {"text": [1.0, 0.0], "read": [0.0, 1.0], "written": [1.0, 0.0]},
        "b": {"read": [0.5, 0.5]},
    }
    assert [row.distance for row in experts.rows(use)] == [None, 1.0, 0.0, None]
    mixed = {"a": {"text": [0.5, 0.5]}, "b": {"text": [0.2, 0.3, 0.5]}}
    assert experts.summary(mixed).endswith("words 20% to 50% (even: 50%, 33%)")


class Blank(Picture):
    key, size = "blank", None

    def open(self):
        raise AssertionError("nothing opens it")


def subject_of(sees, draws):
    contract = SimpleNamespace(read_tokens=lambda size, name: 9, span=SimpleNamespace(length=16))
    model = SimpleNamespace(sees=sees, draws=draws, contract=contract)
    return SimpleNamespace(model=model, answer=list, draw=list)


@pytest.mark.parametrize(("sees", "draws"), [(True, True), (True, False), (False, True), (False, False)])
def test_cost_is_measured_on_what_the_model_can_do(sees, draws, monkeypatch):
    """Nine answers and three drawings for the medians; a question is words about a picture that is read."""
    timed = []
    for name, value in (
        ("parameters", {}),
        ("flops", 5),
        ("passes", 3),
        ("peak_memory", 1),
        ("training", {}),
    ):
        monkeypatch.setattr(cost, name, lambda *_, value=value: value)
    monkeypatch.setattr(cost, "_seconds", lambda runs: timed.append(len(runs)) or 0.5)
    user, blank = Message("user", ("?",)), Message("user", (Blank(), "?"))
    question = Sample("q", (blank, Message("assistant", ("dog",))))
    drawing = Sample("d", (user, Message("assistant", (Blank(),))))
    neither = [
        Sample("edit", (blank, Message("assistant", (Blank(),)))),
        Sample("words", (user, Message("assistant", ("dog",)))),
        Sample("no answer", (blank,)),
    ]
    told = cost.cost(subject_of(sees, draws), None, [*neither, *[question] * 12, *[drawing] * 5], [])
    assert timed == [9] * sees + [3] * draws
    assert told["image_tokens"] == ({"read": 9} if sees else {}) | ({"written": 16} if draws else {})
    assert set(told["flops"]) == ({"question"} if sees else set()) | ({"picture"} if draws else set())
    assert set(told["seconds"]) == ({"answer"} if sees else set()) | ({"picture"} if draws else set())
    assert ("passes" in told) == draws
    nothing = cost.cost(subject_of(True, True), None, neither, [])
    assert nothing["image_tokens"] == nothing["flops"] == nothing["seconds"] == {}
