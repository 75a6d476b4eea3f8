"""Tasks on a source of a few plain pictures: how many are asked, what is shown, and figures reckoned by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.data.sample import Message, Picture, Sample
from chiasm.data.world import Scene, Thing, find_emoji
from chiasm.errors import DataError
from chiasm.evaluation import probing
from chiasm.evaluation.subject import (
    Subject,
    answers_in_words,
    expected,
    pictures_read,
    question,
    with_pictures,
)
from chiasm.evaluation.tasks import (
    PATIENCE,
    Exam,
    NotApplicable,
    drawing,
    generation,
    linear_probe,
    questions,
)
from chiasm.evaluation.tasks import nearest_neighbours as neighbours
from chiasm.recipe import Evaluation
from chiasm.views import Size


class Plain(Picture):
    """One grey."""

    def __init__(self, grey, side=16):
        self.grey, self.side = grey, side
        self.key, self.size = f"grey {grey} {side}", Size(side, side)

    def open(self):
        return Image.new("RGB", (self.side, self.side), (self.grey,) * 3)


class Groups(list):
    name, broken, skipped = "groups", "error", {}
    fingerprint = "f"


class Wrong(Subject):
    """Never right; draws the same darker grey; gives pictures back a little lighter."""

    sees = draws = True

    def __init__(self):
        self.seeds, self.drawn = [], []

    def answer(self, samples, *, blind=False):
        return ["wrong"] * len(samples)

    def draw(self, samples, *, seed):
        self.seeds.append(seed)
        self.drawn.append([question(sample) for sample in samples])
        return [Image.new("RGB", (16, 16), (40 + 7 * i % 90,) * 3) for i in range(len(samples))]

    def reconstruct(self, pictures):
        return [Image.new("RGB", (8, 8), (picture.grey + 10 + i,) * 3) for i, picture in enumerate(pictures)]


def asks(i, type_="what", answer="dog"):
    return Sample(
        f"{i}", (Message("user", (Plain(i), "What?")), Message("assistant", (answer,))), {"type": type_}
    )


def draws(i, **truth):
    return Sample(f"{i}", (Message("user", (f"Draw {i}.",)), Message("assistant", (Plain(i),))), truth)


def exam(groups, subject=None, seed=0, **sizes):
    return Exam(subject or Wrong(), Groups(groups), Evaluation(**sizes), seed)


def test_as_many_questions_as_asked_for_in_an_order_that_the_seed_draws():
    groups = [[asks(i), asks(i)] for i in range(30)]
    orders = [[item.cluster for item in exam(groups, seed=s).collect(lambda _: True, 7)] for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert len(orders[0]) == 7
    assert sorted(np.unique(orders[0], return_counts=True)[1]) == [
        1,
        2,
        2,
        2,
    ]  # a group's own questions together
    everything = exam(groups).collect(lambda _: True, 1000)
    assert len(everything) == 60
    assert exam(groups).collect(lambda _: True, 0) == []


@pytest.mark.parametrize(("place", "found"), [(PATIENCE - 1, 1), (PATIENCE, 0)])
def test_a_source_without_any_in_a_thousand_groups_is_left(place, found):
    looked = []
    groups = Groups([["one"]] * (PATIENCE + 100))
    order = np.random.default_rng(0).permutation(len(groups))
    wanted = int(order[place])

    class Counted(Groups):
        def __getitem__(self, index):
            looked.append(index)
            return [asks(index)]

    items = Exam(Wrong(), Counted(groups), Evaluation()).collect(lambda s: s.name == str(wanted), 5)
    assert len(items) == found
    # once there is one, all of the source is looked through
    assert len(looked) == (len(groups) if found else PATIENCE)


def test_records_that_cannot_be_asked_are_passed_over_only_where_the_source_says_so():
    class Damaged(Plain):
        def open(self):
            raise DataError("no", kind="unreadable image")

    bad = Sample("bad", (Message("user", (Damaged(1), "What?")), Message("assistant", ("dog",))))
    for broken, count in (("skip", 1), ("error", 2)):
        groups = Groups([[bad], [asks(2)]])
        groups.broken = broken
        the_exam = Exam(Wrong(), groups, Evaluation())
        assert len(the_exam.collect(lambda _: True, 5)) == count
        assert the_exam.unusable == ({"bad": "unreadable image"} if broken == "skip" else {})


def test_the_report_shows_twelve_questions_as_they_come_and_three_wrong_ones_of_each_type_beside():
    groups = [
        [asks(i, type_, "wrong" if type_ == "right" else "dog")]
        for i in range(30)
        for type_ in ("a", "b", "right")
    ]
    groups = [[asks(i, sample.truth["type"], expected(sample))] for i, (sample,) in enumerate(groups)]
    outcome = questions.Questions().run(exam(groups, questions=90))
    asked, random, wrong = (outcome.samples[key] for key in ("asked", "random", "wrong"))
    assert len(asked) == 90
    assert len(random) == len(set(random)) == 12
    assert [asked[i]["type"] for i in wrong] == ["a"] * 3 + ["b"] * 3
    assert not set(random) & set(wrong)
    shown = {asked[i]["picture"] for i in (*random, *wrong)}
    assert (
        shown == set(outcome.pictures) == {f"question-{asked[i]['cluster']}.webp" for i in (*random, *wrong)}
    )
    assert sum(each["picture"] is not None for each in asked) == 18
    other = questions.Questions().run(exam(groups, seed=1, questions=90)).samples["random"]
    assert other != random


@pytest.mark.parametrize(
    ("size", "shown"), [((384, 384), (384, 384)), ((800, 400), (384, 192)), ((20, 9), (20, 9))]
)
def test_pictures_are_kept_no_larger_than_the_report_needs(size, shown):
    assert questions.shrunk(Image.new("RGBA", size)).size == shown
    assert questions.shrunk(Image.new("RGBA", size)).mode == "RGB"


def test_whole_sentences_and_held_out_wordings_are_no_questions():
    def of(**truth):
        sample = asks(1)
        return Sample("s", sample.messages, truth)

    assert questions._matches(of(task="what", phrasings="train"))
    assert questions._matches(of())
    assert not questions._matches(of(task="caption"))
    assert not questions._matches(of(phrasings="held_out"))
    assert questions.about_pictures(of(phrasings="held_out"))
    assert not questions.about_pictures(draws(1))
    assert not questions.about_pictures(Sample("s", (Message("user", ("?",)), Message("assistant", ("x",)))))


def test_answers_and_questions_are_the_words_of_the_last_turns():
    sample = asks(1)
    assert (question(sample), expected(sample)) == ("What?", "dog")
    assert answers_in_words(sample)
    assert pictures_read(sample) == [sample.messages[0].content[0]]
    assert expected(Sample("s", sample.messages[:1])) == ""
    assert not answers_in_words(Sample("s", (sample.messages[0], Message("assistant", (" ",)))))
    assert not answers_in_words(Sample("s", (sample.messages[0], Message("assistant", ("a", Plain(3))))))
    assert pictures_read(draws(3)) == []
    two = Sample("s", (Message("user", (" Look: ", Plain(1), "what? ")), Message("assistant", ("x ", "y"))))
    assert (question(two), expected(two)) == ("Look: what?", "x y")
    other = with_pictures(two, {Plain(1).key: Plain(9)})
    assert [picture.grey for picture in pictures_read(other)] == [9]
    assert (question(other), expected(other)) == ("Look: what?", "x y")
    assert with_pictures(draws(3), {}).messages[0] == draws(3).messages[0]  # what is drawn stays


def test_drawings_are_judged_by_decibels_reckoned_by_hand():
    """Errors of 10, 11 and 12 of 255; the interval is of the mean's standard error."""
    outcome = drawing.DrawingTask().run(exam([[draws(i)] for i in range(3)], seed=5, pictures=3))
    noise = np.array([-20 * np.log10(error / 255) for error in (10, 11, 12)])
    told = outcome.scores["reconstruction"]
    half = 1.959964 * noise.std(ddof=1) / 3**0.5
    assert told["psnr"] == pytest.approx(noise.mean(), abs=1e-3)
    assert told["psnr_ci"] == pytest.approx([noise.mean() - half, noise.mean() + half], abs=1e-3)
    assert 0 < told["ssim"] < 1
    assert outcome.scores["n"] == 3
    assert outcome.scores[drawing.DISTANCE] > told[drawing.DISTANCE] > 0
    assert [row["images"]["true"] for row in outcome.samples["rows"]] == [
        f"drawing-{i}-true.webp" for i in range(3)
    ]
    assert len(outcome.pictures) == 9


