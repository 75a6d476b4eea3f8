"""The settings with which a request is made: the recipe's, and the caller's over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from chiasm.errors import ChiasmError

if TYPE_CHECKING:
    from chiasm.model import Model
    from chiasm.recipe import SamplingOptions


def sampling_of(model: Model, *, tokens: int | None = None, **options: Any) -> SamplingOptions:
    """The recipe's sampling settings with the caller's options laid over them; None = as the recipe has it.

    Raises ChiasmError naming an option that is out of range.
    """
    from chiasm.recipe import SamplingOptions

    base = model.sampling or SamplingOptions()
    changed = {key: value for key, value in {**options, "answer_tokens": tokens}.items() if value is not None}
    try:
        return SamplingOptions.model_validate({**base.model_dump(), **changed}, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]).replace("answer_tokens", "tokens")
        message = problem["msg"].lower().removeprefix("value error, ")
        raise ChiasmError(f"{name}: {message}, not {problem['input']!r}") from None
