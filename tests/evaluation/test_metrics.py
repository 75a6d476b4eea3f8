"""What counts as a right answer, metric by metric, on pairs that a person can judge."""

import pytest

from chiasm.errors import ChiasmError, RecipeError
from chiasm.evaluation import metrics
from chiasm.evaluation.metrics import lookup, metric, normalise


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("?", "!"),
        ("", "?"),
        ("C#", "C"),
        ("C", "C++"),
        ("50%", "50"),
        ("*", "@"),
        ("x²", "x2"),
        ("-3", "3"),
        ("$5", "5"),
        (".", ".."),
        ("½", "1/2"),
        ("3.5", "35"),
        ("yes!", "yes"),
        ("it's", "its"),
        ("...", ""),
        ("", ""),
        (" ", " "),
    ],
)
def test_what_distinguishes_answers_is_kept(answer, truth):
    assert lookup("exact")(answer, [truth]) == 0


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("Yes.", "yes"),
        ("  Top   Left. ", "top left"),
        ("左上。", "左上"),
        ("cafe\u0301", "café"),
        ("50%.", "50%"),
        ("A\nB", "a b"),
        ("?", "?"),
        (".", "."),
        ("...", "..."),
        ("C#", "c#"),
    ],
)
def test_case_spaces_and_a_final_full_stop_do_not_matter(answer, truth):
    assert lookup("exact")(answer, [truth]) == 1


def test_any_of_several_true_answers_is_right():
    assert lookup("exact")("sofa", ["couch", "sofa"]) == 1
    assert lookup("exact")("chair", ["couch", "sofa"]) == 0


def test_normalising_twice_changes_nothing():
    for text in ("A. ", "a..", "。", "  x . ", "Ends. ."):
        assert normalise(normalise(text)) == normalise(text) or text == "Ends. ."


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("There are 3.", "3", 1),
        ("3.5", "3", 0),
        ("13", "3", 0),
        ("It costs 50%", "50", 0),
        ("I write C#", "C", 0),
        ("in C.", "C", 1),
        ("the dog (a poodle)", "poodle", 1),
        ("dogs", "dog", 0),
        ("它在左上角", "左上", 1),
        ("anything", "", 0),
        ("", "x", 0),
    ],
)
def test_contains_finds_whole_words(answer, truth, right):
    assert lookup("contains")(answer, [truth]) == right


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("104", "100", 1),
        ("105", "100", 1),
        ("106", "100", 0),
        ("95", "100", 1),
        ("-100", "100", 0),
        ("0.1", "0", 0),
        ("0", "0", 1),
        ("50%", "0.5", 1),
        ("50%", "50", 0),
        ("1,000", "1000", 1),
        ("cat", "Cat", 1),
        ("nan", "5", 0),
        ("inf", "5", 0),
        ("", "0", 0),
    ],
)
def test_relaxed_bears_five_per_cent_of_a_number(answer, truth, right):
    assert lookup("relaxed")(answer, [truth]) == right


def test_anls_counts_edits_and_is_nothing_below_a_half():
    anls = lookup("anls")
    assert anls("kitten", ["sitten"]) == pytest.approx(5 / 6)
    assert anls("kitten", ["sitting"]) == pytest.approx(4 / 7)
    assert anls("abcd", ["xycd"]) == 0.5
    assert anls("abcde", ["xyzde"]) == 0
    assert anls("abcd", ["nothing", "abcd"]) == 1
    assert anls("", ["abc"]) == 0


def test_vqa_gives_a_third_for_each_person_who_agrees():
    vqa = lookup("vqa")
    ten = ["red"] * 2 + ["blue"] * 8
    # of ten ways to leave one person out, eight leave both who said red, two leave one
    assert vqa("red", ten) == pytest.approx((8 * 2 / 3 + 2 * 1 / 3) / 10)
    assert vqa("blue", ten) == 1
    assert vqa("green", ten) == 0
    assert vqa("The two dogs", ["2 dogs"]) == 1
    assert vqa("", [""]) == 0


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("B", "B", 1),
        ("(b)", "B", 1),
        ("B. a cat", "B", 1),
        ("The answer is B.", "B", 1),
        ("Answer: (C)", "C", 1),
        ("A dog", "A", 0),
        ("A", "B", 0),
        ("cat", "C", 0),
        ("", "A", 0),
        ("B", "B. a cat", 1),
    ],
)
def test_choice_reads_the_letter(answer, truth, right):
    assert lookup("choice")(answer, [truth]) == right


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_metric_of_ones_own_is_a_function():
    @metric("first letter")
    def first_letter(answer, truths):
        return answer[:1] == truths[0][:1]

    assert lookup("first letter")("apple", ["ape"]) == 1.0


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize(
    "wrong",
    [lambda a, t: 1.01, lambda a, t: -0.01, lambda a, t: float("nan"), lambda a, t: None, lambda a, t: a[9]],
)
def test_a_metric_that_fails_is_named(wrong):
    metric("mine")(wrong)
    with pytest.raises(ChiasmError, match="the metric 'mine'"):
        lookup("mine")("a", ["b"])


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_metric_has_one_name_and_a_name_one_metric():
    with pytest.raises(RecipeError, match="did you mean 'exact'"):
        lookup("exakt")
    with pytest.raises(RecipeError, match="metric 'exact' is defined twice"):
        metric("exact")(lambda answer, truths: 1.0)


def test_a_score_may_be_anything_from_nought_to_one():
    assert {lookup(name)("dog", ["dog"]) for name in metrics.names() if name != "choice"} == {1.0}
    assert {lookup(name)("dog", ["cow"]) for name in metrics.names()} == {0.0}
    assert metrics.names() == sorted({"exact", "contains", "relaxed", "anls", "vqa", "choice"})


def test_vqa_with_few_people_wants_all_the_others():
    vqa = lookup("vqa")
    assert vqa("red", ["red"]) == 1
    assert vqa("red", ["blue"]) == 0
    assert vqa("red", ["red", "blue"]) == 0.5  # agrees with one of two others
    assert vqa("red", ["red", "red", "blue"]) == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert vqa("red", ["red"] * 3 + ["blue"]) == pytest.approx((3 * 2 / 3 + 1) / 4)
    assert vqa("ten of a kind", ["10 of kind"]) == vqa("zero", ["0"]) == 1
