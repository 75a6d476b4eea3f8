"""Replays of LaVIT's parts: tokenizer, decoder of features, diffusion, and codes from the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.decoders.lavit_diffusion import WIDTHS
from chiasm.decoders.schedulers.diffusers_schedulers import DDIM
from chiasm.errors import CheckpointError
from chiasm.heads import GREEDY, DrawingState, finish
from chiasm.inference.session import Session
from chiasm.interop.convert import build_model, load_named
from chiasm.interop.families.lavit import BEGIN, END, FIRST, NETWORKS, STRAY
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import DrawStep
from chiasm.interop.parity.replay import case_document, load_case, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.diffusers_shape import added_shape, unet_shape, vae_shape
from chiasm.interop.shapes.lavit import (
    condition_rules,
    decoder_shape,
    detokenizer_rules,
    tokenizer,
    tokenizer_rules,
    tower_rules,
)
from chiasm.model import Model
from chiasm.nn.attention_pool import AttentionPool
from chiasm.nn.generators import Generators
from chiasm.recipe import load_recipe
from chiasm.tokenizers.detokenizer import Detokenizer

PADDING = 2  # what the original puts behind the end
# What the networks of the cases have and their tensors do not tell.
HEADS, UNET_GROUPS, VAE_GROUPS = 4, 16, 8
TOKENIZER = {
    "clip_dim": "of the tower's head, which the tokenizer does without",
    "model_path": "where its weights came from",
    "use_xformers": "speed only",
}
DETOKENIZER = {
    **dict.fromkeys(
        ("img_size", "patch_size", "embed_dim", "depth", "mlp_ratio"), "as the tensors' shapes say"
    ),
    "token_nums": "an input says them too",
    **dict.fromkeys(("drop_rate", "attn_drop_rate"), "in training only"),
}
SCALING = {True: 0.13025, False: 0.18215}  # of SDXL's and Stable Diffusion's latents


@replays("lavit", "DynamicVisualTokenizer", without_effect=TOKENIZER)
@torch.no_grad()
def replay_tokenizer(case: Case) -> dict[str, Tensor]:
    """Pictures to codes, and to what the language model reads, of the patches that the case's noise keeps."""
    config, slot = case.config, "image_tokenizer"
    model = parts.build(slot, tokenizer(config)).eval()
    projection = nn.Linear(config["width"], len(case.tensors["vit_proj.bias"]))
    both = nn.ModuleDict({slot: model, "projection": projection})
    names = NameMap(
        *tower_rules(config, "encoder.", slot + ".encoder"),
        Rule("vit_proj.{p}", "projection.{p}"),
        *tokenizer_rules(config, ""),
    )
    load_case(both, case, names)
    pixels = unnormalised(model.encoder, case.inputs["img"])
    seen = model.select(pixels, case.inputs["gumbels"])
    retained = seen.kept > 0.5
    codes = model.encode(pixels, case.inputs["gumbels"])[:, 0]
    rows = [row[row != model.end] for row in codes]
    begin, end = torch.tensor([BEGIN]), torch.tensor([END])
    return {
        "vit_features": model.encoder.tokens(pixels),
        "pred_score": seen.scores,
        "keep": retained.long(),
        "merged": seen.merged,
        "token_nums": retained.sum(1),
        "ids": torch.cat([each for row in rows for each in (begin, row + FIRST, end)]),
        "quant": model.quantizer.vectors[torch.cat(rows)],
        "to_quant": seen.latents[retained],
        "llm_features": projection(seen.merged[retained])[:, : case.outputs["llm_features"].shape[1]],
    }


