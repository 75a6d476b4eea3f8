"""A summary of a model in one or two sentences, from its scores and their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAK = 0.05  # by how much blind answers may beat the commonest one before the questions are called leaky


def verdict(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Sentences on seeing, guessing and drawing; only what the intervals support."""
    sentences = []
    if "questions" in tasks:
        sentences += _seeing(tasks["questions"])
    if "generation" in tasks:
        sentences += _drawing(tasks["generation"])
    if "editing" in tasks:
        sentences += _editing(tasks["editing"])
    if "linear_probe" in tasks:
        sentences += _probing(tasks["linear_probe"])
    if not sentences and "text" in tasks:
        low, high = tasks["text"]["ci"]
        sentences.append(f"It answers {low:.0%} to {high:.0%} of the questions told in words.")
    if "drawing" in tasks:
        sentences += _drawing_freely(tasks["drawing"])
    return " ".join(sentences)


def _seeing(scores: Mapping[str, Any]) -> list[str]:
    score, blind, common = scores["score"], scores["blind"], scores["commonest"]
    guess = max(scores.get("blind_ci", [0, blind])[1], common)
    sentences = []
    if scores["ci"][0] > guess:
        sentences.append(
            f"It answers from the images: {score:.0%} right, against {blind:.0%} when it cannot see them and "
            f"{common:.0%} for always giving the commonest answer."
        )
    else:
        sentences.append(
            f"It is not shown to look: {score:.0%} of its answers are right, and guessing reaches "
            f"{max(blind, common):.0%}."
        )
    if scores.get("blind_ci", [blind])[0] > common + LEAK:
        sentences.append("The questions leak: without an image it beats the commonest answer.")
    types = scores.get("by_type", {})
    if len(types) > 1:
        name, worst = min(types.items(), key=lambda item: item[1]["score"])
        sentences.append(f"Its weakest type is “{name}”, at {worst['score']:.0%}.")
    return sentences


def _drawing(scores: Mapping[str, Any]) -> list[str]:
    ceiling = scores.get("reconstruction", {}).get("place")
    bound = "" if ceiling is None else f" (its image tokenizer alone would allow {ceiling:.0%})"
    sentences = [
        f"Asked to draw, it puts {scores['place']:.0%} of the things where they belong{bound}; "
        f"{scores['all']:.0%} of the images are right in every cell."
    ]
    if scores["diversity"] < 0.05 and scores["all"] > 0:
        sentences.append("It draws one prompt nearly the same way every time.")
    return sentences


def _editing(scores: Mapping[str, Any]) -> list[str]:
    return [
        f"Asked to change an image, it makes {scores['change']:.0%} of the changes, and keeps the rest at "
        f"{scores['psnr_outside']:.1f} dB (its image tokenizer alone would allow "
        f"{scores['reconstruction']['psnr_outside']:.1f} dB)."
    ]


def _drawing_freely(scores: Mapping[str, Any]) -> list[str]:
    distances = [key for key in scores if key.startswith("FD-")]
    sentences = [f"Its image tokenizer reconstructs images at {scores['reconstruction']['psnr']:.1f} dB."]
    for key in distances:
        floor = scores["reconstruction"][key]
        sentences.append(
            f"What it draws lies at a distance of {scores[key]:.3g} from the true images ({key}, "
            f"{scores['n']} images); reconstructions lie at {floor:.3g}."
        )
    return sentences


def _probing(scores: Mapping[str, Any]) -> list[str]:
    named = f"One linear layer on the encoder's features names {scores['score']:.0%} of held-out images"
    if "untrained" not in scores:
        return [f"{named}; chance is {scores['chance']:.0%}."]
    better = scores["ci"][0] > scores["untrained_ci"][1]
    baselines = f"the same encoder untrained gives {scores['untrained']:.0%}, chance {scores['chance']:.0%}"
    return [f"{named}; {baselines}." if better else f"{named}, no more than without training: {baselines}."]
