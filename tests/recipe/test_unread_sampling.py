"""Sampling options that the images of a recipe's model do not go by."""

import pytest

from chiasm.errors import RecipeError
from chiasm.recipe import check_sampling, load_recipe, recipes
from chiasm.recipe.sampling import images_go_by

PIXELS = "model.image_tokenizer={type: pixels, size: 32, patch_size: 8}"
REGRESSION = "model.heads.image.alphabet={type: regression}"


def test_an_option_of_images_that_would_change_nothing_is_an_error_that_names_it(tiny):
    tiny["stages"] = tiny["stages"][1:]
    check_sampling(load_recipe(tiny, ["sampling.top_k=3", "sampling.temperature=0"]))
    vectors = [PIXELS, REGRESSION]
    check_sampling(load_recipe(tiny, [*vectors, "sampling.temperature=1.0"]))  # as if it were not there
    for change in ("temperature=0.0", "top_k=3", "top_p=0.5"):
        with pytest.raises(
            RecipeError, match=rf"^sampling\.{change[:5]}.*go by guidance alone; leave it out"
        ):
            check_sampling(load_recipe(tiny, [*vectors, f"sampling.{change}"]))


def test_several_options_are_listed_in_their_order():
    assert images_go_by("whole", "flow", {"temperature", "guidance"}).endswith(
        "guidance and temperature alone"
    )


@pytest.mark.parametrize("tiny", [True, False])
def test_what_comes_with_chiasm_sets_nothing_in_vain(tiny):
    for name, path in recipes().items():
        if not tiny or "\ntiny:" in path.read_text(encoding="utf-8"):
            check_sampling(load_recipe(name, tiny=tiny))
