"""Configs as published checkpoints have them, of small sizes: every key is known, and what they say is done."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, DeformableDetrConfig, LlamaConfig

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, find_family

CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": 28, "patch_size": 7}  # fmt: skip
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 4, "vocab_size": 60, "max_position_embeddings": 128}  # fmt: skip
MEAN, DEVIATION = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

LLAVA_NEXT = {
    "architectures": ["LlavaNextForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
    "image_grid_pinpoints": [[28, 56], [56, 28]], "model_type": "llava_next", "projector_hidden_act": "gelu",
    "text_config": {"_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2", "architectures": ["MistralForCausalLM"],
                    "model_type": "mistral", "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None,
                    "torch_dtype": "bfloat16", **SIZES},
    "torch_dtype": "float16", "transformers_version": "4.39.0.dev0", "use_image_newline_parameter": True,
    "vision_config": {**CLIP, "model_type": "clip_vision_model", "projection_dim": 768, "vocab_size": 32000},
    "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064,
}  # fmt: skip
LLAVA = {
    **SIZES, "architectures": ["LlavaLlamaForCausalLM"], "freeze_mm_mlp_adapter": False,
    "freeze_mm_vision_resampler": False, "hidden_act": "silu", "image_aspect_ratio": "pad",
    "initializer_range": 0.02, "max_length": 4096, "mm_hidden_size": 32, "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None, "mm_use_im_patch_token": False, "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "mm_vision_tower": "tower",
    "model_type": "llava_llama", "pad_token_id": 0, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "float16", "tune_mm_mlp_adapter": False,
    "tune_mm_vision_resampler": False, "unfreeze_mm_vision_tower": False, "use_cache": True, "use_mm_proj": True,
}  # fmt: skip
LLAVA_16 = {
    **LLAVA, "image_aspect_ratio": "anyres", "image_crop_resolution": 224, "image_split_resolution": 224,
    "image_grid_pinpoints": [[28, 56], [56, 28]], "mm_patch_merge_type": "spatial_unpad", "mm_projector_lr": None,
    "mm_vision_tower_lr": 2e-06, "tokenizer_model_max_length": 4096, "tokenizer_padding_side": "right",
    "attention_bias": False, "attention_dropout": 0.0, "rope_theta": 10000.0,
}  # fmt: skip
MOE = {
    **SIZES, "architectures": ["MoELLaVAStablelmForCausalLM"], "freeze_mm_mlp_adapter": False,
    "hidden_act": "silu", "image_aspect_ratio": "pad", "image_projector_type": "mlp2x_gelu", "mm_hidden_size": 32,
    "mm_image_tower": "tower", "mm_projector_lr": None, "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False, "mm_video_tower": None, "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2, "model_type": "moe_llava_stablelm", "norm_eps": 1e-05, "rope_pct": 0.25,
    "rope_theta": 10000, "rotary_scaling_factor": 1.0, "tie_word_embeddings": False, "use_qkv_bias": True,
    "tokenizer_model_max_length": 2048, "tokenizer_padding_side": "right", "tune_mm_mlp_adapter": False,
    "use_mm_proj": True, "video_global_proj": False, "video_projector_type": "linear", "video_spatial_proj": False,
    "video_temproal_proj": False,
    "moe": {"capacity_factor": 1.5, "ep_size": 1, "eval_capacity_factor": 2.0, "min_capacity": 0,
            "moe_enable": True, "moe_layers_idx": [0], "moe_mode": "sparse", "num_experts": [4],
            "router_aux_loss_coef": 0.01, "top_k_experts": 2, "train_modules": ["mlp.gate_proj", "wg"],
            "use_residual": False},
}  # fmt: skip
OF_WIDTHS = {
    "encoder_hidden_size": 32,
    "output_hidden_size": 32,
    "num_eos_tokens": 0,
    "feature_layer_index": -2,
}
PROJECTORS = {
    "c-abs": {"depth": 3, "mlp_depth": 2, "hidden_size": 12, "num_query_tokens": 9, "pos_emb": True,
              "prenorm": False},
    "d-abs": {**DeformableDetrConfig(d_model=20, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=12,
                                     num_feature_levels=1, num_queries=9).to_dict(),
              "disable_custom_kernels": False, "initializer_range": 0.02, "learnable_mRP": True,
              "manual_init_refPoints": True, "num_query_tokens": 9, "pooled_v_target": "query", "pos_emb": True,
              "use_pretrained_backbone": False},
    "resampler": {"attention_probs_dropout_prob": 0.1, "hidden_size": 12, "initializer_range": 0.02,
                  "intermediate_size": 20, "layer_norm_eps": 1e-06, "num_attention_heads": 3,
                  "num_hidden_layers": 2, "num_query_tokens": 9, "pos_emb": False, "prenorm": False},
}  # fmt: skip


def honeybee(projector):
    named = {"pretrained_lm_name_or_path": "lmsys/vicuna-7b-v1.5"}
    seen = {"encoder_type": "openai.clip", "pretrained_vision_name_or_path": "openai/clip-vit-large-patch14"}
    return {
        "architectures": ["HoneybeeForConditionalGeneration"],
        "is_composition": True,
        "lm_config": {**named, "pretrained_tokenizer_name_or_path": "lmsys/vicuna-7b-v1.5"},
        "projector_config": {"projector_type": projector, **PROJECTORS[projector], **OF_WIDTHS},
        "text_config": LlamaConfig(**SIZES).to_dict(),
        "vision_config": {
            **CLIPVisionConfig(**CLIP).to_dict(),
            **seen,
            "image_mean": MEAN,
            "image_std": DEVIATION,
        },
    }


# All fields of torchscale's EncoderConfig that BEiT-3's code may write down.
BEIT3 = {
    "encoder_embed_dim": 32, "encoder_attention_heads": 2, "encoder_layers": 2, "encoder_ffn_embed_dim": 64,
    "vocab_size": 60, "img_size": 32, "patch_size": 16, "in_chans": 3, "max_source_positions": 64, "multiway": True,
    "encoder_normalize_before": True, "normalize_output": True, "activation_fn": "gelu", "dropout": 0.0,
    "drop_path_rate": 0.1, "attention_dropout": 0.0, "activation_dropout": 0.0, "no_scale_embedding": True,
    "layernorm_embedding": False, "moe_freq": 0, "moe_top1_expert": False, "moe_expert_count": 0,
    "moe_gating_use_fp32": True, "moe_eval_capacity_token_fraction": 0.25, "moe_second_expert_policy": "random",
    "moe_normalize_gate_prob_before_dropping": False, "use_xmoe": False, "rel_pos_buckets": 0, "max_rel_pos": 0,
    "deepnorm": False, "subln": True, "bert_init": False, "share_encoder_input_output_embed": False,
    "no_output_layer": True, "layernorm_eps": 1e-05, "checkpoint_activations": False, "fsdp": False, "ddp_rank": 0,
    "xpos_rel_pos": False, "xpos_scale_base": 512, "flash_attention": False,
}  # fmt: skip
BLIP2 = {
    "architectures": ["Blip2ForConditionalGeneration"], "initializer_factor": 1.0, "initializer_range": 0.02,
    "is_encoder_decoder": False, "model_type": "blip-2", "num_query_tokens": 3, "tie_word_embeddings": False,
    "transformers_version": None, "use_decoder_only_language_model": True,
    "qformer_config": {
        "add_cross_attention": False, "architectures": None, "attention_probs_dropout_prob": 0.1,
        "classifier_dropout": None, "cross_attention_frequency": 2, "encoder_hidden_size": 32, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 24, "intermediate_size": 48, "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512, "model_type": "blip_2_qformer", "num_attention_heads": 2,
        "num_hidden_layers": 2, "position_embedding_type": "absolute", "pruned_heads": {}, "vocab_size": 30522},
    "text_config": {
        "_remove_final_layer_norm": False, "activation_dropout": 0.0, "activation_function": "relu",
        "do_layer_norm_before": True, "dropout": 0.1, "enable_bias": True, "ffn_dim": 64, "hidden_size": 32,
        "layer_norm_elementwise_affine": True, "layerdrop": 0.0, "max_position_embeddings": 2048,
        "model_type": "opt", "num_attention_heads": 4, "num_hidden_layers": 2, "prefix": "</s>", "vocab_size": 60,
        "word_embed_proj_dim": 32},
    "vision_config": {
        **CLIP, "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "gelu", "initializer_factor": 1.0,
        "initializer_range": 1e-10, "layer_norm_eps": 1e-05, "model_type": "blip_2_vision_model",
        "num_channels": 3, "projection_dim": 512, "qkv_bias": True},
}  # fmt: skip
CONFIGS = {
    "blip2-opt-2.7b": ("blip2-hf", BLIP2),
    "beit3": ("beit3", BEIT3),
    "llava-v1.6-mistral-7b-hf": ("llava-hf", LLAVA_NEXT),
    "llava-v1.5-7b": ("llava", {"config": LLAVA, "vision_config": CLIP}),
    "llava-v1.6-vicuna-7b": ("llava", {"config": LLAVA_16, "vision_config": CLIP}),
    "MoE-LLaVA-StableLM": ("moe-llava", {"llm": MOE, "vision": CLIP, "moe": MOE["moe"], "projector": "mlp2x_gelu",
                                         "select_layer": -2}),
    **{f"honeybee {projector}": ("honeybee", honeybee(projector)) for projector in PROJECTORS},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_all_keys_of_a_published_config_are_known(name):
    family, config = CONFIGS[name]
    assert find_family(family).plan(config, [], name).model["language"]


@pytest.mark.parametrize(("name", "place", "value"), [
    ("llava-v1.6-mistral-7b-hf", "use_image_newline_parameter", False),
    ("honeybee c-abs", "vision_config.encoder_type", "eva"),
    ("MoE-LLaVA-StableLM", "llm.rotary_scaling_factor", 2.0),
    ("beit3", "use_xmoe", True),
    ("llava-v1.5-7b", "config.mm_patch_merge_type", "maxpool2x2"),
])  # fmt: skip
def test_another_value_of_them_is_refused_by_name(name, place, value):
    family, config = CONFIGS[name]
    config = json.loads(json.dumps(config))
    *above, key = place.split(".")
    inner = config
    for part in above:
        inner = inner[part]
    inner[key] = value
    with pytest.raises(CheckpointError, match=key):
        find_family(family).plan(config, [], name)


@pytest.mark.parametrize(("aspect", "fit"), [("pad", "pad"), ("square", "crop"), (None, "crop")])
@pytest.mark.parametrize("merge", ["flat", "spatial_unpad"])
def test_an_image_becomes_square_as_its_aspect_ratio_says_with_a_newline_and_without(aspect, fit, merge):
    told = {**LLAVA, "image_aspect_ratio": aspect, "mm_patch_merge_type": merge}
    views = find_family("llava").model({"config": told, "vision_config": CLIP})["views"]
    assert views["fit"] == fit
    assert views["type"] == ("any_resolution" if merge == "spatial_unpad" else "whole")


def with_tower(path, config, tensor):
    """A folder whose vision tower, inside it, has a preprocessor of its own."""
    (path / "tower").mkdir()
    (path / "tower" / "config.json").write_text(json.dumps(CLIP))
    prepared = {"image_mean": [0.25, 0.5, 0.75], "image_std": [0.1, 0.2, 0.3]}
    (path / "tower" / "preprocessor_config.json").write_text(json.dumps(prepared))
    (path / "config.json").write_text(json.dumps(config))
    save_file({tensor: torch.zeros(1)}, path / "model.safetensors")
    return Folder(path)


@pytest.mark.parametrize(("family", "config", "prefix"), [
    ("llava", LLAVA, "model.vision_tower.vision_tower."),
    ("moe-llava", MOE, "model.image_tower.image_tower.vision_model."),
])  # fmt: skip
def test_the_towers_own_preprocessor_says_how_images_are_normalised_and_padded(
    family, config, prefix, tmp_path
):
    folder, layout = with_tower(tmp_path, config, f"{prefix}x"), find_family(family)
    values = layout.constants(folder)
    torch.testing.assert_close(values["encoder.mean"].flatten(), torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(values["encoder.deviation"].flatten(), torch.tensor([0.1, 0.2, 0.3]))
    views = layout.model(layout.read(folder).config)["views"]
    assert views["padding"] == (63, 127, 191)
