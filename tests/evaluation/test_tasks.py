from collections.abc import Sequence

import pytest
from PIL import Image, ImageFilter
from plausible import a_recipe

from chiasm.data.documents import prompt_of
from chiasm.data.sample import Message, Picture, Sample
from chiasm.evaluation.asking import QuestionRecord, ask, scores_by_type
from chiasm.evaluation.conversations import Item
from chiasm.evaluation.evaluate import held_out, summary
from chiasm.evaluation.statistics import commonest
from chiasm.evaluation.subject import Subject, expected, pictures_read, with_pictures
from chiasm.evaluation.tasks import Exam, NotApplicable, tasks
from chiasm.evaluation.tasks.generation import diversity
from chiasm.evaluation.tasks.questions import swapped
from chiasm.inference.answers import Answer


class Perfect(Subject):
    """Knows every answer and draws every scene."""

    sees = draws = True

    def answer(self, samples: Sequence[Sample], *, blind: bool = False) -> list[str]:
        return [f" {expected(sample).upper()}. " for sample in samples]

    def draw(self, samples: Sequence[Sample], *, seed: int) -> list[Image.Image]:
        return [picture.open() for sample in samples for picture in sample.messages[-1].content]

    def reconstruct(self, pictures: Sequence[Picture]) -> list[Image.Image]:
        return [picture.open() for picture in pictures]


class Yes(Perfect):
    """Says yes; draws nothing."""

    def answer(self, samples: Sequence[Sample], *, blind: bool = False) -> list[str]:
        return ["yes"] * len(samples)

    def draw(self, samples: Sequence[Sample], *, seed: int) -> list[Image.Image]:
        return [Image.new("RGB", (96, 96), "pink")] * len(samples)


class Looker(Perfect):
    """Answers from the picture alone: what it was told of this picture's key."""

    def __init__(self, samples: Sequence[Sample]):
        self.known = {(pictures_read(s)[0].key, s.truth["question"]): expected(s) for s in samples}

    def answer(self, samples: Sequence[Sample], *, blind: bool = False) -> list[str]:
        keys = ["" if blind else pictures_read(s)[0].key for s in samples]
        return [self.known.get((key, s.truth["question"]), "?") for key, s in zip(keys, samples)]


@pytest.fixture(scope="module")
def source():
    return held_out(a_recipe())


def exam(subject, source, **sizes):
    return Exam(subject, source, a_recipe(**{"questions": 60, "pictures": 8, "text": 30, **sizes}).evaluation)


def run(name, subject, source, **sizes):
    return tasks()[name].run(exam(subject, source, **sizes))


def test_a_perfect_subject_scores_one(source):
    assert run("questions", Perfect(), source).scores["score"] == 1.0
    assert run("text", Perfect(), source).scores["score"] == 1.0
    drawn = run("generation", Perfect(), source).scores
    assert [drawn[name] for name in ("object", "count", "place", "all")] == [1.0] * 4
    assert drawn["reconstruction"]["all"] == 1.0


def test_always_yes_scores_the_share_of_yes(source):
    outcome = run("questions", Yes(), source)
    asked = outcome.samples["asked"]
    answers = [each["answer"] for each in asked if each["type"] == "exist"]
    of_type = outcome.scores["by_type"]["exist"]
    assert of_type["score"] == of_type["blind"] == answers.count("yes") / len(answers)
    assert of_type["commonest"] == commonest(answers)
    assert outcome.scores["by_type"]["what"]["score"] == 0.0


def test_true_images_held_against_another_caption_score_what_chance_gives(source):
    drawn = run("generation", Perfect(), source, pictures=24).scores
    low, high = drawn["shuffled_ci"]
    assert low <= drawn["shuffled"] <= high < drawn["ci"][0]
    assert "shuffled" not in run("generation", Perfect(), source, pictures=1).scores


def test_an_empty_canvas_scores_nothing(source):
    drawn = run("generation", Yes(), source).scores
    assert [drawn[name] for name in ("object", "count", "place", "all")] == [0.0] * 4
    assert drawn["diversity"] == 0.0


def test_controls_withhold_and_swap_the_picture(source):
    samples = [sample for i in range(len(source)) for sample in source[i] if sample.truth["task"] == "what"]
    scores = run("questions", Looker(samples), source).scores["by_type"]["what"]
    assert scores["score"] == 1.0
    assert scores["blind"] == 0.0
    assert scores["shuffled"] < 0.3  # by chance the other picture shows the same