@replays("lavit", "HighresVQDecoder", "VQDecoder", without_effect=DETOKENIZER)
@torch.no_grad()
def replay_detokenizer(case: Case) -> dict[str, Tensor]:
    """Vectors of codes to the conditions of a diffusion model."""
    config, shape = case.config, decoder_shape(case.tensors)
    cells, features = case.tensors["pos_embed"].shape[1], shape["out_width"]
    module: Any = nn.Module()
    module.detokenizer = Detokenizer(
        config["in_chans"],
        shape["width"],
        shape["depth"],
        config["num_heads"],
        shape["hidden"],
        cells,
        features,
    )
    high = config.get("highres", "unet_proj_1.weight" in case.tensors)
    if high:
        module.token_projections = nn.ModuleList(nn.Linear(features, width) for width in WIDTHS)
        module.pool = AttentionPool(cells, features, config["num_heads"], WIDTHS[1])
    else:
        module.projection = nn.Linear(features, len(case.tensors["unet_proj.bias"]))
    names = NameMap(
        *detokenizer_rules(shape, cells, "", "image_decoder.detokenizer."),
        *condition_rules("", "image_decoder"),
    )
    load_case(module.eval(), case, names, "image_decoder.")
    counts = case.inputs["token_nums"].tolist()
    vectors = nn.utils.rnn.pad_sequence(case.inputs["codes"].split(counts), batch_first=True)
    meant = torch.arange(max(counts)) < case.inputs["token_nums"][:, None]
    rebuilt = module.detokenizer(vectors, meant.float())
    if not high:
        return {"prompt_embeds": module.projection(rebuilt)}
    tokens = torch.cat([project(rebuilt) for project in module.token_projections], dim=-1)
    return {"prompt_embeds": tokens, "pooled": module.pool(rebuilt)}


@replays("lavit", "LaVITforGeneration.generate_image pixel decoding", without_effect={})
@torch.no_grad()
def replay_pixels(case: Case) -> dict[str, Tensor]:
    """Codes to pixels, from the case's own noise."""
    config, high = case.config, case.config["highres"]
    decoder, codes = _decoder(case, high), _codes(case, config)
    condition = decoder.condition(decoder.features(codes))
    autoencoder = decoder.denoising.autoencoder
    noise = case.inputs["noise"]
    latents = decoder.latents(codes, Generators(range(len(noise))), noise) / autoencoder.scaling
    stride = condition.tokens.shape[-1] // case.outputs["prompt_embeds"].shape[-1]
    outputs = {
        "latents_scaled": latents,
        "decoded": 2 * autoencoder.pixels(latents) - 1,
        "prompt_embeds": condition.tokens[..., ::stride],
    }
    return outputs | ({"pooled": condition.added["text_embeds"]} if high else {})


def _codes(case: Case, config: Mapping[str, Any]) -> Tensor:
    """The ids of each picture as a row of codes; words among them are no codes."""
    cells = config["grid"] ** 2
    rows = torch.full((len(config["ntok"]), 1, cells), config["n_code"])
    for i, row in enumerate(rows):
        codes = case.inputs[f"tokens_{i}"] - FIRST
        codes = codes[codes >= 0]
        row[0, : len(codes)] = codes
    return rows


def _decoder(case: Case, high: bool) -> Any:
    """The image decoder of a case, beside a tokenizer of which only the codebook counts."""
    config, theirs = case.config, "tokenizer_decoder."
    code_width = case.tensors["quantize.embedding.weight"].shape[1]
    unet, vae, shape = _below(case, "unet."), _below(case, "vae."), decoder_shape(_below(case, theirs))
    pictures = parts.build(
        "image_tokenizer",
        {
            "type": "lavit",
            "encoder": {"type": "patches", "patch_size": 2},
            "size": 2 * config["grid"],
            "codebook_size": config["n_code"],
            "code_width": code_width,
            "depth": 1,
            "heads": 1,
            "hidden": 1,
            "decoder_depth": 0,
        },
    )
    pictures.quantizer.vectors.copy_(case.tensors["quantize.embedding.weight"])
    network = unet_shape(unet, heads=HEADS, groups=UNET_GROUPS)
    spec = {
        "type": "lavit_diffusion" if high else "lavit_diffusion_sd15",
        "size": config["size"],
        "steps": config["steps"],
        "guidance": config["gs"],
        "heads": HEADS,
        **shape,
        "unet": network | (added_shape(unet, WIDTHS[1]) if high else {}),
        "vae": vae_shape(vae, groups=VAE_GROUPS, scaling=SCALING[high]),
        "scheduler": DDIM,
    }
    empty = {**case.tensors, **case.inputs}.get("uncond_embeddings")
    if not high:
        if empty is None:
            raise CheckpointError(f"{case.name} has no uncond_embeddings, which guidance leads away from")
        spec["empty_tokens"] = empty.shape[-2]
    decoder = parts.build("image_decoder", spec, DecoderContext(pictures.space, pictures)).eval()
    names = NameMap(
        *detokenizer_rules(shape, config["grid"] ** 2, theirs, "image_decoder.detokenizer."),
        *condition_rules(theirs, "image_decoder"),
        *[
            Rule(f"{theirs}.{{rest...}}", f"image_decoder.denoising.{ours}.inner.{{rest...}}")
            for theirs, ours in NETWORKS.items()
        ],
        Rule("uncond_embeddings", "image_decoder.empty_text"),
        Unused("quantize.{rest...}"),
    )
    tensors = case.tensors if empty is None else {**case.tensors, "uncond_embeddings": empty.flatten(0, -2)}
    ours, _ = names.to_ours(tensors, case.name)
    load_named(decoder, ours, names, case.name, prefix="image_decoder.")
    return decoder


