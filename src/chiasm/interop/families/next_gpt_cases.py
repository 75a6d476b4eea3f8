"""Replays of NExT-GPT's projectors (arXiv 2309.05519)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chiasm import parts
from chiasm.interop.config import known_value
from chiasm.interop.convert import build_model, load_named
from chiasm.interop.mapping import NameMap, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, load_case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.diffusers_shape import unet_shape
from chiasm.interop.shapes.next_gpt import (
    NEW,
    OLD,
    Rules,
    below,
    drawing,
    group_projector,
    group_rules,
    output_projector,
    output_rules,
    output_width,
)
from chiasm.interop.shapes.stable_diffusion import NOISE
from chiasm.model import Model
from chiasm.model.images import image_states
from chiasm.recipe import load_recipe
from chiasm.sequence import Document, Kind, WrittenImages, pack
from chiasm.views import Size

CONNECTOR = "connector."
# What the networks of the cases have and neither their tensors nor the config tell.
UNET_HEADS, UNET_GROUPS, MIN_SNR = 4, 16, 5.0
STAND_IN = {
    "block_out_channels": [8] * 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "norm_num_groups": 4,
    "scaling_factor": 0.18215,
}
INPUTS = {"n_in": "of the signal tokens, which are an input", "np": "of the features, which are an input"}


@replays("next_gpt", "TransformersProjector", without_effect=INPUTS)
@torch.no_grad()
def replay_projector(case: Case) -> dict[str, Tensor]:
    """The newer output projector, which reads hidden states with the embeddings that stood there."""
    return _projected(case, "transformer", NEW)


@replays("next_gpt", "TextFcLayer", without_effect=INPUTS)
@torch.no_grad()
def replay_older_projector(case: Case) -> dict[str, Tensor]:
    return _projected(case, case.config["mode"], OLD)


@replays("next_gpt", "GroupProjector", without_effect=INPUTS)
@torch.no_grad()
def replay_grouping(case: Case) -> dict[str, Tensor]:
    config = case.config
    spec = group_projector(case.tensors)
    known_value("depths", config["depths"], spec["depths"])
    known_value("ngt", config["ngt"], spec["group_tokens"])
    known_value("nog", config["nog"], spec["groups"])
    connector = _loaded(case, spec, group_rules(spec, "", CONNECTOR))
    return {"tokens": connector(case.inputs["x"][:, None])}


@replays("next_gpt", "NextGPTLlamaForCausalLM.compute_image_loss", without_effect={})
@torch.no_grad()
def replay_losses(case: Case) -> dict[str, Tensor]:
    """The losses of the decoding side.

    The original adds the diffusion's to the caption's in place, and so hands out their sum under both names; and it
    weighs the images by their noise only once it has taken the mean over them.
    """
    model, inputs = _language(case), case.inputs
    head: Any = model.image_head
    decoder: Any = model.image_decoder
    documents = [_document(model, ids.tolist()) for ids in inputs["input_ids"]]
    batch, slots = pack([[each] for each in documents])
    blank = torch.zeros(len(slots), 3, decoder.size, decoder.size)
    batch.written.image = images = WrittenImages(blank, False, torch.tensor([start for start, _ in slots]))
    embeddings, layout, _ = model.embed(batch)
    hidden = model.language(embeddings, layout)
    logits, labels = model.language.logits(hidden)[:, :-1], inputs["labels"][:, 1:]
    vectors = head.alphabet.output(head.bridged(image_states(head, hidden, images)))
    mean, _ = inputs["moments"].chunk(2, 1)
    denoising, times = decoder.denoising, inputs["timesteps"]
    plain = denoising.loss(
        decoder.condition(vectors), mean * denoising.autoencoder.scaling, inputs["noise"], times
    ).mean
    weighted = plain * denoising.scheduler.min_snr_weights(times, MIN_SNR).mean()
    caption = torch.linalg.vector_norm(vectors.flatten(1, 2) - inputs["caption_embeds"], dim=-1).mean()
    return {
        "text_loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()),
        "cap_loss": caption + weighted,
        "gen_loss_plain": plain,
        "gen_loss_snr": weighted,
        "total_image_loss": caption + weighted,
    }


def _language(case: Case) -> Model:
    """The model of a case; of the autoencoder of pixels only its latents' form is meant."""
    config, inputs = case.config, case.inputs
    known_value("nq", config["nq"], case.tensors["proj.query_embs"].shape[1])
    known_value("out", config["out"], output_width(below(case.tensors, "proj."), NEW))
    first, ids = config["vocab"] - config["n_sig"], inputs["input_ids"][0].tolist()
    begin = ids.index(first)
    signals = ids[begin : begin + 2 * config["n_sig"] - 1]
    unet = unet_shape(below(case.tensors, "unet."), heads=UNET_HEADS, groups=UNET_GROUPS)
    networks = {
        "unet": {**unet, "sample_size": inputs["noise"].shape[-1]},
        "vae": {**STAND_IN, "latent_channels": inputs["noise"].shape[1]},
        "scheduler": NOISE,
    }
    projector = output_projector("transformer", below(case.tensors, "proj."), NEW)
    language = {
        "model_type": "llama",
        "vocab_size": config["vocab"],
        "hidden_size": config["hidden"],
        "intermediate_size": config["inter"],
        "num_hidden_layers": config["layers"],
        "num_attention_heads": config["heads"],
    }
    spec = {
        "language": {"type": "causal", "config": language, "draw_marker": f"<{first}>"},
        **drawing(networks, projector, config["out"], signals),
    }
    recipe = load_recipe({"name": "next-gpt", "model": spec, "data": {}, "stages": []})
    model: Any = build_model(recipe.model, None).eval()
    names = NameMap(
        *output_rules(projector, NEW, "proj.", "heads.image.bridge."),
        Rule("unet.{rest...}", "image_decoder.denoising.denoiser.inner.{rest...}"),
        Rule("llm.{rest...}", "language.inner.{rest...}"),
    )
    ours, _ = names.to_ours(case.tensors, case.name)
    modules = {
        "heads.image.bridge.": model.image_head.bridge,
        "image_decoder.denoising.denoiser.": model.image_decoder.denoising.denoiser,
        "language.": model.language,
    }
    for prefix, module in modules.items():
        own = {key: tensor for key, tensor in ours.items() if key.startswith(prefix)}
        load_named(module, own, names, case.name, prefix=prefix)
    return model