def test_no_picture_stands_in_for_itself(source):
    samples = [source[i][0] for i in range(20)]
    other = swapped(samples, seed=3)
    assert len({picture.key for picture in other.values()}) == 20
    for sample in samples:
        shown = with_pictures(sample, other)
        assert pictures_read(shown)[0].key != pictures_read(sample)[0].key
        assert shown.messages[0].content[1:] == sample.messages[0].content[1:]


def test_one_picture_cannot_be_shuffled_but_is_asked_about(source):
    scores = run("questions", Perfect(), source, questions=2).scores
    assert scores["score"] == 1.0
    assert "blind" in scores
    assert "shuffled" not in scores


def test_overall_commonest_is_the_mean_over_types(source):
    scores = run("questions", Perfect(), source).scores
    types = scores["by_type"].values()
    assert scores["commonest"] == pytest.approx(
        sum(each["commonest"] * each["n"] for each in types) / scores["n"]
    )


def test_tasks_say_why_they_do_not_apply(source):
    blind = Perfect()
    blind.sees = blind.draws = False
    for name, reason in (("questions", "no encoder"), ("generation", "no image head")):
        with pytest.raises(NotApplicable, match=reason):
            run(name, blind, source)
    with pytest.raises(NotApplicable, match="none were asked for"):
        run("text", Perfect(), source, text=0)


class Plain(list):
    """Groups of samples as a source."""

    name, broken = "plain", "error"


@pytest.mark.parametrize(
    ("groups", "where"),
    [
        (20, "no questions about pictures in its 20 groups"),
        (1000, "no questions about pictures in its 1,000 groups"),
        (
            3000,
            "no questions about pictures in 1,000 of its 3,000 groups, drawn at random, and the others were not",
        ),
    ],
)
def test_what_is_not_found_is_said_of_the_groups_that_were_looked_at(groups, where):
    words = [Sample("s", (Message("user", ("What?",)), Message("assistant", ("this",))))]
    with pytest.raises(NotApplicable, match=where):
        run("questions", Perfect(), Plain([words] * groups))


def test_questions_need_nothing_of_the_world(source):
    pictures = [pictures_read(source[i][0])[0] for i in range(4)]

    groups = Plain(
        [Sample(f"sample {i}", (Message("user", (p, "What?")), Message("assistant", (f"thing {i}",))))]
        for i, p in enumerate(pictures)
    )
    scores = run("questions", Perfect(), groups).scores
    assert (scores["score"], scores["n"], list(scores["by_type"])) == (1.0, 4, ["all"])


class Mirror(Perfect):
    """Answers with the condition under which it was asked."""

    def answer(self, samples, *, blind=False):
        own = [pictures_read(s)[0].scene == s.truth["scene"] for s in samples]
        return ["blind" if blind else "own picture" if mine else "other picture" for mine in own]


def test_each_condition_keeps_its_own_answers(source):
    for each in run("questions", Mirror(), source).samples["asked"]:
        assert each["said"] == {"said": "own picture", "blind": "blind", "shuffled": "other picture"}


def test_the_interval_is_over_pictures_not_questions(source):
    """Questions about one picture share its group, which is what the interval draws on."""
    outcome = run("questions", Perfect(), source)
    groups = {}
    for each in outcome.samples["asked"]:
        groups.setdefault(each["cluster"], []).append(each)
    assert outcome.scores["clusters"] == len(groups) < outcome.scores["n"]
    assert all(
        any(sample.truth.get("question") == each["question"] for sample in source[cluster])
        for cluster, group in groups.items()
        for each in group
    )
    low = 0.025 ** (1 / len(groups))  # all right: as many trials as pictures
    assert outcome.scores["ci"][0] == pytest.approx(low, abs=1e-3)


def asked_of(type_, answers, kinds=None):
    kinds = kinds or answers
    return [
        QuestionRecord(type_, i, "?", answer, kind, answers={"said": answer})
        for i, (answer, kind) in enumerate(zip(answers, kinds, strict=True))
    ]


