"""Image tokenizers are by default what their projects published."""

import inspect

import pytest

from chiasm import parts
from chiasm.recipe.forms import renewed

# What the networks are by default, each with where that is published; critics and quantizers stand apart.
PUBLISHED = {
    # Open-MAGVIT2, imagenet_lfqgan_256_L
    "open_magvit2": {"size": 256, "width": 128, "multipliers": [1, 1, 2, 2, 4], "depth": 4},
    # Open-MAGVIT2, ucf101_lfqgan_128_L
    "open_magvit2_video": {"size": 128, "width": 128, "multipliers": [1, 2, 2, 4], "depth": 4},
    # Emu3-VisionTokenizer
    "vqgan_video": {"size": 512, "width": 256, "multipliers": [1, 2, 2, 4], "depth": 2, "attention_levels": [3],
                    "heads": 1, "downsample_time": 4},
    # LaVIT's tokenizer over EVA-CLIP's features; positions, painter and what keeps codes alive are ours
    "lavit": {"size": 224, "codebook_size": 16384, "code_width": 32, "depth": 12, "heads": 16, "hidden": 6144,
              "most": None, "keep": 1 / 3, "decoder_depth": 12, "decoder_width": None, "positions": False,
              "painter": None, "foreground": 1.0, "commitment": 0.25, "decay": 0.99, "settle": 0,
              "revive_after": 20},
}  # fmt: skip


# The same of quantizers.
CODES = {
    # taming-transformers, vqgan_imagenet_f16_1024
    "nearest": {"codebook_size": 1024, "width": 256, "codebook_weight": 0.25, "commitment": 1.0, "entropy": 0.0},
    # taming-transformers, vqgan_gumbel_f8, with the divergence's weight of its class
    "gumbel": {"codebook_size": 8192, "width": 256, "temperature": 1.0, "kl": 5e-4},
    # LlamaGen, VQ-16
    "cosine": {"codebook_size": 16384, "width": 8, "commitment": 0.25, "entropy": 0.0},
    # FSQ's paper: the levels for 2^10 codes
    "fsq": {"levels": [8, 5, 5, 5], "width": 0, "symmetric": False, "clamped": False},
    # vector-quantize-pytorch's weights
    "lfq_projected": {"bits": 10, "width": 0, "commitment": 0.25, "entropy": 0.1, "diversity": 1.0,
                      "soft_clamp": 0.0, "scale": 1.0, "spherical": False, "offset": None},
    # Show-o, magvitv2
    "lfq_bitwise": {"bits": 13, "commitment": 0.1, "entropy": 0.1, "repeated": 0.25},
    # Open-MAGVIT2, with the entropy's weights of its paper
    "lfq": {"bits": 18, "commitment": 0.25, "entropy": 0.1, "sure": 1.0, "even": 1.0},
}  # fmt: skip
ALL = [("image_tokenizer", name) for name in PUBLISHED] + [("quantizer", name) for name in CODES]


@pytest.mark.parametrize(("slot", "name"), ALL)
def test_by_default_a_part_is_what_was_published(slot, name):
    options = inspect.signature(parts.lookup(slot, name)).parameters
    defaults = {each.name: each.default for each in options.values() if each.kind is each.KEYWORD_ONLY}
    assert defaults.pop("critics", []) == []
    assert name == "lavit" or defaults.pop("revive_after", 0) == 0
    for required in ("encoder", "quantizer"):
        assert defaults.pop(required, inspect.Parameter.empty) is inspect.Parameter.empty
    assert defaults == {**PUBLISHED, **CODES}[name]


