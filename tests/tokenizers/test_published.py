"""Image tokenizers are by default what their projects published."""

import inspect

import pytest

from chiasm import parts

# What the parts are by default, each with where that is published; critics and revival are extras of ours.
PUBLISHED = {
    # taming-transformers, vqgan_gumbel_f8, with the divergence's weight of its class
    "vqgan_gumbel": {"size": 256, "width": 128, "multipliers": [1, 1, 2, 4], "depth": 2, "attention_sizes": [32],
                     "latent_width": 256, "codebook_size": 8192, "convolved": True, "temperature": 1.0, "kl": 5e-4},
    # LlamaGen, VQ-16
    "vqgan_cosine": {"size": 256, "width": 128, "multipliers": [1, 1, 2, 2, 4], "decoder_multipliers": [],
                     "depth": 2, "latent_width": 256, "code_width": 8, "codebook_size": 16384, "commitment": 0.25,
                     "entropy": 0.0},
    # Janus-Pro in transformers
    "vqgan_unit": {"size": 384, "width": 128, "multipliers": [1, 1, 2, 2, 4], "depth": 2, "latent_width": 256,
                   "code_width": 8, "codebook_size": 16384, "codebook_weight": 0.25, "commitment": 1.0},
    # FSQ's paper: the levels for 2^10 codes; the network is taming's
    "vqgan_fsq": {"size": 256, "width": 128, "multipliers": [1, 1, 2, 2, 4], "depth": 2, "attention_sizes": [16],
                  "latent_width": 256, "levels": [8, 5, 5, 5], "code_width": 0, "symmetric": False},
    # vector-quantize-pytorch's weights; the network is taming's
    "vqgan_lfq": {"size": 256, "width": 128, "multipliers": [1, 1, 2, 2, 4], "depth": 2, "attention_sizes": [16],
                  "latent_width": 256, "bits": 10, "code_width": 0, "commitment": 0.25, "entropy": 0.1,
                  "diversity": 1.0, "soft_clamp": 0.0, "spherical": False},
    # Show-o, magvitv2
    "vqgan_bits": {"size": 256, "width": 128, "multipliers": [1, 2, 2, 4, 4],
                   "decoder_multipliers": [1, 1, 2, 2, 4], "depths": [4, 3, 4, 3, 4],
                   "decoder_depths": [4, 4, 3, 4, 3], "attention_sizes": [], "bits": 13, "commitment": 0.1,
                   "entropy": 0.1, "repeated": 0.25},
    # open-muse, as LVM's vqvae has it
    "vqgan_muse": {"size": 256, "width": 128, "multipliers": [1, 2, 2, 4, 6], "depth": 2, "decoder_width": 0,
                   "decoder_multipliers": [], "decoder_depths": [], "decoder_middle": 0, "attention_sizes": [],
                   "middle_attention": False, "convolved": True, "latent_width": 64, "code_width": 64,
                   "codebook_size": 8192, "codebook_weight": 0.25, "commitment": 1.0},
    # Open-MAGVIT2, imagenet_lfqgan_256_L, with the entropy's weights of its paper
    "lfq": {"size": 256, "width": 128, "multipliers": [1, 1, 2, 2, 4], "depth": 4, "bits": 18, "commitment": 0.25,
            "entropy": 0.1, "sure": 1.0, "even": 1.0},
    # Open-MAGVIT2, ucf101_lfqgan_128_L
    "lfq_video": {"size": 128, "width": 128, "multipliers": [1, 2, 2, 4], "depth": 4, "bits": 18,
                  "commitment": 0.25, "entropy": 0.1, "sure": 1.0, "even": 1.0},
    # Emu3-VisionTokenizer
    "vqgan_video": {"size": 512, "width": 256, "multipliers": [1, 2, 2, 4], "depth": 2, "attention_levels": [3],
                    "heads": 1, "code_width": 4, "codebook_size": 32768, "downsample_time": 4,
                    "codebook_weight": 1.0, "commitment": 0.25},
    # LaVIT's tokenizer over EVA-CLIP's features; positions, painter and what keeps codes alive are ours
    "lavit": {"size": 224, "codebook_size": 16384, "code_width": 32, "depth": 12, "heads": 16, "hidden": 6144,
              "most": None, "keep": 1 / 3, "decoder_depth": 12, "decoder_width": None, "positions": False,
              "painter": None, "foreground": 1.0, "commitment": 0.25, "decay": 0.99, "settle": 0,
              "revive_after": 20},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_by_default_a_part_is_what_was_published(name):
    options = inspect.signature(parts.lookup("image_tokenizer", name)).parameters
    defaults = {each.name: each.default for each in options.values() if each.kind is each.KEYWORD_ONLY}
    assert defaults.pop("critics", []) == []
    assert name == "lavit" or defaults.pop("revive_after", 0) == 0
    defaults.pop("encoder", None)  # has no default
    assert defaults == PUBLISHED[name]
