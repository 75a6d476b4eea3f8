"""BEiT-3 (arXiv 2208.10442): torchscale's multiway encoder, alone and with the heads of its fine-tuned releases."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.errors import CheckpointError
from chiasm.interop.config import TRANSFORMERS, reader
from chiasm.interop.convert import Loaded, load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import Chain, NameMap, OwnTensors, Permute, Reshape, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.padded import padded_layout
from chiasm.interop.parity.verify import replays
from chiasm.sequence import Kind

HEAD_WIDTH = 64  # of the releases; a checkpoint does not say
# Options of torchscale's encoder, of which the original sets none otherwise.
FIXED = {
    "multiway": True,
    "normalize_before": True,
    "encoder_normalize_before": True,
    "normalize_output": True,
    "no_scale_embedding": True,
    "activation_fn": "gelu",
    "layernorm_embedding": False,
    "deepnorm": False,
    "moe_freq": 0,
    "use_xmoe": False,
    "rel_pos_buckets": 0,
    "max_rel_pos": 0,
    "xpos_rel_pos": False,
    "in_chans": 3,
}
TRAINING = ("dropout", "attention_dropout", "activation_dropout", "drop_path_rate", "bert_init")
# Of mixtures of experts, which it has not with a moe_freq of 0.
OF_EXPERTS = (
    "moe_top1_expert",
    "moe_expert_count",
    "moe_gating_use_fp32",
    "moe_eval_capacity_token_fraction",
    "moe_second_expert_policy",
    "moe_normalize_gate_prob_before_dropping",
)
MACHINE = ("checkpoint_activations", "fsdp", "ddp_rank", "flash_attention")
WAYS = {"A": "image", "B": "text"}
INSIDE = {  # of a layer: theirs and ours
    **{f"self_attn.{name}_proj": f"{name}_proj" for name in ("q", "k", "v", "out")},
    "self_attn.inner_attn_ln": "inner_norm",
    "self_attn_layer_norm": "attention_norm",
    "final_layer_norm": "network_norm",
}
NETWORK = {"fc1": "first", "ffn_layernorm": "norm", "fc2": "second"}


class BEiT3(Family, name="beit3"):
    """One .pth file without a config (github.com/microsoft/unilm, beit3): the structure is read from the tensors.

    The config here is torchscale's, with the fields of its EncoderConfig; a config.json may tell what tensors
    do not (heads). What a fine-tuned release has behind the encoder is kept aside, except the captioner's
    layer over the vocabulary.
    """

    looks_for = "one beit3*.pth"
    without_effect: ClassVar = {
        **TRANSFORMERS,
        **dict.fromkeys(TRAINING, "in training only"),
        **dict.fromkeys(MACHINE, "speed and memory only"),
        **dict.fromkeys(OF_EXPERTS, "of experts, of which it has none"),
        "no_output_layer": "the original never uses its output layer",
        "share_encoder_input_output_embed": "the original never uses its output layer",
        "xpos_scale_base": "of positions that it has not",
        "num_classes": "of a head that is kept aside",
    }

    def recognises(self, folder: Folder) -> bool:
        return len(list(folder.path.glob("beit3*.pth"))) == 1

    def read(self, folder: Folder) -> Original:
        tensors = folder.tensors
        prefix = _prefix(tensors)
        try:
            words, width = tensors[f"{prefix}text_embed.weight"].shape
            patch = tensors[f"{prefix}vision_embed.proj.weight"].shape[-1]
            rows = len(tensors[f"{prefix}encoder.embed_positions.A.weight"])
            context = len(tensors[f"{prefix}encoder.embed_positions.B.weight"])
            hidden = len(tensors[f"{prefix}encoder.layers.0.ffn.A.fc1.weight"])
        except KeyError as error:
            raise CheckpointError(f"{folder.path} is not BEiT-3: it lacks {error}") from None
        layers = {key.removeprefix(f"{prefix}encoder.layers.").split(".")[0] for key in tensors}
        config = {
            "encoder_embed_dim": width,
            "encoder_attention_heads": max(1, width // HEAD_WIDTH),
            "encoder_layers": sum(name.isdigit() for name in layers),
            "encoder_ffn_embed_dim": hidden,
            "vocab_size": words,
            "img_size": math.isqrt(rows - 3) * patch,
            "patch_size": patch,
            "max_source_positions": context,
        }
        return Original({**config, **folder.config}, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        for name, value in FIXED.items():
            config.only(name, value)
        side = config["img_size"] // config["patch_size"]
        return {
            "views": {"type": "whole", "size": config["img_size"], "fit": "stretch"},
            "encoder": {"type": "patches", "patch_size": config["patch_size"]},
            "connector": {"type": "embedding", "grid": [side, side]},
            "language": {
                "type": "beit3",
                "width": config["encoder_embed_dim"],
                "depth": config["encoder_layers"],
                "heads": config["encoder_attention_heads"],
                "hidden": config["encoder_ffn_embed_dim"],
                "context": config.get("max_source_positions", 1024),
                "sub_norm": config.get("subln", True),
                "epsilon": config.get("layernorm_eps", 1e-5),
                "vocab_size": config["vocab_size"],
                "chat_template": "caption",
            },
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        width, patch = config["encoder_embed_dim"], config["patch_size"]
        p = _prefix(keys)
        layer = f"{p}encoder.layers.{{n}}."
        pixels = Reshape((width, patch, patch, 3), (width, 3 * patch**2))
        flat = Chain((Permute((0, 2, 3, 1)), pixels))
        vector = Reshape((1, 1, width), (width,))
        captions = not keys or "mlm_head.weight" in keys
        return NameMap(
            Rule(f"{p}text_embed.weight", "language.table.weight"),
            Rule(f"{p}vision_embed.proj.weight", "connector.projection.weight", flat),
            Rule(f"{p}vision_embed.proj.bias", "connector.projection.bias"),
            Rule(f"{p}vision_embed.cls_token", "connector.class_token", vector),
            Rule(f"{p}vision_embed.mask_token", "connector.mask_token", vector),
            Rule(f"{p}encoder.embed_positions.A.weight", "connector.positions"),
            Rule(f"{p}encoder.embed_positions.B.weight", "language.positions.weight"),
            *[
                Rule(f"{layer}{theirs}.{a}.{{w}}", f"language.layers.{{n}}.{ours}.{way}.{{w}}")
                for theirs, ours in INSIDE.items()
                for a, way in WAYS.items()
            ],
            *[
                Rule(f"{layer}ffn.{a}.{theirs}.{{w}}", f"language.layers.{{n}}.network.{way}.{ours}.{{w}}")
                for theirs, ours in NETWORK.items()
                for a, way in WAYS.items()
            ],
            *[Rule(f"{p}encoder.layer_norm.{a}.{{w}}", f"language.norm.{way}.{{w}}") for a, way in WAYS.items()],
            Rule("mlm_head.{w}", "language.readout.{w}") if captions else OwnTensors("language.readout.{w}"),
            *[Unused(f"{name}.{{rest...}}") for name in ("pooler", "head", "vision_head", "language_head")],
            *[Unused(name) for name in ("logit_scale", "fc_norm.{w}")],
        )  # fmt: skip

    def write(self, original: Original, folder: Path) -> None:
        torch.save({"model": original.tensors}, folder / "beit3.pth")


def _prefix(names: Collection[str]) -> str:
    return "beit3." if any(name.startswith("beit3.") for name in names) else ""


def _loaded(case: Case) -> Loaded:
    return load(find_family("beit3"), Original(case.config, case.tensors))


def _hidden(
    model: Any,
    image: Float[Tensor, "b 3 h w"] | None = None,
    text: Int[Tensor, "b t"] | None = None,
    padding: Bool[Tensor, "b t"] | None = None,
    *,
    captions: bool = False,
    masked: Float[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b s d"]:
    """The encoder's output over a normalised picture, a text, or both.

    captions: words see only the words before them, and a picture no words.
    """
    embeddings, kinds, real = [], [], []
    if image is not None:
        grid = model.encoder(image / 2 + 0.5)
        cells = None if masked is None else masked.view(grid.shape[:3])
        embeddings.append(model.connector(grid, cells))
        kinds.append(torch.full(embeddings[-1].shape[:2], int(Kind.READ)))
        real.append(torch.ones(embeddings[-1].shape[:2], dtype=torch.bool))
    if text is not None:
        embeddings.append(model.language.embed(text))
        kinds.append(torch.full(text.shape, int(Kind.TEXT)))
        real.append(torch.ones_like(text, dtype=torch.bool) if padding is None else ~padding.bool())
    kind, attended = torch.cat(kinds, 1), torch.cat(real, 1)
    length = kind.shape[1]
    allowed = attended[:, None].expand(-1, length, -1)
    if captions:
        words = kind == Kind.TEXT
        earlier = torch.ones(length, length, dtype=torch.bool).tril()
        allowed = allowed & (~words[:, None] | (words[:, :, None] & earlier))
    return model.language(torch.cat(embeddings, 1), padded_layout(allowed, attended, kinds=kind))


@replays("beit3", "BEiT3")
@torch.no_grad()
def replay_encoder(case: Case) -> dict[str, Tensor]:
    """Both at once, each alone, and a picture with masked patches."""
    model, inputs = _loaded(case).model, case.inputs
    image, text, padding = inputs["image"], inputs["text"], inputs.get("text_padding")
    return {
        "joint": _hidden(model, image, text, padding),
        "image_only": _hidden(model, image),
        "text_only": _hidden(model, None, text, padding),
        "image_masked": _hidden(model, image, masked=inputs["vision_masked_position"]),
    }


@replays("beit3", "BEiT3ForCaptioning")
@torch.no_grad()
def replay_captioning(case: Case) -> dict[str, Tensor]:
    """The words at the masked places."""
    model, inputs = _loaded(case).model, case.inputs
    hidden = _hidden(model, inputs["image"], inputs["text"], inputs["text_padding"], captions=True)
    words = hidden[:, -inputs["text"].shape[1] :][inputs["language_masked_pos"].bool()]
    return {"logits": model.language.logits(words)}


@replays("beit3", "BEiT3ForVisualQuestionAnswering")
@torch.no_grad()
def replay_questions(case: Case) -> dict[str, Tensor]:
    """A class of answers from the picture's class token."""
    loaded, inputs = _loaded(case), case.inputs
    heads = loaded.unused
    hidden = _hidden(loaded.model, inputs["image"], inputs["text"], inputs["text_padding"])
    pooled = _linear(heads, "pooler.dense", _norm(heads, "pooler.norm", hidden[:, 0])).tanh()
    inner = functional.gelu(_norm(heads, "head.1", _linear(heads, "head.0", pooled)))
    return {"logits": _linear(heads, "head.3", inner)}