# Parts that were one with their quantizer, and what they were by default; their options in full.
LLAMAGEN = {"size": 256, "width": 128, "multipliers": [1, 1, 2, 2, 4], "depth": 2, "latent_width": 256}
TAMING = {**LLAMAGEN, "attention_sizes": [16]}
BEFORE = {
    "vqgan": {**TAMING, "code_width": 256, "codebook_size": 1024, "codebook_weight": 0.25, "commitment": 1.0,
              "middle_attention": True, "convolved": True, "decoder_multipliers": [], "entropy": 0.0,
              "critics": [], "revive_after": 0},
    "vqgan_gumbel": {**TAMING, "multipliers": [1, 1, 2, 4], "attention_sizes": [32], "codebook_size": 8192,
                     "convolved": True, "temperature": 1.0, "kl": 5e-4, "critics": []},
    "vqgan_cosine": {**LLAMAGEN, "decoder_multipliers": [], "code_width": 8, "codebook_size": 16384,
                     "commitment": 0.25, "entropy": 0.0, "critics": []},
    "vqgan_unit": {**LLAMAGEN, "size": 384, "code_width": 8, "codebook_size": 16384, "codebook_weight": 0.25,
                   "commitment": 1.0},
    "vqgan_fsq": {**TAMING, "levels": [8, 5, 5, 5], "code_width": 0, "symmetric": False},
    "vqgan_lfq": {**TAMING, "bits": 10, "code_width": 0, "commitment": 0.25, "entropy": 0.1, "diversity": 1.0,
                  "soft_clamp": 0.0, "spherical": False},
    "vqgan_bits": {"size": 256, "width": 128, "multipliers": [1, 2, 2, 4, 4],
                   "decoder_multipliers": [1, 1, 2, 2, 4], "depths": [4, 3, 4, 3, 4],
                   "decoder_depths": [4, 4, 3, 4, 3], "attention_sizes": [], "bits": 13, "commitment": 0.1,
                   "entropy": 0.1, "repeated": 0.25},
    "vqgan_muse": {"size": 256, "width": 128, "multipliers": [1, 2, 2, 4, 6], "depth": 2, "decoder_width": 0,
                   "decoder_multipliers": [], "decoder_depths": [], "decoder_middle": 0, "attention_sizes": [],
                   "middle_attention": False, "convolved": True, "latent_width": 64, "code_width": 64,
                   "codebook_size": 8192, "codebook_weight": 0.25, "commitment": 1.0},
    "lfq": {"size": 256, "width": 128, "multipliers": [1, 1, 2, 2, 4], "depth": 4, "bits": 18, "commitment": 0.25,
            "entropy": 0.1, "sure": 1.0, "even": 1.0, "critics": []},
    "lfq_video": {"size": 128, "width": 128, "multipliers": [1, 2, 2, 4], "depth": 4, "bits": 18,
                  "commitment": 0.25, "entropy": 0.1, "sure": 1.0, "even": 1.0, "critics": []},
    "vqgan_video": {"size": 512, "width": 256, "multipliers": [1, 2, 2, 4], "depth": 2, "attention_levels": [3],
                    "heads": 1, "code_width": 4, "codebook_size": 32768, "downsample_time": 4,
                    "codebook_weight": 1.0, "commitment": 0.25, "critics": [], "revive_after": 0},
}  # fmt: skip


def upgraded(spec):
    raw, changes = renewed({"model": {"image_tokenizer": spec}})
    assert changes
    assert renewed(raw)[1] == []
    return parts.check("image_tokenizer", raw["model"]["image_tokenizer"], "model.image_tokenizer")


@pytest.mark.parametrize("name", BEFORE)
def test_a_recipe_of_before_means_the_same_in_todays_form(name):
    """Whether its options were spelled out or not."""
    full = upgraded({"type": name, **BEFORE[name]})
    assert upgraded({"type": name}) == full
    shared = {key: value for key, value in BEFORE[name].items() if key in full and key != "attention_sizes"}
    assert {key: full[key] for key in shared} == shared
    today = {"code_width": "width"}
    codes = {today.get(key, key): value for key, value in BEFORE[name].items() if key not in full}
    codes |= {"depths": full["depth"]} if "depths" in codes else {}
    assert {**full["quantizer"], "depths": codes.get("depths")} == {
        "depths": None,
        **full["quantizer"],
        **codes,
    }
    lowest = [BEFORE[name]["size"] // 16]
    expected = lowest if name in ("vqgan_cosine", "vqgan_unit") else BEFORE[name].get("attention_sizes")
    assert full.get("attention_sizes") == expected


def test_attention_that_did_not_stand_with_a_single_block_does_not_stand_there_today():
    spec = {"type": "vqgan_muse", "size": 64, "multipliers": [1, 1, 1], "attention_sizes": [32, 16]}
    shallow = upgraded({**spec, "depth": 1, "decoder_depths": [2, 1, 2]})
    assert (shallow["attention_sizes"], shallow["decoder_attention_sizes"]) == ([], [16])
    deep = upgraded({**spec, "depth": 2})
    assert (deep["attention_sizes"], deep["decoder_attention_sizes"]) == ([32, 16], [32, 16])
