"""The language models that OpenFlamingo stands on: where their layers are, and their public names and configs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError, nearest
from chiasm.interop.mapping import Rule, TableRow, Unused
from chiasm.interop.shapes.frozen import frozen_language
from chiasm.interop.shapes.mosaic_gpt import mosaic_rules, mpt_config, mpt_names

# Where each language model of transformers keeps its layers, and its table of embeddings.
LAYERS = {
    "llama": ("model.layers", "model.embed_tokens"),
    "mistral": ("model.layers", "model.embed_tokens"),
    "opt": ("model.decoder.layers", "model.decoder.embed_tokens"),
    "gptj": ("transformer.h", "transformer.wte"),
    "gpt_neox": ("gpt_neox.layers", "gpt_neox.embed_in"),
    "mpt": ("transformer.blocks", "transformer.wte"),
}
ALIASES = {
    "gptneox": "gpt_neox",
    "gpt-neox": "gpt_neox",
    "pythia": "gpt_neox",
    "gpt-j": "gptj",
    "mosaic_gpt": "mpt",
    "mosaicgpt": "mpt",
}
# Constants that older versions of transformers wrote among the weights of a layer.
BUFFERS = (
    "self_attn.rotary_emb.inv_freq",
    "attention.rotary_emb.inv_freq",
    "attention.bias",
    "attention.masked_bias",
    "attn.bias",
    "attn.masked_bias",
    "attn.embed_positions",
)
OURS = "language.inner."


def language_type(lm: Mapping[str, Any]) -> str:
    """The model_type in transformers; raises CheckpointError for one that is not known."""
    named = _named(lm)
    kind = ALIASES.get(named, named)
    if kind not in LAYERS:
        raise CheckpointError(f"lm.type is {named!r}{nearest(named, LAYERS)}")
    return kind


def language_config(lm: Mapping[str, Any]) -> Mapping[str, Any]:
    """In transformers' keys."""
    return mpt_config(lm["cfg"], first=_is_mosaic_gpt(lm)) if language_type(lm) == "mpt" else lm["cfg"]


def language_rules(
    lm: Mapping[str, Any], prefix: str, marker: int, keys: Collection[str]
) -> list[Rule | Unused]:
    """All tensors whose names begin with `prefix`, but for those of the gates; marker: the id of an image."""
    layers, embeddings = LAYERS[language_type(lm)]
    inside = f"{prefix}{layers}.{{n}}.decoder_layer."
    return [
        *(Unused(inside + buffer) for buffer in BUFFERS),
        *(mosaic_rules(inside, prefix, OURS) if _is_mosaic_gpt(lm) else []),
        Rule(f"{inside}{{rest...}}", f"{OURS}{layers}.{{n}}.{{rest...}}"),
        Rule(
            f"{prefix}{embeddings}.weight", (f"{OURS}{embeddings}.weight", "routing.marker"), TableRow(marker)
        ),
        *(
            Rule(f"{prefix}{old}", f"{OURS}{new}")
            for old, new in _heads(lm).items()
            if f"{prefix}{new}" not in keys
        ),
        Rule(f"{prefix}{{rest...}}", f"{OURS}{{rest...}}"),
    ]


def borrowed_language(lm: Mapping[str, Any]) -> dict[str, Tensor]:
    """By our names, what a published checkpoint does not hold: all but the table of embeddings."""
    table = f"{LAYERS[language_type(lm)][1]}.weight"
    tensors = frozen_language(lm["checkpoint"], table, lm["cfg"]["vocab_size"])
    heads = {OURS + old: OURS + new for old, new in _heads(lm).items()}
    tensors = {heads.get(name, name): tensor for name, tensor in tensors.items()}
    return mpt_names(tensors) if language_type(lm) == "mpt" else tensors


def _heads(lm: Mapping[str, Any]) -> dict[str, str]:
    """The layer over the vocabulary by its public name and by that of the transformers at hand."""
    if language_type(lm) != "gpt_neox":
        return {}
    from transformers import GPTNeoXForCausalLM

    return {"embed_out.weight": str(next(iter(GPTNeoXForCausalLM._tied_weights_keys)))}


def _named(lm: Mapping[str, Any]) -> str:
    return str(lm.get("type", lm["cfg"].get("model_type", "llama"))).lower()


def _is_mosaic_gpt(lm: Mapping[str, Any]) -> bool:
    return not {"mosaic_gpt", "mosaicgpt"}.isdisjoint({_named(lm), lm["cfg"].get("model_type")})