def test_the_commonest_answer_is_weighed_by_the_questions_of_each_type():
    asked = asked_of("exist", ["yes"] * 9 + ["no"]) + asked_of("what", ["dog", "cat"])
    scores = scores_by_type(asked, ())
    assert scores["by_type"]["exist"]["commonest"] == 0.9
    assert scores["by_type"]["what"]["commonest"] == 0.5
    assert scores["commonest"] == pytest.approx((9 + 1) / 12)  # not (0.9 + 0.5) / 2


def test_each_control_is_scored_by_its_own_answers():
    asked = asked_of("what", ["dog"] * 4)
    for i, each in enumerate(asked):
        each.answers |= {"blind": "dog" if i < 1 else "?", "shuffled": "dog" if i < 3 else "?"}
    for scores in (scores_by_type(asked, ("blind", "shuffled")), scores_by_type(asked, ("shuffled",))):
        assert (scores["score"], scores["shuffled"]) == (1, 0.75)
        assert scores["shuffled_ci"][0] < 0.75 < scores["shuffled_ci"][1] < 1
        assert scores.get("blind", 0.25) == 0.25
    assert "blind" not in scores  # only what was asked


def test_the_class_of_an_answer_stands_for_it_where_the_words_differ():
    """Of a choice between two names, always the first is what guessing knows."""
    samples = [
        Sample(
            f"{i}",
            (Message("user", ("?",)), Message("assistant", (name,))),
            {"type": "choice", "answer_class": "first"},
        )
        for i, name in enumerate(("dog", "cat", "cow"))
    ]
    (dog, *_) = asked = ask([Item(sample, i) for i, sample in enumerate(samples)])
    for each in asked:
        each.answers["said"] = each.answer
    assert (dog.answer, dog.kind) == ("dog", "first")
    assert scores_by_type(asked, ())["commonest"] == 1.0


def test_several_true_answers_come_from_the_truth():
    sample = Sample(
        "s", (Message("user", ("?",)), Message("assistant", ("couch",))), {"answers": ("sofa", "settee")}
    )
    (asked,) = ask([Item(sample, 0)])
    asked.answers["said"] = "Sofa."
    assert asked.truths == ("couch", "sofa", "settee")
    assert asked.right
    assert asked.record()["score"] == 1.0


def test_answers_that_were_cut_off_are_counted():
    asked = asked_of("what", ["dog", "cat", "cow"])
    asked[1].answers["said"] = Answer.of("the ca", cut=True)
    scores = scores_by_type(asked, ())
    assert scores["cut"] == 1
    assert "1 of 3 answers cut off" in summary("questions", scores)
    assert [each.record()["cut"] for each in asked] == [False, True, False]


def test_the_prompt_holds_no_answer(source):
    for sample in source[0]:
        assert all(message.role != "assistant" for message in prompt_of(sample).messages)


def test_diversity_from_one_picture_to_any_picture(source):
    pictures = [pictures_read(source[i][0])[0].open() for i in range(6)]
    assert diversity([[picture] * 3 for picture in pictures]) == 0.0
    blurred = [[p, p.filter(ImageFilter.GaussianBlur(3))] for p in pictures]
    assert 0 < diversity(blurred) < 0.5
    assert diversity([pictures[:3], pictures[3:]]) > 0.5


def test_a_question_without_a_type_is_of_its_task_or_of_all():
    messages = (Message("user", ("?",)), Message("assistant", ("Dog.",)))
    truths = ({"type": "what", "task": "words"}, {"task": "words"}, {})
    asked = ask([Item(Sample("s", messages, truth), 4) for truth in truths])
    assert [each.type for each in asked] == ["what", "words", "all"]
    assert {(each.kind, each.cluster, each.truths) for each in asked} == {("dog", 4, ("Dog.",))}


def test_a_record_tells_the_true_answers_where_they_are_several():
    messages = (Message("user", ("?",)), Message("assistant", ("dog",)))
    people = ("dog", "dog", "cat")
    one, several = ask([Item(Sample("s", messages, truth), 0) for truth in ({}, {"answers": people})])
    for each in (one, several):
        each.answers["said"] = "cow"
    assert several.truths == people  # three people, two of whom agree
    assert "truths" not in one.record()
    assert several.record()["truths"] == list(people)
    assert not one.right
    assert one.record()["score"] == 0
    assert QuestionRecord("what", 0, "?", "dog", "dog", answers={"said": "dog"}).right
