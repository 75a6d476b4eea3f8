"""Configurations of transformers' folders: what public ones hold passes, and any other key is an error."""

import json

import pytest

from chiasm.errors import CheckpointError, RecipeError
from chiasm.storage.transformers_config import as_options, build_config, read_config

# Of config.json in public folders, the keys that their types in transformers do not have, or once had.
PUBLIC = {
    "gpt2": ("gpt2", {"n_ctx": 1024, "summary_activation": None, "summary_use_proj": True, "_num_labels": 1}),
    "opt-125m": ("opt", {"activation_dropout": 0.0, "_remove_final_layer_norm": False, "prefix": "</s>"}),
    "gpt-j-6b": ("gptj", {"rotary": True, "scale_attn_weights": True, "summary_type": "cls_index"}),
    "vicuna-7b-v1.5": ("llama", {"max_sequence_length": 2048, "pretraining_tp": 1, "max_length": 4096}),
    "SmolLM2-135M": ("llama", {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {}}),
    "Qwen2.5-0.5B": ("qwen2", {"use_mrope": False, "max_window_layers": 21, "sliding_window": 32768}),
    "Phi-3-mini-4k": ("phi3", {"attention_bias": False, "original_max_position_embeddings": 4096}),
    "gemma-2-2b": ("gemma2", {"cache_implementation": "hybrid", "hidden_act": "gelu_pytorch_tanh",
                              "hidden_activation": "gelu_pytorch_tanh", "sliding_window_size": 4096}),
    "gemma-3-1b": ("gemma3_text", {"cache_implementation": "hybrid", "sliding_window_pattern": 6}),
    "starcoder2-3b": ("starcoder2", {"activation_function": "gelu", "hidden_act": "gelu_pytorch_tanh",
                                     "mlp_type": "default", "norm_type": "layer_norm"}),
    "mpt-7b": ("mpt", {"init_config": {"name": "kaiming_normal_"}, "verbose": 0, "tokenizer_name": "gpt-neox"}),
    "clip-vit-large": ("clip_vision_model", {"dropout": 0.0, "initializer_factor": 1.0, "projection_dim": 768}),
    "swin-tiny": ("swin", {"path_norm": True, "num_layers": 4}),
    "segformer-b0": ("segformer", {"downsampling_rates": [1, 4, 8, 16], "num_image_channels": 3}),
    "pvt_v2_b0": ("pvt_v2", {"num_stages": 4, "linear_attention": False}),
    "bit-50": ("bit", {"conv_layer": "std_conv"}),
    "from a GGUF file": ("llama", {"_model_name_or_path": "Smollm2 135M 8k Lc100K Mix1 Ep2"}),
    "quantized": ("llama", {"quantization_config": {"quant_method": "fp8"}}),
}  # fmt: skip


def folder(path, config):
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", PUBLIC)
def test_keys_of_public_folders_that_change_nothing_are_known(name, tmp_path):
    kind, keys = PUBLIC[name]
    built = read_config(folder(tmp_path, {"model_type": kind, **keys}), "here")
    assert built.model_type == kind


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("llama", "rope_interleaved", True),
        ("phi3", "attention_bias", True),
        ("gptj", "rotary", False),
        ("starcoder2", "norm_type", "rms_norm"),
        ("gemma2", "hidden_act", "relu"),  # without the key that its class reads
        ("llama", "attention_scale", 0.5),
        ("vit", "use_rotary", True),
    ],
)
def test_a_key_that_might_change_something_is_an_error_that_names_it(kind, key, value, tmp_path):
    with pytest.raises(
        CheckpointError, match=f"here: its config.json has '{key}', a key that transformers' {kind}"
    ):
        read_config(folder(tmp_path, {"model_type": kind, key: value}), "here")


def test_a_key_that_the_models_code_reads_is_known_though_its_configuration_does_not_declare_it(tmp_path):
    """As in Qwen3-30B-A3B, whose heads are wider than the hidden size divided by their count."""
    built = read_config(folder(tmp_path, {"model_type": "qwen3_moe", "head_dim": 128}), "here")
    assert as_options(built)["head_dim"] == 128
    with pytest.raises(CheckpointError, match="'head_dim'"):  # whose code does not read it
        read_config(folder(tmp_path, {"model_type": "gpt2", "head_dim": 128}), "here")


def test_a_key_that_holds_null_says_nothing(tmp_path):
    read_config(folder(tmp_path, {"model_type": "llama", "attention_scale": None}), "here")


@pytest.mark.parametrize("content", ["", "[1]", "{", "3", '{"model_type": 3}', "[" * 100_000])
def test_a_file_that_is_no_config_is_a_sentence(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"^here: "):
        read_config(tmp_path, "here")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model_type": "llama", "num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; at most 1,000"),
        ({"model_type": "gpt2", "n_layer": 1_001}, "n_layer is 1001; at most 1,000 layers"),
        ({"model_type": "swin", "depths": [2, 10**8]}, r"depths is \[2, 100000000\]; at most 1,000 layers"),
        ({"model_type": "llava", "text_config": {"model_type": "llama", "num_hidden_layers": 5_000}},
         r"text_config\.num_hidden_layers is 5000; at most 1,000 layers"),
        ({"model_type": "stablelm", "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 7}},
         r"rope_parameters\.partial_rotary_factor is 7; it is a share of each head, from 0 to 1"),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": -1}},
         r"rope_parameters\.rope_theta is -1; it must be positive"),
    ],
)  # fmt: skip
def test_values_of_which_no_model_could_be_built_are_refused_before_anything_is(options, sentence, tmp_path):
    with pytest.raises(RecipeError, match=f"model.language.config: {sentence}"):
        build_config(options, "model.language.config")
    with pytest.raises(CheckpointError, match=f"here: {sentence}"):
        read_config(folder(tmp_path, options), "here")
