"""Every family accounts for every key of its originals' configs: read, known to be without effect, or refused."""

import copy
from pathlib import Path

import pytest
import transformers
from test_chameleon import CODES as VISUAL
from test_chameleon import vocabulary
from test_deepseek_vl import original as deepseek_vl
from test_drawing import AR, C2I, T2I
from test_gvt import config as gvt
from test_janusflow import CONFIG as JANUSFLOW
from test_janusflow import VAE
from test_lavit import LLAMA as LAVIT_LLAMA
from test_lavit import LOW, SHAPE
from test_lavit import TOKENIZER as LAVIT_TOKENIZER
from test_lvm import LLAMA, VQ
from test_perceivers import FLAMINGO, PROJECTORS
from test_psalm import CONFIG as PSALM
from test_public_folders import CLIP, TEXT, VISION, WORDS, blip2, fuyu, llava
from test_public_folders import LLAMA as WORDS_LLAMA
from test_public_folders import deepseek_vl as deepseek_vl_hf
from test_show_o import CODES, TOLD
from test_show_o import WORDS as PHI_WORDS
from test_tokenizer_configs import PUBLISHED

from chiasm.errors import CheckpointError
from chiasm.interop import find_family
from chiasm.interop.families.janus import _published as janus
from chiasm.interop.families.show_o import _published as show_o
from chiasm.interop.family import all_families

BEIT3 = {"encoder_embed_dim": 64, "encoder_attention_heads": 4, "encoder_layers": 2, "encoder_ffn_embed_dim": 48,
         "vocab_size": 40, "img_size": 28, "patch_size": 7, "max_source_positions": 32, "multiway": True,
         "subln": True, "normalize_output": True, "no_output_layer": True, "drop_path_rate": 0.1, "dropout": 0.0,
         "layernorm_embedding": False, "checkpoint_activations": False, "activation_fn": "gelu", "moe_freq": 0,
         "in_chans": 3}  # fmt: skip
SHOW_O = {**show_o(TOLD), "_class_name": "Showo", "_diffusers_version": "0.30.1", "w_clip_vit": False,
          "llm_model_path": "microsoft/phi-1_5", "codebook_size": CODES, "num_vq_tokens": 16,
          "load_from_showo": False, "mask_token_id": PHI_WORDS + 10 + CODES}  # fmt: skip
LLAMAGEN = {**C2I, "multiple_of": 256, "norm_eps": 1e-5, "rope_base": 10000, "token_dropout_p": 0.1,
            "attn_dropout_p": 0.0, "resid_dropout_p": 0.1, "ffn_dropout_p": 0.1, "drop_path_rate": 0.0,
            "initializer_range": 0.02, "class_dropout_prob": 0.1, "caption_dim": 2048, "max_batch_size": 32,
            "max_seq_len": 2048, "ffn_dim_multiplier": None, "n_kv_head": None}  # fmt: skip
VAR = {"V": 24, "Cvae": 8, "ch": 32, "patch_nums": [1, 2, 3, 4], "num_classes": 10, "depth": 2, "embed_dim": 128,
       "num_heads": 2, "shared_aln": False, "attn_l2_norm": True, "mlp_ratio": 4.0, "drop_rate": 0.0,
       "attn_drop_rate": 0.0, "drop_path_rate": 0.1, "norm_eps": 1e-6, "cond_drop_rate": 0.1, "device": "cuda",
       "share_quant_resi": 4, "flash_if_available": True, "fused_if_available": True, "init_adaln": 0.5,
       "init_adaln_gamma": 1e-5, "init_head": 0.02, "init_std": -1}  # fmt: skip
MAGVIT = {**AR, "vocab_size": 32, "cond_dim": 128, "embd_pdrop": 0.0, "resid_dropout_p": 0.1, "n_kv_head": None,
          "attn_dropout_p": 0.0, "ffn_dropout_p": 0.1, "drop_path_rate": 0.0, "n_unmasked": 0, "token_drop": 0.1,
          "token_factorization": True, "max_batch_size": 32, "max_seq_len": 2048, "cls_token_num": 1,
          "rope_base": 10000, "norm_eps": 1e-5, "ffn_dim_multiplier": None, "initalizer_range": 0.02,
          "multiple_of": 256, "factorized_k": 2}  # fmt: skip
LAVIT = {"tokenizer": LAVIT_TOKENIZER, "language": LAVIT_LLAMA, "draw_marker": "<|image|>",
         "decoders": {LOW: SHAPE}}  # fmt: skip
