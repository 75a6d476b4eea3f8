"""Objects of diffusers from configurations, and its absence or refusal as a sentence."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from chiasm.errors import RecipeError, reason


def library(part: str) -> Any:
    """The package; raises RecipeError that says how to get it. part: who needs it."""
    try:
        return importlib.import_module("diffusers")
    except ImportError:
        raise RecipeError(f"{part} needs diffusers: pip install 'chiasm[diffusion]'") from None


def create(class_name: str, config: Mapping[str, Any], part: str) -> Any:
    """An object of a class of diffusers; raises RecipeError without diffusers, or for a config it refuses.

    part: for the message, as in "denoiser 'unet'".
    """
    plain = {
        key: value for key, value in config.items() if not key.startswith("_")
    }  # not its notes on itself
    try:
        return getattr(library(part), class_name)(**plain)
    except (TypeError, ValueError, NotImplementedError, ImportError) as error:
        raise RecipeError(f"{part}: diffusers refuses the configuration: {reason(error)}") from None