def _document(model: Model, ids: list[int]) -> Document:
    """A row of a case, whose image begins behind its marker."""
    span, (marker,) = model.contract.span, model.contract.tokenizer.before_picture
    assert span is not None
    begin = ids.index(marker) + 1
    document = Document("a row of the case")
    document.add_text(ids[:begin], learn=True)
    image = CasePicture("written", Size(1, 1), torch.zeros(0))
    document.add_picture(image, Kind.WRITTEN, marker, span.opens, span.exposed, span.coordinates)
    document.add_text(ids[begin + span.length :], learn=True)
    return document.check(model.contract.context)


def _projected(case: Case, kind: str, names: tuple[str, str]) -> dict[str, Tensor]:
    spec = output_projector(kind, case.tensors, names)
    known_value("nq", case.config["nq"], spec["queries"])
    connector = _loaded(case, spec, output_rules(spec, names, "", CONNECTOR))
    read = case.inputs["hidden"] + case.inputs["input_embs"]
    projected = connector(read[:, None])
    distance = torch.linalg.vector_norm(projected - case.inputs["target"], dim=-1)
    return {"projected": projected, "l2_loss": distance, "l2_loss_mean": distance.mean()}


def _loaded(case: Case, spec: Mapping[str, Any], rules: Rules) -> Any:
    connector = parts.build("connector", spec, case.config["in"], case.config["out"]).eval()
    names = NameMap(*rules)
    load_case(connector, case, names, CONNECTOR)
    return connector