def _below(case: Case, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in case.tensors.items() if key.startswith(prefix)}


@replays("lavit", "LaVITforGeneration.generate_image_tokenids", without_effect={})
@torch.no_grad()
def replay_codes(case: Case) -> dict[str, Tensor]:
    """Greedy codes after prompts, with the lone marker, with another prompt, and with nothing to lead away from."""
    model, inputs = _language(case), case.inputs
    prompts = [
        torch.cat([row[mask.bool()], torch.tensor([BEGIN])])
        for row, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)
    ]
    lone = [torch.tensor([BEGIN])] * len(prompts)
    codes = slice(BEGIN, None)
    return {
        "tokens_cfg": _drawn(model, prompts, lone, case.config),
        "tokens_neg_prompt": _drawn(model, prompts, list(inputs["uncond_ids"]), case.config),
        "tokens_nocfg": _drawn(model, prompts, None, case.config),
        "first_logits_cond": model.language.logits(_session(model, prompts).last)[:, codes],
        "first_logits_uncond": model.language.logits(_session(model, lone).last)[:, codes],
    }


def _drawn(
    model: Model, prompts: Sequence[Tensor], without: Sequence[Tensor] | None, config: Mapping[str, Any]
) -> Tensor:
    """What the original returns: the marker, the ids that were drawn, and padding behind the end."""
    head: Any = model.image_head
    step, progress = DrawStep(_session(model, [*prompts, *(without or ())])), DrawingState(Generators([]))
    sampling = replace(GREEDY, guidance=config["scale"] if without else 1.0)
    finish(head.write(step.start, sampling, progress=progress), step)
    drawn: Any = progress.values
    ids = head.alphabet.words(drawn)
    ids = torch.where(head.before_end(drawn, itself=True), ids, PADDING)
    return torch.cat([torch.full((len(ids), 1), BEGIN), ids], 1)


def _session(model: Model, rows: Sequence[Tensor]) -> Session:
    return Session(model, [case_document(model, row, [], image=-1, repeated=False) for row in rows])


def _language(case: Case) -> Model:
    """LaVIT's language model with its head; of the image tokenizer only the number of codes is meant."""
    config = case.config
    language = {
        "type": "causal",
        "config": {
            "model_type": "llama",
            "vocab_size": FIRST + config["n_code"],
            "hidden_size": config["hidden"],
            "intermediate_size": config["inter"],
            "num_hidden_layers": config["layers"],
            "num_attention_heads": config["heads"],
        },
        "draw_marker": f"<{BEGIN}>",
    }
    spec = {
        "language": language,
        "image_tokenizer": {
            "type": "lavit",
            "encoder": {"type": "patches", "patch_size": 2},
            "size": 2 * config["max_new"],  # room enough
            "codebook_size": config["n_code"],
            "code_width": 1,
            "depth": 1,
            "heads": 1,
            "hidden": 1,
            "decoder_depth": 0,
            "most": config["max_new"],
        },
        "heads": {
            "image": {
                "type": "variable",
                "alphabet": {"type": "shared", "first": FIRST, "end": END, "stray": STRAY},
                "shortest": config["min_new"],
            },
        },
    }
    recipe = load_recipe({"name": "lavit", "model": spec, "data": {}, "stages": []})
    model: Any = build_model(recipe.model, None).eval()
    names = NameMap(
        Unused("tokenizer_decoder.{rest...}"), Rule("llama_model.{rest...}", "language.inner.{rest...}")
    )
    load_case(model.language, case, names, "language.")
    return model
