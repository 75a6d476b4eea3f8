"""BLIP-2 (arXiv 2301.12597) with a causal language model, in transformers' layout."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.connectors.qformer import Trunk
from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Reshape, Rule, Split, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import (
    CasePicture,
    case_document,
    load_case,
    read_documents,
    scattered,
    unnormalised,
)
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.activations import activation_name, their_activation
from chiasm.interop.shapes.towers import causal_config, normalisation, settings
from chiasm.language.turns import IMAGES_AHEAD
from chiasm.views import Size

# The paper's for questions: images before all words, and the line's end behind an answer.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    + IMAGES_AHEAD
    + "{{ bos_token if loop.first else ' ' }}Question: {{ message['content'] }} Answer:"
    "{% elif message['role'] == 'assistant' %} {{ message['content'] }}{{ '\\n' }}"
    "{% else %}{{ message['content'] }} {% endif %}{% endfor %}"
)


class Blip2Transformers(Family, name="blip2-hf"):
    """The layout of Blip2ForConditionalGeneration with a causal language model (Salesforce/blip2-opt-2.7b)."""

    looks_for = "config.json with model_type blip-2 and use_decoder_only_language_model"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "image_token_index": "an id in a prompt, where images are put without it",
        "image_token_id": "an id in a prompt, where images are put without it",
        "image_text_hidden_size": "of another head, which is not loaded",
        "tie_word_embeddings": "the tensors tell",
        "is_encoder_decoder": "use_decoder_only_language_model tells",
        "num_image_tokens": "counts of tokens follow from the parts",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "blip-2"

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        if not config.get("use_decoder_only_language_model", True):
            raise CheckpointError("only BLIP-2 with a causal language model is known, not with T5")
        vision = settings({**config["vision_config"], "model_type": "blip_2_vision_model"})
        text = config["text_config"]
        return {
            "views": {"type": "whole", "size": vision.image_size, "fit": "stretch"},
            "encoder": {
                "type": "eva",
                "size": vision.image_size,
                "patch_size": vision.patch_size,
                "width": vision.hidden_size,
                "depth": vision.num_hidden_layers,
                "heads": vision.num_attention_heads,
                "hidden": vision.intermediate_size,
                "activation": activation_name(vision.hidden_act),
                "bias": "all" if vision.qkv_bias else "none",
                "epsilon": vision.layer_norm_eps,
                "final_epsilon": vision.layer_norm_eps,
                "class_token": "first",
            },
            "connector": _connector(config["qformer_config"], config.get("num_query_tokens", 32)),
            "language": causal_config(text, text.get("model_type", "opt")),
        }

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config)
        connector, width = spec["connector"], spec["encoder"]["width"]
        shape = (connector["queries"], connector["width"])
        theirs, ours = "vision_model.encoder.layers.{n}.", "encoder.blocks.{n}."
        linear = tuple(f"{ours}attention.{name}.{{p}}" for name in ("query", "key", "value"))
        return NameMap(
            Rule("vision_model.embeddings.class_embedding", "encoder.class_embedding"),
            Rule("vision_model.embeddings.position_embedding", "encoder.positions"),
            Rule("vision_model.embeddings.patch_embedding.{p}", "encoder.patchify.{p}"),
            Rule("vision_model.post_layernorm.{p}", "encoder.final_norm.{p}"),
            Rule(theirs + "layer_norm1.{p}", ours + "attention_norm.{p}"),
            Rule(theirs + "layer_norm2.{p}", ours + "mlp_norm.{p}"),
            Rule(theirs + "self_attn.qkv.{p}", linear, Split((width, width, width))),
            Rule(theirs + "self_attn.projection.{p}", ours + "attention.out.{p}"),
            Rule(theirs + "mlp.fc1.{p}", ours + "mlp.up.{p}"),
            Rule(theirs + "mlp.fc2.{p}", ours + "mlp.down.{p}"),
            OwnTensors("encoder.mean"),
            OwnTensors("encoder.deviation"),
            Rule("query_tokens", "connector.queries", Reshape((1, *shape), shape)),
            Rule("qformer.layernorm.{p}", "connector.trunk.norm.{p}"),
            *qformer_rules("qformer.encoder.", "attention"),
            Rule("language_projection.{p}", "connector.out.{p}"),
            Rule("language_model.{rest...}", "language.inner.{rest...}"),
        )

    def config(self, model: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        encoder, connector = model["encoder"], model["connector"]
        if encoder["type"] != "eva" or connector["type"] != "qformer":
            raise CheckpointError("'blip2-hf' needs the encoder 'eva' and the connector 'qformer'")
        plain = not any(encoder[o] for o in ("rotary", "gated", "sub_norm", "post_norm", "layer_scale"))
        if (
            not plain
            or not encoder["final_norm"]
            or not encoder["absolute"]
            or encoder["class_token"] != "first"
        ):
            raise CheckpointError("'blip2-hf' needs an EVA-CLIP-g with final_norm and class_token: first")
        if encoder["bias"] == "queries_values" or encoder["epsilon"] != encoder["final_epsilon"]:
            raise CheckpointError("'blip2-hf' needs keys with a bias too (or none at all) and one epsilon")
        text = model["language"]["config"]
        return {
            "architectures": ["Blip2ForConditionalGeneration"],
            "model_type": "blip-2",
            "num_query_tokens": connector["queries"],
            "use_decoder_only_language_model": True,
            "image_token_index": 0,
            "vision_config": {
                "model_type": "blip_2_vision_model",
                "image_size": encoder["size"],
                "patch_size": encoder["patch_size"],
                "hidden_size": encoder["width"],
                "num_hidden_layers": encoder["depth"],
                "num_attention_heads": encoder["heads"],
                "intermediate_size": encoder["hidden"],
                "hidden_act": their_activation(encoder["activation"]),
                "qkv_bias": encoder["bias"] == "all",
                "layer_norm_eps": encoder["epsilon"],
            },
            "qformer_config": {
                "model_type": "blip_2_qformer",
                "hidden_size": connector["width"],
                "num_hidden_layers": connector["depth"],
                "num_attention_heads": connector["heads"],
                "intermediate_size": connector["hidden"],
                "hidden_act": their_activation(connector["activation"]),
                "cross_attention_frequency": connector["cross_every"],
                "layer_norm_eps": connector["epsilon"],
                "encoder_hidden_size": encoder["width"],
            },
            "text_config": text,
        }

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder)


def _connector(config: Mapping[str, Any], queries: int) -> dict[str, Any]:
    known_value("position_embedding_type", config.get("position_embedding_type", "absolute"), "absolute")
    known_value("use_qformer_text_input", config.get("use_qformer_text_input", False), False)
    shape = {key: value for key, value in config.items() if key != "position_embedding_type"}
    qformer = settings({**shape, "model_type": "blip_2_qformer"})
    return {
        "type": "qformer",
        "queries": queries,
        "width": qformer.hidden_size,
        "depth": qformer.num_hidden_layers,
        "heads": qformer.num_attention_heads,
        "hidden": qformer.intermediate_size,
        "activation": activation_name(qformer.hidden_act),
        "cross_every": qformer.cross_attention_frequency,
        "epsilon": qformer.layer_norm_eps,
    }


def qformer_rules(
    prefix: str, inner: str, ours: str = "connector.", *, words: bool = False
) -> list[Rule | Unused]:
    """Rules for a Q-Former's blocks; `inner` is how the layout calls the projections of an attention."""
    theirs, block = prefix + "layer.{n}.", ours + "trunk.blocks.{n}."
    rules: list[Rule | Unused] = []
    for name, our_name in (("attention", "attention"), ("crossattention", "cross")):
        rules += [  # `out` first, because on the way back `{which}` would take it
            Rule(f"{theirs}{name}.output.dense.{{p}}", f"{block}{our_name}.out.{{p}}"),
            Rule(f"{theirs}{name}.output.LayerNorm.{{p}}", f"{block}{our_name}_norm.{{p}}"),
            Rule(f"{theirs}{name}.{inner}.{{which}}.{{p}}", f"{block}{our_name}.{{which}}.{{p}}"),
        ]
    for suffix, our_name in (("_query", "feed"), ("", "word_feed")):
        if not suffix and not words:
            rules += [Unused(theirs + "intermediate.{rest...}"), Unused(theirs + "output.{rest...}")]
            continue
        rules += [
            Rule(f"{theirs}intermediate{suffix}.dense.{{p}}", f"{block}{our_name}.0.{{p}}"),
            Rule(f"{theirs}output{suffix}.dense.{{p}}", f"{block}{our_name}.2.{{p}}"),
            Rule(f"{theirs}output{suffix}.LayerNorm.{{p}}", f"{block}{our_name}_norm.{{p}}"),
        ]
    return rules


