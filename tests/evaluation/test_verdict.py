"""The verdict's sentences: each appears from its threshold on, and not before."""

import pytest

from chiasm.evaluation.verdict import verdict

SEES = {"score": 0.9, "ci": [0.85, 0.95], "blind": 0.25, "blind_ci": [0.2, 0.3], "commonest": 0.28}
DRAWS = {"place": 0.8, "all": 0.4, "diversity": 0.2}
PROBED = {"score": 0.6, "ci": [0.5, 0.7], "untrained": 0.3, "untrained_ci": [0.2, 0.4], "chance": 0.1}


def test_nothing_measured_nothing_said():
    assert verdict({}) == ""


@pytest.mark.parametrize(
    ("low", "blind_high", "commonest", "sees"),
    [(0.31, 0.3, 0.28, True), (0.3, 0.3, 0.28, False), (0.31, 0.3, 0.31, False), (0.32, 0.3, 0.31, True)],
)
def test_it_sees_where_its_interval_lies_above_both_ways_of_guessing(low, blind_high, commonest, sees):
    told = SEES | {"ci": [low, 0.95], "blind_ci": [0.2, blind_high], "commonest": commonest}
    assert verdict({"questions": told}).startswith("It answers from the images: 90% right") == sees
    assert verdict({"questions": told}).startswith("It is not shown to look: 90% of its answers") != sees


def test_guessing_is_the_better_of_the_two():
    for blind, commonest in ((0.5, 0.4), (0.4, 0.5)):
        told = {"score": 0.5, "ci": [0.4, 0.6], "blind": blind, "commonest": commonest}
        assert "guessing reaches 50%" in verdict({"questions": told})


@pytest.mark.parametrize(("blind_low", "leaks"), [(0.2501, True), (0.25, False), (0.2, False)])
def test_questions_leak_where_blind_answers_beat_the_commonest_by_a_twentieth(blind_low, leaks):
    told = SEES | {"blind_ci": [blind_low, 0.3], "commonest": 0.2}
    assert ("The questions leak" in verdict({"questions": told})) == leaks


def test_without_an_interval_blind_answers_stand_for_themselves():
    told = {"score": 0.9, "ci": [0.31, 0.95], "blind": 0.3, "commonest": 0.24}
    assert "It answers from the images" in verdict({"questions": told})
    assert "The questions leak" in verdict({"questions": told})
    assert "not shown to look" in verdict({"questions": told | {"ci": [0.3, 0.95]}})


def test_the_weakest_type_is_named_where_there_are_several():
    types = {"what": {"score": 0.9}, "count": {"score": 0.4}, "where": {"score": 0.7}}
    assert "Its weakest type is “count”, at 40%." in verdict({"questions": SEES | {"by_type": types}})
    assert "weakest" not in verdict({"questions": SEES | {"by_type": {"what": {"score": 0.9}}}})
    two = {"what": {"score": 0.5}, "count": {"score": 0.6}}
    assert "“what”" in verdict({"questions": SEES | {"by_type": two}})


def test_drawing_is_told_with_its_ceiling_and_its_sameness():
    told = verdict({"generation": DRAWS})
    assert told == (
        "Asked to draw, it puts 80% of the things where they belong; 40% of the images are right in every cell."
    )
    assert "would allow 95%" in verdict({"generation": DRAWS | {"reconstruction": {"place": 0.95}}})
    same = "nearly the same way"
    assert same in verdict({"generation": DRAWS | {"diversity": 0.04}})
    assert same not in verdict({"generation": DRAWS | {"diversity": 0.05}})
    assert same not in verdict({"generation": DRAWS | {"diversity": 0.04, "all": 0}})
    assert same in verdict({"generation": DRAWS | {"diversity": 0.04, "all": 0.01}})


def test_a_probe_is_told_beside_the_untrained_encoder():
    better = verdict({"linear_probe": PROBED})
    assert better == (
        "One linear layer on the encoder's features names 60% of held-out images; "
        "the same encoder untrained gives 30%, chance 10%."
    )
    for low in (0.4, 0.3):
        assert "no more than without training" in verdict({"linear_probe": PROBED | {"ci": [low, 0.7]}})
    alone = {key: value for key, value in PROBED.items() if not key.startswith("untrained")}
    assert verdict({"linear_probe": alone}).endswith("names 60% of held-out images; chance is 10%.")


def test_words_count_where_there_is_nothing_else():
    text = {"ci": [0.25, 0.5]}
    assert verdict({"text": text}) == "It answers 25% to 50% of the questions told in words."
    assert "told in words" not in verdict({"text": text, "questions": SEES})
    assert "told in words" not in verdict({"text": text, "generation": DRAWS})


def test_free_drawing_is_told_by_its_distances():
    told = {"n": 40, "FD-net": 3.14159, "reconstruction": {"psnr": 24.26, "FD-net": 1.5}}
    assert verdict({"drawing": told}) == (
        "Its image tokenizer reconstructs images at 24.3 dB. What it draws lies at a distance of 3.14 from the "
        "true images (FD-net, 40 images); reconstructions lie at 1.5."
    )
    assert verdict({"drawing": {"reconstruction": {"psnr": 20.0}}}).endswith("at 20.0 dB.")