TOWER = {"width": 16, "layers": 2, "heads": 2, "patch_size": 7, "mlp_ratio": 2, "image_size": 28}
JANUS = janus({"siglip": TOWER, "ch_mult": [1, 1], "vq_ch": 32, "z": 8, "gen_res": 4, "codebook": 16, "code_dim": 8,
               "head_dim": 16, "llm": {**TEXT, "model_type": "llama"}})  # fmt: skip
LLAVA = {"config": {**WORDS_LLAMA, "model_type": "llava_llama", "mm_projector_type": "mlp2x_gelu",
                    "mm_vision_select_layer": -2}, "vision_config": CLIP}  # fmt: skip
MOE = {"moe_enable": True, "moe_layers_idx": [0], "num_experts": [3], "top_k_experts": 2}
MOE_LLAVA = {"llm": {**TEXT, "model_type": "moe_llava_stablelm"}, "vision": VISION, "moe": MOE,
             "projector": "mlp2x_gelu", "select_layer": -2}  # fmt: skip
XCOMPOSER2 = {"tile": 28, "patch": 7, "plora": {"r": 4, "alpha": 4},
              "vit": {"hidden_size": 64, "layers": 2, "heads": 1, "intermediate_size": 32},
              "llm": {"model_type": "internlmxcomposer2", "hidden_size": 32, "intermediate_size": 48, "bias": False,
                      "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 40,
                      "max_position_embeddings": 512, "rms_norm_eps": 1e-5}}  # fmt: skip
HONEYBEE = {"vision_config": VISION, "lm_config": WORDS_LLAMA, "projector_config": PROJECTORS["c-abs"]}


def of_transformers(model):
    return model.config.to_dict()


def chameleon():
    vq = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "latent_channels": 8}
    vq |= {"embed_dim": 4, "num_embeddings": VISUAL, "resolution": 32, "attn_type": "none"}
    words = vocabulary()
    text = {key: value for key, value in TEXT.items() if key != "vocab_size"}
    return transformers.ChameleonConfig(
        vocab_size=len(words), vocabulary_map=words, vq_config=vq, **text
    ).to_dict()


def idefics2():
    return transformers.Idefics2Config(
        vision_config=VISION,
        text_config={**TEXT, "model_type": "mistral", "num_key_value_heads": 2},
        perceiver_config={"resampler_n_latents": 3, "resampler_depth": 1, "hidden_size": 16,
                          "resampler_n_heads": 2, "resampler_head_dim": 8, "num_key_value_heads": 1},
        image_token_id=WORDS - 1,
    ).to_dict()  # fmt: skip


MODELS = {
    "beit3": lambda: BEIT3,
    "blip2-hf": lambda: of_transformers(blip2()),
    "chameleon": chameleon,
    "deepseek-vl": lambda: deepseek_vl(False),
    "deepseek-vl-hf": lambda: of_transformers(deepseek_vl_hf()),
    "flamingo": lambda: FLAMINGO,
    "fuyu": lambda: of_transformers(fuyu()),
    "gvt": gvt,
    "honeybee": lambda: HONEYBEE,
    "idefics2": idefics2,
    "janus": lambda: JANUS,
    "janusflow": lambda: {**JANUSFLOW, "vae": VAE},
    "lavit": lambda: LAVIT,
    "llamagen": lambda: LLAMAGEN,
    "llava": lambda: LLAVA,
    "llava-hf": lambda: of_transformers(llava()),
    "lvm": lambda: {**LLAMA, "vq": VQ},
    "moe-llava": lambda: MOE_LLAVA,
    "open-magvit2": lambda: MAGVIT,
    "psalm": lambda: PSALM,
    "show-o": lambda: SHOW_O,
    "var": lambda: VAR,
    "xcomposer2": lambda: XCOMPOSER2,
}
INSIDE = {  # where the parts of a model have configs of their own
    "blip2-hf": ["vision_config", "qformer_config", "text_config"],
    "chameleon": ["vq_config"],
    "deepseek-vl": ["language_config", "vision_config.params", "aligner_config.params"],
    "deepseek-vl-hf": ["vision_config", "text_config"],
    "flamingo": ["lm.cfg", "perceiver", "gated"],
    "fuyu": ["text_config"],
    "gvt": ["visual_encoder", "perceiver", "llm"],
    "honeybee": ["vision_config", "lm_config", "projector_config"],
    "idefics2": ["vision_config", "text_config", "perceiver_config"],
    "janus": [
        "vision_config.params",
        "language_config",
        "gen_vision_config.params",
        "gen_head_config.params",
    ],
    "janusflow": [
        "vision_und_enc_config.params",
        "language_config",
        "vision_gen_enc_config.params",
        "vision_gen_dec_config.params",
    ],
    "lavit": ["tokenizer", "language"],
    "llamagen": ["vq"],
    "llava": ["config", "vision_config"],
    "llava-hf": ["vision_config", "text_config"],
    "lvm": ["vq"],
    "moe-llava": ["llm", "vision", "moe"],
    "open-magvit2": ["vq", "vq.ddconfig"],
    "psalm": [
        "phi",
        "swin",
        "mask_cfg.MODEL.MASK_FORMER",
        "mask_cfg.MODEL.SEM_SEG_HEAD",
        "mask_cfg.MODEL.SWIN",
    ],
    "show-o": ["vq_model"],
    "xcomposer2": ["llm"],
}