@replays("beit3", "BEiT3ForVisualReasoning")
@torch.no_grad()
def replay_reasoning(case: Case) -> dict[str, Tensor]:
    """Whether a sentence is true of two pictures, each read with it."""
    loaded, inputs = _loaded(case), case.inputs
    heads, text = loaded.unused, inputs["text"]
    pairs = []
    for name in ("image", "image_b"):
        hidden = _hidden(loaded.model, inputs[name], text, inputs["text_padding"])
        pairs.append(torch.cat([hidden[:, 0], hidden[:, -text.shape[1]]], -1))
    inner = _linear(heads, "head.dense1", _norm(heads, "head.norm1", torch.cat(pairs, -1)))
    inner = functional.gelu(_norm(heads, "head.norm2", inner))
    return {"logits": _linear(heads, "head.dense2", inner)}


@replays("beit3", "BEiT3ForRetrieval")
@torch.no_grad()
def replay_retrieval(case: Case) -> dict[str, Tensor]:
    """A vector of the picture and one of the text."""
    loaded, inputs = _loaded(case), case.inputs
    image_hidden = _hidden(loaded.model, inputs["image"])
    text_hidden = _hidden(loaded.model, None, inputs["text"], inputs["text_padding"])
    return {
        "vision": functional.normalize(_linear(loaded.unused, "vision_head", image_hidden[:, 0]), dim=-1),
        "language": functional.normalize(_linear(loaded.unused, "language_head", text_hidden[:, 0]), dim=-1),
    }


@replays("beit3", "BEiT3ForImageClassification")
@torch.no_grad()
def replay_classification(case: Case) -> dict[str, Tensor]:
    """A class from the mean of the patches."""
    loaded = _loaded(case)
    hidden = _hidden(loaded.model, case.inputs["image"])
    return {"logits": _linear(loaded.unused, "head", _norm(loaded.unused, "fc_norm", hidden[:, 1:].mean(1)))}


def _linear(heads: Mapping[str, Tensor], name: str, x: Float[Tensor, "b c"]) -> Float[Tensor, "b d"]:
    return functional.linear(x, heads[f"{name}.weight"], heads.get(f"{name}.bias"))


def _norm(heads: Mapping[str, Tensor], name: str, x: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
    return functional.layer_norm(x, x.shape[-1:], heads[f"{name}.weight"], heads[f"{name}.bias"])
