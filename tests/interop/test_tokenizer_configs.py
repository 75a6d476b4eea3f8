"""Every argument of image tokenizers' public constructors is honoured, known to be without effect, or refused."""

import copy

import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.interop import all_families, find_family

TAMING = {
    "ddconfig": {"double_z": False, "z_channels": 32, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
                 "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [16], "dropout": 0.1,
                 "resamp_with_conv": True, "attn_type": "vanilla", "use_linear_attn": False, "tanh_out": False,
                 "give_pre_end": False, "use_timestep": False},
    "lossconfig": {"target": "taming.modules.losses.DummyLoss", "params": {"disc_start": 1}},
    "n_embed": 64, "embed_dim": 32, "ckpt_path": None, "ignore_keys": [], "image_key": "image",
    "colorize_nlabels": None, "monitor": "val/rec_loss", "remap": None, "sane_index_shape": True,
}  # fmt: skip
MAGVIT = {
    "ddconfig": {"double_z": False, "z_channels": 9, "resolution": 128, "in_channels": 3, "out_ch": 3, "ch": 32,
                 "ch_mult": [1, 2], "num_res_blocks": 1},
    "lossconfig": {"target": "vqperceptual", "params": {"disc_weight": 0.8}}, "n_embed": 512, "embed_dim": 9,
    "sample_minimization_weight": 1.0, "batch_maximization_weight": 0.5, "ckpt_path": None, "ignore_keys": [],
    "image_key": "image", "colorize_nlabels": None, "monitor": None, "learning_rate": 1e-4, "resume_lr": None,
    "warmup_epochs": 1.0, "scheduler_type": "None", "min_learning_rate": 0, "use_ema": True,
    "token_factorization": True, "factorized_bits": [3, 6], "stage": None, "lr_drop_epoch": [1],
    "lr_drop_rate": 0.1,
}  # fmt: skip
VIDEO = {
    **{k: v for k, v in MAGVIT.items() if k not in ("token_factorization", "factorized_bits", "use_ema")},
    "class_path": "src.Open_MAGVIT2.models.video_lfqgan.VQModel", "image_key": "video", "use_shared_epoch": False,
    "image_pretrain_path": None, "wp": 0, "wp0": 0.005, "wpe": 0.01, "max_iter": None, "sche_type": "cos",
    "wp_iter": None,
}  # fmt: skip
BOOKKEEPING = {"architectures": ["X"], "transformers_version": "5.0", "dtype": "float32", "_name_or_path": ""}
EMU3 = {**BOOKKEEPING, "model_type": "Emu3VisionVQ", "codebook_size": 64, "embed_dim": 4, "z_channels": 4,
        "double_z": False, "in_channels": 3, "out_channels": 3, "temporal_downsample_factor": 4, "ch": 32,
        "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [1], "dropout": 0.0}  # fmt: skip
EMU3_HF = {**BOOKKEEPING, "model_type": "emu3_vqgan", "codebook_size": 64, "embed_dim": 4, "latent_channels": 4,
           "double_latent": False, "in_channels": 3, "out_channels": 3, "temporal_downsample_factor": 4,
           "base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1, "attn_resolutions": [1],
           "hidden_size": 64, "num_attention_heads": 2, "attention_dropout": 0.0}  # fmt: skip
JANUS = {**BOOKKEEPING, "model_type": "janus_vqgan", "embed_dim": 8, "num_embeddings": 64, "double_latent": False,
         "latent_channels": 32, "in_channels": 3, "base_channels": 32, "channel_multiplier": [1, 2],
         "num_res_blocks": 1, "dropout": 0.0, "initializer_range": 0.02, "num_patches": 8, "out_channels": 3,
         "projection_dim": 32, "num_hidden_layers": 2, "hidden_act": "gelu",
         "image_token_embed_dim": 32}  # fmt: skip
LLAMAGEN = {"codebook_size": 64, "codebook_embed_dim": 8, "codebook_l2_norm": True, "codebook_show_usage": True,
            "commit_loss_beta": 0.25, "entropy_loss_ratio": 0.1, "encoder_ch_mult": [1, 2],
            "decoder_ch_mult": [1, 1], "z_channels": 32, "dropout_p": 0.1}  # fmt: skip
VAR = {"vocab_size": 64, "z_channels": 8, "ch": 32, "dropout": 0.0, "beta": 0.25, "using_znorm": False,
       "quant_conv_ks": 3, "quant_resi": 0.5, "share_quant_resi": 4, "default_qresi_counts": 0,
       "v_patch_nums": [1, 2, 3, 4], "test_mode": True}  # fmt: skip
SHOW_O = {"_class_name": "MAGVITv2", "ch": 32, "ch_mult": [1, 2], "dec_mult": [1, 2], "enc_blocks": [1, 1],
          "dec_blocks": [1, 1], "z": 9, "resolution": 32, "attn_resolutions": [5], "dropout": 0.0, "in_ch": 3,
          "out_ch": 3, "double_z": False, "beta": 0.25, "entropy_multiplier": 0.1,
          "commit_loss_multiplier": 0.1}  # fmt: skip
VQVAE2 = {"in_channel": 3, "channel": 32, "n_res_block": 1, "n_res_channel": 8, "embed_dim": 16, "n_embed": 48,
          "decay": 0.5}  # fmt: skip
MUSE = {"_class_name": "VQGANModel", "resolution": 32, "num_channels": 3, "hidden_channels": 32,
        "channel_mult": [1, 2], "num_res_blocks": 2, "decoder_res_blocks": None, "extra_mid_res_blocks": None,
        "decoder_hidden_channels": None, "decoder_channel_mult": None, "attn_resolutions": [16],
        "no_attn_mid_block": False, "z_channels": 32, "num_embeddings": 64, "quantized_embed_dim": 32,
        "dropout": 0.0, "resample_with_conv": True, "commitment_cost": 0.25}  # fmt: skip
PUBLISHED = {
    "vqgan": TAMING,
    "open-magvit2-vq": MAGVIT,
    "emu3-vq": EMU3,
    "emu3-vq-hf": EMU3_HF,
    "janus-vq-hf": JANUS,
    "llamagen-vq": LLAMAGEN,
    "var-vq": VAR,
    "show-o-vq": SHOW_O,
    "vqvae2": VQVAE2,
    "vqgan-muse": MUSE,
}


def part(family, config, keys=()):
    return find_family(family).plan(config, keys, "the checkpoint").model["image_tokenizer"]


def changed(config, place, value):
    config = copy.deepcopy(config)
    *above, key = place.split(".")
    inner = config
    for name in above:
        inner = inner[name]
    inner[key] = value
    return config


def test_every_family_of_image_tokenizers_accounts_for_its_keys():
    slots = {"vqgan", "vqvae2", "vqgan-muse"} | {name for name in all_families() if "-vq" in name}
    assert slots == PUBLISHED.keys()


@pytest.mark.parametrize("family", PUBLISHED)
def test_all_arguments_of_the_public_constructor_are_known(family):
    assert part(family, PUBLISHED[family])["type"]


def test_all_arguments_of_the_video_tokenizer_are_known():
    assert part("open-magvit2-vq", VIDEO)["type"] == "open_magvit2_video"


@pytest.mark.parametrize(
    ("family", "place"),
    [(name, "tilt") for name in PUBLISHED]
    + [(name, "ddconfig.tilt") for name in ("vqgan", "open-magvit2-vq")],
)
def test_a_key_that_the_original_has_not_is_refused_by_name(family, place):
    with pytest.raises(CheckpointError, match=rf"{family}.*{place.replace('.', '[.]')} = 3"):
        part(family, changed(PUBLISHED[family], place, 3))


HONOURED = [
    ("vqgan", "ddconfig.resamp_with_conv", False, {"convolved": False}),
    ("vqgan", "ddconfig.attn_type", "none", {"middle_attention": False, "attention_sizes": []}),
    ("vqgan", "beta", 0.5, {"quantizer.codebook_weight": 0.5, "quantizer.commitment": 1.0}),
    ("vqgan", "legacy", False, {"quantizer.codebook_weight": 1.0, "quantizer.commitment": 0.25}),
    ("vqgan", "kl_weight", 0.01, {"quantizer.type": "gumbel", "quantizer.kl": 0.01}),
    ("open-magvit2-vq", "sample_minimization_weight", 0.3, {"quantizer.sure": 0.3, "quantizer.even": 0.5}),
    ("open-magvit2-vq", "ddconfig.double_z", True, {"quantizer.bits": 9}),
    ("open-magvit2-vq", "embed_dim", 18, {"quantizer.bits": 9}),
    ("emu3-vq-hf", "num_attention_heads", 4, {"heads": 4}),
    ("emu3-vq-hf", "attn_resolutions", None, {"attention_levels": []}),
    ("llamagen-vq", "codebook_l2_norm", False, {"quantizer.type": "nearest", "quantizer.entropy": 0.1,
                                                "decoder_multipliers": [1, 1], "quantizer.codebook_weight": 1.0,
                                                "quantizer.commitment": 0.25}),
    ("llamagen-vq", "entropy_loss_ratio", 0.3, {"quantizer.type": "cosine", "quantizer.entropy": 0.3}),
    ("var-vq", "share_quant_resi", 0, {"convolutions": 4}),
    ("var-vq", "quant_resi", -0.3, {"blend": 0.3}),
    ("var-vq", "using_znorm", True, {"cosine": True}),
    ("show-o-vq", "beta", 0.5, {"quantizer.repeated": 0.5}),
    ("show-o-vq", "entropy_multiplier", 0.2, {"quantizer.entropy": 0.2}),
    ("show-o-vq", "commit_loss_multiplier", 0.2, {"quantizer.commitment": 0.2}),
    ("vqvae2", "decay", 0.3, {"decay": 0.99}),
    ("vqgan-muse", "resample_with_conv", False, {"convolved": False}),
    ("vqgan-muse", "decoder_res_blocks", [1, 3], {"decoder_depths": [2, 4]}),
    ("vqgan-muse", "decoder_res_blocks", 3, {"decoder_depths": [4, 4]}),
    ("vqgan-muse", "decoder_channel_mult", [1, 3], {"decoder_multipliers": [1, 3]}),
    ("vqgan-muse", "decoder_hidden_channels", 64, {"decoder_width": 64}),
    ("vqgan-muse", "extra_mid_res_blocks", 2, {"decoder_middle": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "place", "value", "expected"), HONOURED)
def test_what_changes_numbers_reaches_the_part(family, place, value, expected):
    spec = part(family, changed(PUBLISHED[family], place, value))
    spec |= {f"quantizer.{key}": option for key, option in spec.get("quantizer", {}).items()}
    assert {key: spec[key] for key in expected} == expected


def test_smoothing_convolutions_of_var_that_are_not_shared_may_have_a_number_of_their_own():
    config = {**VAR, "share_quant_resi": 0, "default_qresi_counts": 3}
    plan = find_family("var-vq").plan(config, (), "the checkpoint")
    assert plan.model["image_tokenizer"]["convolutions"] == 3
    tensors = {"quantize.quant_resi.2.weight": torch.ones(1)}
    assert plan.names.to_ours(tensors, "")[0].keys() == {"image_tokenizer.quantize.smooth.2.weight"}


REFUSED = [
    ("vqgan", "ddconfig.double_z", True),
    ("vqgan", "ddconfig.out_ch", 1),
    ("vqgan", "ddconfig.tanh_out", True),
    ("vqgan", "ddconfig.use_linear_attn", True),
    ("vqgan", "ddconfig.attn_type", "linear"),
    ("vqgan", "remap", "used.npy"),
    ("open-magvit2-vq", "n_embed", 256),
    ("open-magvit2-vq", "ddconfig.in_channels", 1),
    ("emu3-vq", "double_z", True),
    ("emu3-vq", "z_channels", 8),
    ("emu3-vq-hf", "hidden_size", 96),
    ("janus-vq-hf", "double_latent", True),
    ("show-o-vq", "double_z", True),
    ("vqvae2", "in_channel", 1),
    ("vqgan-muse", "num_channels", 4),
]


@pytest.mark.parametrize(("family", "place", "value"), REFUSED)
def test_what_no_part_can_do_is_refused_with_what_would_be_right(family, place, value):
    with pytest.raises(
        CheckpointError, match=rf"{place.replace('.', '[.]')} is {value!r}, but is known as .* only"
    ):
        part(family, changed(PUBLISHED[family], place, value))


def weights(config, *, averaged):
    """Names of the original's tensors, and which of two of a kind the family takes."""
    keys = ["encoder.conv_in.conv_1.weight", "decoder.conv_out.conv_1.bias"]
    if averaged:
        keys += ["model_ema." + key.replace(".", "") for key in keys] + [
            "model_ema.decay",
            "model_ema.num_updates",
        ]
    plan = find_family("open-magvit2-vq").plan(config, keys, "the checkpoint")
    ours, unused = plan.names.to_ours({key: torch.ones(1) for key in keys}, "")
    return {"raw" if "encoder.conv_in.conv_1.weight" not in unused else "averaged"}, plan.remark, ours


@pytest.mark.parametrize(
    ("config", "averaged", "expected"),
    [
        (VIDEO, True, "averaged"),  # the default of the video tokenizer
        ({**VIDEO, "use_ema": False}, True, "raw"),
        (VIDEO, False, "raw"),  # there is no other
        ({**MAGVIT, "use_ema": True}, True, "averaged"),
        ({key: value for key, value in MAGVIT.items() if key != "use_ema"}, True, "raw"),
    ],
)
def test_moving_averages_are_taken_where_the_original_keeps_them_and_it_is_said(config, averaged, expected):
    taken, remark, ours = weights(config, averaged=averaged)
    assert taken == {expected}
    assert ("moving average" in remark) == (expected == "averaged")
    assert ours.keys() == {"image_tokenizer.encoder.conv_in.weight", "image_tokenizer.decoder.conv_out.bias"}
