"""Configurations of transformers from plain data, in which a key that no model reads is an error.

transformers itself takes any key, and a typo (`hiden_size`) then leaves the default in force without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from inspect import getfile
from pathlib import Path
from typing import Any

from chiasm.errors import CheckpointError, RecipeError, nearest, reason

# Keys that transformers, or a trainer, once wrote into every config and that no model of ours is changed by.
BOOKKEEPING = frozenset({
    "_attn_implementation", "_commit_hash", "_name_or_path", "add_cross_attention", "architectures",
    "attn_implementation", "auto_map", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "cls_token_id", "cross_attention_hidden_size", "decoder_start_token_id",
    "diversity_penalty", "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size",
    "eos_token_id", "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id",
    "forced_eos_token_id", "gradient_checkpointing", "id2label", "is_decoder", "is_encoder_decoder",
    "label2id", "length_penalty", "mask_token_id", "max_length", "min_length", "model_name", "model_type",
    "name_or_path", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores", "pad_token_id",
    "prefix", "problem_type", "pruned_heads", "quantization_config_loader", "remove_invalid_values",
    "repetition_penalty", "return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tie_word_embeddings",
    "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p",
    "unk_token_id", "unsloth_fixed", "unsloth_version", "use_bfloat16",
})  # fmt: skip
# Of these, what belongs to a machine or a run and is not written down.
RUN = {"transformers_version", "_name_or_path", "architectures", "dtype", "_attn_implementation"}
# Keys of public folders that their types no longer have, or that are a trainer's or another program's; none reaches
# the numbers.
FORMER = frozenset({
    "_attn_implementation_autoset", "_flash_attn_2_enabled", "_model_name_or_path", "_num_labels",
    "_remove_final_layer_norm",
    "activation_dropout", "attn_impl", "cache_implementation", "conv_layer", "downsampling_rates", "dropout",
    "init_config", "init_device", "initializer_factor", "is_llama_config", "label_smoothing", "learned_pos_emb",
    "max_sequence_length", "model_max_length", "n_ctx", "n_special", "neftune_noise_alpha", "norm_eps", "num_heads",
    "num_image_channels", "num_stages", "path_norm", "predict_special_tokens", "pretraining_tp", "projection_dim",
    "seq_length", "sliding_window_pattern", "sliding_window_size", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj", "tokenizer_model_max_length", "tokenizer_name",
    "transformers.js_config", "use_flash_attention", "use_flash_attention_2", "use_flash_attn", "verbose",
})  # fmt: skip
# The same for one value of a key, which is what transformers' class does.
FORMER_VALUES: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "layer_norm_type": ("", "layer_norm"),
    "mlp_type": ("default",),
    "norm_type": ("layer_norm",),
    "num_channels": (3,),
    "rope_interleaved": (False,),
    "rotary": (True,),
    "scale_attn_weights": (True,),
    "use_mrope": (False,),
}
# Where another key says it too: what Gemma's class reads is `hidden_activation`, Starcoder2's `hidden_act`.
SUPERSEDED = {
    "hidden_act": "hidden_activation",
    "activation_function": "hidden_act",
    "rope_pct": "partial_rotary_factor",
}
# What a table of rotary positions may hold, whatever its type.
ROPE = frozenset({
    "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "attention_factor",
    "beta_fast", "beta_slow", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor",
    "mscale", "mscale_all_dim", "truncate", "partial_rotary_factor", "mrope_section", "mrope_interleaved",
})  # fmt: skip
MOST_LAYERS = 1_000  # of a model; the deepest that is public has 126
LAYERS = re.compile(r"(^|_)(layers|layer|depths?)$")


def build_config(config: Mapping[str, Any], where: str) -> Any:
    """The configuration object for a `config` with its `model_type`; `where` names it in messages.

    Raises RecipeError for a type that transformers has not, for a key that the type has not, and for a value that
    it cannot have.
    """
    from huggingface_hub.errors import StrictDataclassError  # a value of another type than the field's
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if not isinstance(config, Mapping):
        raise RecipeError(f"{where} must be a mapping of transformers' options, not {config!r}")
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise RecipeError(f"{where} needs a 'model_type', such as llama or clip_vision_model")
    if kind not in CONFIG_MAPPING:
        raise RecipeError(f"{where}: transformers has no model_type {kind!r}{_near(kind, CONFIG_MAPPING)}")
    options = {key: value for key, value in config.items() if key != "model_type"}
    for problem in impossible_values(options):
        raise RecipeError(f"{where}: {problem}")
    try:
        built = AutoConfig.for_model(kind, **options)
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        ImportError,
        ArithmeticError,
        StrictDataclassError,
    ) as error:
        raise RecipeError(f"{where}: transformers refuses this {kind} config: {reason(error)}") from None
    for key, accepted in unknown_keys(built, options):
        raise RecipeError(f"{where}: the {kind} of transformers has no key {key!r}{_near(key, accepted)}")
    return built


def read_config(folder: Path, unreadable: str, tower: str | None = None) -> Any:
    """The configuration in the config.json of a folder, all of whose keys have to be known.

    unreadable: the message, up to its colon, where it is none.
    tower: the key of the part that is wanted of a configuration of several (`vision_config`); only its keys count.
    Raises CheckpointError.
    """
    from transformers import AutoConfig, PreTrainedConfig

    try:
        raw, _ = PreTrainedConfig.get_config_dict(folder)
        if not isinstance(raw.get("model_type"), str):  # transformers would guess it from the folder's name
            raise CheckpointError(f"{unreadable}: its config.json has no model_type")
        for problem in impossible_values(raw):
            raise CheckpointError(f"{unreadable}: {problem}")
        built: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if tower is not None and hasattr(built, tower):
            built, raw = getattr(built, tower), raw.get(tower) or {}
        unread = (each for each in unknown_keys(built, raw) if not _without_effect(each[0], raw))
        unknown = next(unread, None)
    except CheckpointError:
        raise
    except Exception as error:  # each type raises what it likes for values that it cannot have
        raise CheckpointError(f"{unreadable}: {reason(error)}") from error
    if unknown is not None:
        key, accepted = unknown
        raise CheckpointError(
            f"{unreadable}: its config.json has {key!r}, a key that transformers' {built.model_type} does not "
            f"know{_near(key, accepted)}; take it out if it has no effect"
        )
    return built


def impossible_values(options: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """What is wrong with values that transformers takes unseen, such as more layers than any model has.

    They are found before anything is built of them, which would not end, or end far from the key.
    """
    for key, value in options.items():
        place = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from impossible_values(value, f"{place}.")
        elif isinstance(key, str) and LAYERS.search(key):
            counts = value if isinstance(value, list) else [value]
            if any(isinstance(each, int) and each > MOST_LAYERS for each in counts):
                yield f"{place} is {value!r}; at most {MOST_LAYERS:,} layers are built"
        elif key in ("partial_rotary_factor", "rope_pct") and _is_number(value) and not 0 <= value <= 1:
            yield f"{place} is {value!r}; it is a share of each head, from 0 to 1"
        elif key in ("rope_theta", "rotary_emb_base") and _is_number(value) and not value > 0:
            yield f"{place} is {value!r}; it must be positive"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _without_effect(place: str, raw: Mapping[str, Any]) -> bool:
    """Whether a key, by its dotted place, changes nothing though its type does not know it; null says nothing."""
    value: Any = raw
    for key in place.split(".") if place not in raw else [place]:
        value = value[key]
    key = place if place in raw else place.rpartition(".")[2]
    accepted = FORMER_VALUES.get(key, ())
    return (
        value is None
        or key in FORMER
        or key == "quantization_config"  # the loader obeys it
        or any(value == each and type(value) is type(each) for each in accepted)
        or raw.get(SUPERSEDED.get(key, "")) is not None
    )


def as_options(settings: Any) -> dict[str, Any]:
    """A configuration as the options that `build_config` makes it of again; unknown keys are left out."""
    options = settings.to_diff_dict()
    unknown = {key for key, _ in unknown_keys(settings, options)}
    result = {key: value for key, value in options.items() if key not in unknown | RUN}
    for key in result.keys() & type(settings).sub_configs.keys():
        if getattr(getattr(settings, key), "model_type", None) == "":  # options of a layer, no model's
            result[key] = as_options(getattr(settings, key))
    return {**result, **({"model_type": settings.model_type} if settings.model_type else {})}


def unknown_keys(
    settings: Any, options: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, set[str]]]:
    """Dotted keys of `options` that a configuration made of them does not know, each with those that it does."""
    kind = type(settings)
    named = {field.name for field in fields(kind)}
    accepted = named | set(kind.attribute_map)
    for key, value in options.items():
        inner = getattr(settings, key, None)
        if key in kind.sub_configs and isinstance(value, Mapping) and inner is not None:
            yield from unknown_keys(inner, value, f"{prefix}{key}.")
        elif key in ("rope_scaling", "rope_parameters") and isinstance(value, Mapping):
            yield from _unknown_rope(value, f"{prefix}{key}.")
        elif key in accepted | BOOKKEEPING or hasattr(kind, key) or key not in vars(settings):
            continue  # a key that the class took away while it was built is a former name of another
        elif key not in vars(_default(kind)) and not _read_by_model(kind, key):
            yield prefix + key, {name for name in accepted if not name.startswith("_")}


def _unknown_rope(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, set[str]]]:
    for key, value in table.items():
        if isinstance(value, Mapping):  # one table for each type of layer
            yield from _unknown_rope(value, f"{prefix}{key}.")
        elif key not in ROPE:
            yield prefix + key, set(ROPE)


def _read_by_model(kind: type, key: str) -> bool:
    """Whether a model reads a key that its configuration does not declare (head_dim of Qwen3-MoE)."""
    reads = re.compile(rf"getattr\((self\.)?config, [\"']{re.escape(key)}[\"']")
    return any(
        reads.search(file.read_text(encoding="utf-8"))
        for file in Path(getfile(kind)).parent.glob("modeling_*.py")
    )


def _default(kind: type) -> Any:
    try:
        return kind()
    except Exception:  # a type that has no defaults of its own
        return object.__new__(kind)


def _near(word: str, accepted: Any) -> str:
    """The nearest word, or none where all would be a long list."""
    hint = nearest(word.rpartition(".")[2], accepted)
    return hint if hint.startswith("; did you mean") else ""