OWN_FILES = {  # whose configs are of several files, which tests of their own lay out and change
    "diffusers": "diffusers",
    "docowl-1.5": "mplug_owl",
    "dreamllm": "dreamllm",
    "emu2": "emu2",
    "internvl": "internvl",
    "internvl-hf": "internvl",
    "llava-uhd": "llava_uhd",
    "minicpm-v": "minicpm_v",
    "monkey": "monkey",
    "mplug-owl2": "mplug_owl",
    "next-gpt": "next_gpt",
    "next-gpt-legacy": "next_gpt",
    "qwen-vl": "monkey",
    "seed-x": "seed_x",
    "textmonkey": "monkey",
    "unified-io-2": "unified_io2",
    "ureader": "mplug_owl",
    "vary": "vary",
    "vary-tiny": "vary",
}


def planned(family, config):
    return find_family(family).plan(config, [], "the checkpoint").model


def with_key(config, place, value):
    config = copy.deepcopy(config)
    *above, key = place.split(".")
    inner = config
    for name in above:
        inner = inner[name]
    inner[key] = value
    return config


def test_every_family_is_tried():
    assert MODELS.keys() | PUBLISHED.keys() | OWN_FILES.keys() == all_families().keys()
    assert all((Path(__file__).parent / f"test_{name}.py").is_file() for name in OWN_FILES.values())


@pytest.mark.parametrize("family", MODELS)
def test_all_keys_of_the_original_are_known(family):
    assert planned(family, MODELS[family]())["language"]


@pytest.mark.parametrize(
    ("family", "place"),
    [(family, "tilt") for family in MODELS]
    + [(family, f"{inside}.tilt") for family, places in INSIDE.items() for inside in places],
)
def test_a_key_that_the_original_has_not_is_refused_by_name(family, place):
    with pytest.raises(CheckpointError, match="tilt"):
        planned(family, with_key(MODELS[family](), place, 3))


@pytest.mark.parametrize(
    ("family", "place", "value"),
    [
        ("beit3", "activation_fn", "relu"),
        ("beit3", "deepnorm", True),
        ("beit3", "moe_freq", 2),
        ("beit3", "rel_pos_buckets", 32),
        ("llamagen", "model_type", "c2v"),
        ("llamagen", "cls_token_num", 2),
        ("open-magvit2", "n_kv_head", 1),
        ("open-magvit2", "token_factorization", False),
        ("open-magvit2", "factorized_k", 3),
        ("open-magvit2", "vocab_size", 64),
        ("show-o", "w_clip_vit", True),
        ("show-o", "codebook_size", 8),
        ("show-o", "mask_token_id", 3),
    ],
)
def test_what_no_part_can_do_is_refused_by_name(family, place, value):
    with pytest.raises(CheckpointError, match=place):
        planned(family, with_key(MODELS[family](), place, value))


def test_what_changes_numbers_reaches_the_parts():
    assert planned("beit3", {**BEIT3, "subln": False})["language"]["sub_norm"] is False
    assert planned("var", {**VAR, "cond_drop_rate": 0.3})["heads"]["image"]["unconditional"] == 0.3
    assert planned("var", {**VAR, "quant_resi": 0.25})["image_tokenizer"]["blend"] == 0.25
    assert (
        planned("llamagen", {**LLAMAGEN, "class_dropout_prob": 0.2})["heads"]["image"]["unconditional"] == 0.2
    )
    assert planned("llamagen", T2I)["language"]["caption_width"] == 16


def test_show_o_draws_images_of_as_many_codes_as_its_config_says():
    assert planned("show-o", SHOW_O)["image_tokenizer"]["size"] == 4
    assert planned("show-o", {**SHOW_O, "num_vq_tokens": 64})["image_tokenizer"]["size"] == 8
