"""BLIP-2's stage 1 (arXiv 2301.12597) with LAVIS's tensor names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from chiasm import parts
from chiasm.connectors.qformer_stage1 import Stage1
from chiasm.interop.families.blip2_hf import qformer_rules
from chiasm.interop.mapping import NameMap, Reshape, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import load_case, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.activations import activation_name
from chiasm.interop.shapes.eva import eva, eva_rules

BEGIN = 1  # [DEC], which begins a caption, in the cases' small vocabulary


@replays("qformer", "Blip2Qformer")
@torch.no_grad()
def replay_stage1(case: Case) -> dict[str, Tensor]:
    """LAVIS's stage 1; with two pictures the wrong one is the other."""
    encoder, stage = _stage1(case)
    ids = case.inputs["text_ids"]
    grid = encoder(unnormalised(encoder, case.inputs["image"]))
    losses = {name: loss.mean for name, loss in stage.losses(grid, ids).items()}
    return {
        "image_embeds": grid[:, 0],
        "query_output": stage.read_images(grid[:, 0]),
        "text_output": stage.read_texts(ids),
        "loss": torch.stack(list(losses.values())).sum(),
        "loss_itc": losses["contrastive"],
        "loss_itm": losses["matching"],
        "loss_lm": losses["captioning"],
    }


def _stage1(case: Case) -> tuple[Any, Stage1]:
    config = case.config
    bert, queries = config["bert"], config["num_query_token"]
    spec = {**eva(config["vit"]), "final_norm": True}
    encoder = parts.build("encoder", spec)
    stage = Stage1(
        encoder.width,
        vocabulary=bert["vocab_size"],
        queries=queries,
        width=bert["hidden_size"],
        depth=bert["num_hidden_layers"],
        heads=bert["num_attention_heads"],
        hidden=bert["intermediate_size"],
        activation=activation_name(bert.get("hidden_act", "gelu")),
        cross_every=bert["cross_attention_freq"],
        epsilon=bert["layer_norm_eps"],
        context=bert["max_position_embeddings"],
        shared=config["embed_dim"],
        begin=BEGIN,
    )
    shape = (queries, bert["hidden_size"])
    head = "Qformer.cls.predictions."
    names = NameMap(
        *eva_rules(spec, "visual_encoder."),
        Rule("ln_vision.{p}", "encoder.final_norm.{p}"),
        Rule("query_tokens", "stage.queries", Reshape((1, *shape), shape)),
        Unused("Qformer.bert.embeddings.position_ids"),
        Rule("Qformer.bert.embeddings.LayerNorm.{p}", "stage.trunk.norm.{p}"),
        Rule("Qformer.bert.embeddings.word_embeddings.weight", "stage.words.weight"),
        Rule("Qformer.bert.embeddings.position_embeddings.weight", "stage.places.weight"),
        *qformer_rules("Qformer.bert.encoder.", "self", "stage.", words=True),
        Rule(head + "transform.dense.{p}", "stage.transform.{p}"),
        Rule(head + "transform.LayerNorm.{p}", "stage.transform_norm.{p}"),
        Rule(head + "decoder.{p}", "stage.head.{p}"),
        Unused(head + "bias"),  # the decoder's own, once more
        Rule("vision_proj.{p}", "stage.picture_out.{p}"),
        Rule("text_proj.{p}", "stage.text_out.{p}"),
        Rule("itm_head.{p}", "stage.matching.{p}"),
        Rule("temp", "stage.temperature"),
    )
    modules = nn.ModuleDict({"encoder": encoder, "stage": stage}).eval()
    load_case(modules, case, names)
    return encoder, stage
