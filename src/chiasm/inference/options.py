"""The settings with which a request is made: the recipe's, and the caller's over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from chiasm.errors import ChiasmError, quoted
from chiasm.recipe.sampling import images_go_by
from chiasm.recipe.schema import OF_IMAGES, SamplingOptions

if TYPE_CHECKING:
    from chiasm.model import Model


def sampling_of(model: Model, *, tokens: int | None = None, **options: Any) -> SamplingOptions:
    """The recipe's sampling settings with the caller's options laid over them; None = as the recipe has it.

    Raises ChiasmError naming an option that is out of range, or that nothing in the model goes by.
    """
    base = model.sampling or SamplingOptions()
    changed = {key: value for key, value in {**options, "answer_tokens": tokens}.items() if value is not None}
    try:
        settings = SamplingOptions.model_validate({**base.model_dump(), **changed}, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]).replace("answer_tokens", "tokens")
        message = problem["msg"].removeprefix("Value error, ")
        raise ChiasmError.of(
            name, f"{message[:1].lower()}{message[1:]}, not {quoted(problem['input'])}"
        ) from None
    refuse_unread(model, {name: name for name in OF_IMAGES if name in changed})
    return settings


def refuse_unread(model: Model, options: Mapping[str, str]) -> None:
    """Raise ChiasmError for an option of images that would change nothing.

    options: those that are given, each with what the caller calls it.
    """
    head = model.image_head
    for name, called in options.items():
        if head is None:
            raise ChiasmError.of(called, "it is of images, and this model draws none; leave it out")
        read = head.sampled_with(type(head.alphabet))
        if name not in read:
            reason = images_go_by(head.name, head.alphabet.name, read)
            raise ChiasmError.of(called, f"it would change nothing: {reason}; leave it out")
