"""MoE-LLaVA (arXiv 2401.15947): LLaVA whose feed-forward networks are sparse experts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from chiasm.encoders.preprocessor import OPENAI
from chiasm.errors import CheckpointError, nearest
from chiasm.interop.config import known_value
from chiasm.interop.convert import load, load_named
from chiasm.interop.families.llava import IMAGE, OTHERS, VICUNA, WITHOUT_EFFECT, projector_depth, tower_folder
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.padded import causal_with_padding
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.towers import (
    causal_config,
    colour,
    normalisation,
    preprocessor,
    settings,
    tower,
    tower_rules,
)
from chiasm.routing.moe import Experts, MoE
from chiasm.sequence import IGNORE, PADDING, Kind
from chiasm.sequence.layout import Layout, attending
from chiasm.storage.weights import read_tensors
from chiasm.views import Size

TOWER = "model.image_tower.image_tower.vision_model."
LANGUAGES = {
    "moe_llava_stablelm": "stablelm",
    "moe_llava_llama": "llama",
    "moe_llava_mistral": "mistral",
    "moe_llava_phi": "phi",
    "moe_llava_qwen1_5": "qwen2",
}
OF_VIDEOS = (
    "mm_video_tower",
    "video_global_proj",
    "video_projector_type",
    "video_spatial_proj",
    "video_temproal_proj",
)
ASPECTS = ("pad", "square", None)
BEGINS = ("llama", "mistral")  # language models whose conversations begin with a token of their own
# StableLM Epoch's fields that transformers calls otherwise.
RENAMED = {"rope_pct": "partial_rotary_factor", "norm_eps": "layer_norm_eps"}


class MoELlava(Family, name="moe-llava"):
    """The original's layout (github.com/PKU-YuanGroup/MoE-LLaVA).

    Its config here is `{llm, vision, moe, projector, select_layer}`, put together from the folder's config.json
    and that of the CLIP tower.
    """

    looks_for = f"config.json with a moe section and model_type {', '.join(LANGUAGES)}"

    without_effect: ClassVar = {
        **{key.replace("config.", "llm."): reason for key, reason in WITHOUT_EFFECT.items()},
        **{f"llm.{key}": "of videos" for key in OF_VIDEOS},
        "llm.moe": "read as a section of its own",
        "llm.image_projector_type": "read as `projector`",
        "llm.mm_vision_select_layer": "read as `select_layer`",
        "llm.mm_image_tower": "where the tower's files are, which the folder's reader follows",
        "moe.moe_enable": "its layers tell",
        "moe.moe_mode": "moe_layers_idx tells",
        "moe.train_modules": "of training",
        "moe.ep_size": "how experts lie on machines",
    }

    def recognises(self, folder: Folder) -> bool:
        return "moe" in folder.config and folder.config.get("model_type") in LANGUAGES

    def read(self, folder: Folder) -> Original:
        language_config, tensors = folder.config, dict(folder.tensors)
        clip = tower_folder(folder, "mm_image_tower")
        mean = (preprocessor(folder) or preprocessor(clip)).get("image_mean", OPENAI[0])
        config = {
            "llm": language_config,
            "vision": clip.config.get("vision_config", clip.config),
            "moe": language_config["moe"],
            "projector": language_config.get("image_projector_type", "linear"),
            "select_layer": language_config.get("mm_vision_select_layer", -2),
            "padding": colour(mean),
        }
        original = Original(config, tensors)
        if not any(name.startswith(TOWER) for name in tensors):
            tower_tensors = read_tensors(clip.path)
            tower_tensors = {
                TOWER + name.removeprefix("vision_model."): tensor
                for name, tensor in tower_tensors.items()
                if not name.startswith(("text_model.", "text_projection", "visual_projection", "logit_scale"))
            }
            original.tensors |= tower_tensors
            original.borrowed = set(tower_tensors)
        return original

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        language_config, moe, vision = config["llm"], config["moe"], config["vision"]
        kind = language_config.get("model_type", "moe_llava_stablelm")
        if kind not in LANGUAGES:
            raise CheckpointError(f"model_type is {kind!r}{nearest(kind, LANGUAGES)}")
        language = {
            RENAMED.get(key, key): language_config[key]
            for key in language_config
            if key not in ("moe", "rotary_scaling_factor")
            and not key.startswith((*OTHERS, "video_", "model_type"))
        }
        known_value("mm_use_im_start_end", language_config.get("mm_use_im_start_end", False), False)
        known_value("rotary_scaling_factor", language_config.get("rotary_scaling_factor", 1.0), 1.0)
        known_value("use_mm_proj", language_config.get("use_mm_proj", True), True)
        known_value(
            "mm_vision_select_feature", language_config.get("mm_vision_select_feature", "patch"), "patch"
        )
        aspect = known_value("image_aspect_ratio", language_config.get("image_aspect_ratio"), *ASPECTS)
        square: dict[str, Any] = {"fit": "crop"}
        if aspect == "pad":
            square = {"fit": "pad", "padding": tuple(config.get("padding", colour(OPENAI[0])))}
        layers = [int(each) for each in moe["moe_layers_idx"]]
        experts = [int(each) for each in _listed(moe["num_experts"])]
        return {
            "views": {"type": "whole", "size": vision.get("image_size", 224), **square},
            "encoder": tower(vision, "clip_vision_model", layer=config["select_layer"]),
            "connector": {"type": "mlp", "depth": projector_depth(config["projector"])},
            "language": causal_config(language, LANGUAGES[kind]),
            "routing": {
                "type": "moe",
                "layers": layers,
                "experts": experts * len(layers) if len(experts) == 1 else experts,
                "top_k": moe.get("top_k_experts", 2),
                "capacity": moe.get("capacity_factor", 1.0),
                "eval_capacity": moe.get("eval_capacity_factor", 1.0),
                "min_capacity": moe.get("min_capacity", 4),
                "residual": bool(moe.get("use_residual", False)),
                "balance": moe.get("router_aux_loss_coef", 0.01),
            },
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config)
        only = spec["connector"]["depth"] == 1
        layers, residual = spec["routing"]["layers"], spec["routing"]["residual"]
        if max(layers, default=0) >= settings(spec["language"]["config"]).num_hidden_layers:
            raise CheckpointError(f"moe_layers_idx {layers} names layers that the model has not")
        theirs, idle = "model.layers.{n}.mlp.", "language.inner.model.layers."
        ours = "routing.layers.inner/model/layers/{n}/mlp."
        return NameMap(
            *tower_rules(spec["encoder"], TOWER),
            Rule(
                "model.mm_projector.image_spatial_proj.{rest...}",
                f"connector.layers.{'0.' if only else ''}{{rest...}}",
            ),
            Rule(f"{theirs}deepspeed_moe.gate.wg.weight", f"{ours}router.weight"),
            Rule(
                f"{theirs}deepspeed_moe.experts.deepspeed_experts.{{k}}.{{rest...}}",
                f"{ours}experts.{{k}}.{{rest...}}",
            ),
            Rule(f"{theirs}coefficient.{{w}}", f"{ours}mixer.{{w}}"),
            # The network that a layer's experts were copied from; without the residual it is not in theirs.
            *[
                Rule(f"model.layers.{n}.mlp.mlp.{{rest...}}", f"{idle}{n}.mlp.{{rest...}}")
                if residual
                else OwnTensors(f"{idle}{n}.mlp.{{rest...}}")
                for n in layers
            ],
            Unused("model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            OwnTensors("language.inner.lm_head.bias"),  # transformers' Phi has one, of zeros; theirs has not
            Rule("lm_head.weight", "language.inner.lm_head.weight"),
            Rule("model.{rest...}", "language.inner.model.{rest...}"),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder) or normalisation(tower_folder(folder, "mm_image_tower"))

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        kind = LANGUAGES.get(config["llm"].get("model_type"), "stablelm")
        return VICUNA if kind in BEGINS else VICUNA.removeprefix("{{ bos_token }}")

    def write(self, original: Original, folder: Path) -> None:
        super().write(Original(original.config["llm"], original.tensors), folder)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


@replays("moe_llava", "deepspeed.moe.layer.MoE")
@torch.no_grad()
def replay_layer(case: Case) -> dict[str, Tensor]:
    """One layer of experts, with the case's noise and with none."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    config, inputs = case.config, case.inputs
    width = config["hidden_size"]
    network = LlamaMLP(
        LlamaConfig(hidden_size=width, intermediate_size=config["intermediate_size"], num_attention_heads=1)
    )
    layer = Experts(
        network,
        width,
        config["num_experts"],
        top_k=config["k"],
        capacity=config["capacity_factor"],
        eval_capacity=config["eval_capacity_factor"],
        min_capacity=config["min_capacity"],
        noise="always",
        residual=config.get("use_residual", False),
    ).eval()
    names = NameMap(
        Rule("deepspeed_moe.gate.wg.weight", "router.weight"),
        Rule("deepspeed_moe.experts.deepspeed_experts.{rest...}", "experts.{rest...}"),
        Rule("coefficient.{w}", "mixer.{w}"),
        Rule("mlp.{rest...}", "network.{rest...}"),
    )
    ours, _ = names.to_ours(case.tensors, case.name)
    dense = {k: v for k, v in ours.items() if k.startswith("network.")}
    load_named(layer, {k: v for k, v in ours.items() if k not in dense}, names, case.name)
    if dense:
        load_named(network, dense, names, case.name, prefix="network.")
    x = inputs["x"]

    def routed_output(noise: Tensor) -> Tensor:
        layer.draw = noise.to  # in the type of the scores
        with attending(Layout.causal(*x.shape[:2])):
            return layer(x)

    silent, noisy = torch.zeros_like(inputs["gumbel"]), routed_output(inputs["gumbel"])
    plain = routed_output(silent)
    choice = layer.choose(x.flatten(0, 1))
    layer.capacities[False] = layer.capacities[True]
    return {
        "y": plain,
        "l_aux": choice.balance(ranks=False)[0] / len(choice.gates),
        "exp_counts": choice.firsts,
        "capacity": torch.tensor(choice.capacity),
        "y_noisy": noisy,
        "y_train_capacity": routed_output(silent),
        "combine_weights_sum": choice.weights,
    }