def test_one_drawing_alone_has_no_interval_and_no_distance():
    scores = drawing.DrawingTask().run(exam([[draws(1)]], pictures=3)).scores
    assert "psnr_ci" not in scores["reconstruction"]
    assert drawing.DISTANCE in scores["left_out"]


def test_the_report_shows_sixteen_drawings(monkeypatch):
    monkeypatch.setattr(drawing, "_distances", lambda *pictures: {})
    outcome = drawing.DrawingTask().run(exam([[draws(i)] for i in range(20)], pictures=17))
    assert outcome.scores["n"] == 17
    assert len(outcome.samples["rows"]) == 16
    assert len(outcome.pictures) == 48


def test_drawing_wants_what_no_checker_judges():
    assert drawing._matches(draws(1))
    assert not drawing._matches(draws(1, scene="scene"))
    assert not drawing._matches(asks(1))
    assert not drawing._matches(Sample("s", (Message("user", (Plain(1),)),)))


def test_pixels_are_from_nought_to_one_and_pairs_of_one_size():
    black, white = Image.new("L", (4, 6), 0), Image.new("RGB", (8, 8), "white")
    one, other = drawing._pair(white, black)
    assert one.shape == other.shape == (1, 3, 8, 8)
    assert (one.unique().tolist(), other.unique().tolist()) == ([1.0], [0.0])