@replays("qformer", "Blip2ForConditionalGeneration")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The image id stands at each query's place."""
    inputs, config = case.inputs, case.config
    model = load(find_family("blip2-hf"), Original(config, case.tensors)).model
    pixels = unnormalised(model.encoder, inputs["pixel_values"])
    features = model.encoder(pixels)
    images = [CasePicture(f"{i}", Size(*each.shape[-2:]), each[None]) for i, each in enumerate(pixels)]
    mask = inputs["attention_mask"].bool()
    image = config["image_token_index" if "image_token_index" in config else "image_token_id"]
    documents = [
        case_document(model, row[real], images, image, repeated=True)
        for row, real in zip(inputs["input_ids"], mask, strict=True)
    ]
    return {
        "image_embeds": features[:, 0],
        "query_output": model.connector.ask(features),
        "logits": scattered(read_documents(model, documents).logits, mask),
    }


@replays("qformer", "Blip2QFormerModel")
@torch.no_grad()
def replay_qformer(case: Case) -> dict[str, Tensor]:
    """Queries come as they are; some features are masked."""
    inputs, spec = case.inputs, _connector(case.config, 1)
    sizes = [
        spec[name] for name in ("width", "depth", "heads", "hidden", "cross_every", "epsilon", "activation")
    ]
    trunk = Trunk(case.config["encoder_hidden_size"], *sizes).eval()
    names = NameMap(
        Rule("layernorm.{p}", "connector.trunk.norm.{p}"), *qformer_rules("encoder.", "attention")
    )
    load_case(trunk, case, names, "connector.trunk.")
    mask = inputs.get("encoder_attention_mask")
    hidden = trunk(
        inputs["query_embeds"],
        inputs["encoder_hidden_states"],
        feature_mask=None if mask is None else mask.bool(),
    )
    return {"last_hidden_state": hidden, "pooler_output": hidden[:, 0]}