@replays("moe_llava", "EvalMoELLaVA")
@torch.no_grad()
def replay_whole(case: Case) -> dict[str, Tensor]:
    """Padding takes part in the routing here, so that it is computed as the original computes it."""
    inputs = case.inputs
    kind = next(kind for kind in LANGUAGES if kind.removeprefix("moe_llava_") in case.of.lower())
    config = {**case.config, "llm": {**case.config["llm"], "model_type": kind}}
    model = load(find_family("moe-llava"), Original(config, case.tensors)).model
    routing = model.routing
    assert isinstance(routing, MoE)
    tiles = unnormalised(model.encoder, inputs["images"])
    images = [CasePicture(f"{i}", Size(*tile.shape[1:]), tile[None]) for i, tile in enumerate(tiles)]
    documents, labels = [], []
    for row, real, targets in zip(
        inputs["input_ids"], inputs["attention_mask"].bool(), inputs["labels"], strict=True
    ):
        ids = row[real]
        documents.append(case_document(model, ids, images, IMAGE, repeated=False))
        kinds = torch.tensor(documents[-1].kinds)
        spliced = torch.full_like(kinds, IGNORE)
        spliced[kinds == Kind.TEXT] = targets[real][ids != IMAGE]
        labels.append(spliced)
    read = read_documents(model, documents)
    real = read.batch.documents != PADDING
    embeddings = scattered(read.embeddings, real)
    kinds = read.batch.kinds
    layout = causal_with_padding(real, kinds=kinds, documents=torch.zeros_like(kinds))

    layers = routing.each()

    def logits(noises: list[Tensor]) -> Tensor:
        for layer, noise in zip(layers, noises, strict=True):
            layer.noise, layer.draw = "always", noise.to
        return model.language.logits(model.language(embeddings, layout))

    input_noises = [inputs[f"gumbel{i}"] for i in range(len(layers))]
    noisy = logits(input_noises)
    plain = logits([torch.zeros_like(noise) for noise in input_noises])
    balance = (
        routing.weight * torch.stack([each.balance.mean for each in layers if each.balance is not None]).sum()
    )
    targets = torch.full(real.shape, IGNORE)
    targets[real] = torch.cat(labels)
    text = functional.cross_entropy(
        plain[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORE
    )
    return {
        "inputs_embeds": embeddings,
        "attention_mask": real.long(),
        "logits": plain,
        "loss": text + balance,
        "moe_loss": balance,
        "logits_noisy": noisy,
    }