DOG, CAT = find_emoji("dog"), find_emoji("cat")
SCENE = Scene((2, 2), (Thing(DOG, 0), Thing(CAT, 3)))
ALONE = Scene((2, 2), (Thing(DOG, 1),))


def test_measures_weigh_things_or_pictures_as_they_say():
    """Of three things one is misplaced and one missing; of two pictures one is right in number, none wholly."""
    samples = [draws(1, scene=SCENE), draws(2, scene=ALONE)]
    judged = generation.judge([(DOG, None, None, None), (DOG, None, None, None)], samples)
    assert judged["object"].value == pytest.approx(2 / 3)
    assert judged["place"].value == pytest.approx(1 / 3)
    assert judged["count"].value == 0.5
    assert judged["all"].value == 0
    assert [judged[name].n for name in generation.MEASURES] == [3, 2, 3, 2]
    right = generation.judge([(DOG, None, None, CAT), (None, DOG, None, None)], samples)
    assert [right[name].value for name in generation.MEASURES] == [1] * 4


def test_diversity_is_the_spread_within_prompts_over_that_between_them():
    def grey(level):
        return Image.new("RGB", (4, 4), (level,) * 3)

    # within: 10 and 20; between, place by place: 100 and 110
    assert generation.diversity([[grey(0), grey(10)], [grey(100), grey(120)]]) == pytest.approx(15 / 105)
    assert generation.diversity([[grey(0), grey(90)], [grey(1), grey(91)]]) == 1
    assert generation.diversity([[grey(0)], [grey(9)]]) == 0
    assert generation.diversity([[grey(0), grey(9)]]) == 0
    assert generation.diversity([[grey(0), grey(9)], [grey(0), grey(9)]]) == 0


def test_twelve_prompts_are_drawn_four_times_with_another_seed_and_four_are_shown():
    subject = Wrong()
    samples = [draws(i, scene=ALONE) for i in range(15)]
    several, spread = generation._diversity(exam([], subject, seed=3), [*samples, samples[0]])
    assert subject.seeds == [4]
    assert subject.drawn == [[f"Draw {i}." for i in range(12) for _ in range(4)]]
    assert {text: len(group) for text, group in several.items()} == {f"Draw {i}.": 4 for i in range(12)}
    assert 0 < spread <= 1
    pictures = {}
    told = generation._name(several, pictures)
    assert [each["prompt"] for each in told] == [f"Draw {i}." for i in range(4)]
    assert told[1]["pictures"] == [f"several-1-{i}.webp" for i in range(4)]
    assert len(pictures) == 16


def test_the_report_shows_twenty_four_drawings_with_what_was_asked_and_found():
    samples = [draws(i, scene=SCENE) for i in range(30)]
    images = [Image.new("RGB", (2, 2))] * 30
    shown, pictures = generation._examples(samples, images, images, [(DOG, None, CAT, None)] * 30)
    assert len(shown) == 24
    assert len(pictures) == 72
    assert shown[5]["drawn"] == "drawn-5.webp"
    assert shown[0]["columns"] == 2
    assert shown[0]["cells"] == [
        {"asked": "dog", "found": "dog"}, {"asked": None, "found": None},
        {"asked": None, "found": "cat"}, {"asked": "cat", "found": None},
    ]  # fmt: skip
    chinese, _ = generation._examples(
        [draws(1, scene=SCENE, language="zh")], images, images, [(DOG, None, CAT, None)]
    )
    assert chinese[0]["cells"][0] == {"asked": "狗", "found": "狗"}


def test_a_source_without_a_checker_is_said():
    with pytest.raises(NotApplicable, match="'groups' has no checker"):
        generation.checker_of(Groups(), SCENE)


