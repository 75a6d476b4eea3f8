"""What a recipe is: YAML, checked against the signatures of the parts it names, complete when resolved."""

from chiasm.recipe.files import about, find_base, find_recipe, read_raw, recipes, shipped, write_text
from chiasm.recipe.load import load_recipe, resolve, section_of
from chiasm.recipe.overlay import load_value, merge
from chiasm.recipe.sampling import check_sampling
from chiasm.recipe.schema import (
    Checkpoints,
    EarlierAnswers,
    Evaluation,
    Recipe,
    SamplingOptions,
    Stage,
    Start,
)

__all__ = [
    "Checkpoints",
    "EarlierAnswers",
    "Evaluation",
    "Recipe",
    "SamplingOptions",
    "Stage",
    "Start",
    "about",
    "check_sampling",
    "find_base",
    "find_recipe",
    "load_recipe",
    "load_value",
    "merge",
    "read_raw",
    "recipes",
    "resolve",
    "section_of",
    "shipped",
    "write_text",
]