def test_the_penalty_of_the_probe_is_the_best_on_every_fifth_picture(monkeypatch):
    fits = []

    def fit(x, classes, count, penalty):
        fits.append((len(x), penalty))
        return penalty

    # only a penalty of 0.01 names those aside rightly
    classes = torch.arange(20) % 2
    answer = lambda weights, x: classes[::5] if weights == 1e-2 else 1 - classes[::5]  # noqa: E731
    monkeypatch.setattr(linear_probe, "_fit", fit)
    monkeypatch.setattr(linear_probe, "_answer", answer)
    linear_probe.classify(torch.randn(20, 3), classes, torch.randn(4, 3), 2)
    assert fits == [(16, 1e-4), (16, 1e-3), (16, 1e-2), (16, 1e-1), (20, 1e-2)]


def test_the_probe_is_the_optimum_of_its_loss():
    """Where the gradient vanishes: cross-entropy and the penalty of the squared weights, but not of biases."""
    torch.manual_seed(0)
    x, classes = torch.randn(60, 4), torch.arange(60) % 3
    for penalty in (1e-1, 1e-2):
        weights = linear_probe._fit(x, classes, 3, penalty)
        shares = torch.softmax(x @ weights[:-1] + weights[-1], dim=1)
        error = (shares - torch.nn.functional.one_hot(classes)) / 60
        assert (x.T @ error + 2 * penalty * weights[:-1]).abs().max() < 1e-3
        assert error.sum(0).abs().max() < 1e-3
        assert weights[:-1].abs().max() > 1e-2
        assert linear_probe._answer(weights, x).tolist() == shares.argmax(1).tolist()


def test_twenty_neighbours_vote_by_their_likeness_over_the_temperature():
    torch.manual_seed(1)
    learnt, asked, classes = torch.randn(90, 5), torch.randn(300, 5), torch.arange(90) % 6
    mean, deviation = learnt.mean(0), learnt.std(0)
    one, other = (((each - mean) / deviation).numpy() for each in (learnt, asked))
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one, other))
    expected = []
    for row in other @ one.T:
        votes = np.zeros(6)
        for i in np.argsort(-row)[:20]:
            votes[classes[i]] += np.exp(row[i] / 0.07)
        expected.append(int(votes.argmax()))
    assert neighbours.classify(learnt, classes, asked, 6).tolist() == expected
    assert neighbours.classify(learnt[:3], classes[:3], asked, 6).max() <= 2


def test_features_are_standardised_by_those_that_are_learnt_from():
    learnt, asked = torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[4.0, 5.0]])
    one, other = probing.standardised(learnt, asked)
    assert one.tolist() == [[pytest.approx(-(0.5**0.5)), 0], [pytest.approx(0.5**0.5), 0]]
    assert other.tolist() == [[pytest.approx(2**0.5), 0]]


def named(i, *labels, answer=""):
    truth = {"labels": labels} if labels else {}
    return Sample(
        f"{i}", (Message("user", (Plain(i), "?")), Message("assistant", (answer or f"thing {i}",))), truth
    )


def test_labelled_pictures_have_one_name_each_and_are_as_many_as_asked_for():
    groups = Groups(
        [
            [named(0, "dog"), named(1, "dog", "cat")],
            [
                named(2),
                draws(3),
                Sample("two", (Message("user", (Plain(4), Plain(5))),), {"labels": ("dog",)}),
            ],
            [named(6, "cat"), named(7, "cow"), named(8, "")],
            [named(9, "pig")],
        ]
    )
    found = probing.labelled(exam([], labelled_pictures=3), groups)
    assert found.names == ["dog", "thing 2", "cat"]
    assert [picture.grey for picture in found.images] == [0, 2, 6]
    everything = probing.labelled(exam([], labelled_pictures=100), groups)
    assert everything.names == ["dog", "thing 2", "cat", "cow", "pig"]
    looked = []

    class Counted(Groups):
        def __getitem__(self, index):
            looked.append(index)
            return [named(index)]

    probing.labelled(exam([], labelled_pictures=3), Counted([0] * 9))
    assert looked == [0, 1, 2]


def test_pictures_go_through_the_encoder_sixty_four_at_a_time(monkeypatch):
    sizes = []

    class Encoder(torch.nn.Module):
        def forward(self, pixels):
            sizes.append(len(pixels))
            return pixels.permute(0, 2, 3, 1)

    monkeypatch.setattr(
        probing, "_view", lambda contract, picture: torch.full((3, 2, 2), float(picture.grey))
    )
    monkeypatch.setattr(probing, "fitting", lambda pixels, part: pixels)
    model = SimpleNamespace(contract=None, device="cpu")
    found = probing.features(model, Encoder(), [Plain(i) for i in range(130)])
    assert sizes == [64, 64, 2]
    assert found.tolist() == [[float(i)] * 3 for i in range(130)]
