"""Janus and Janus-Pro in the original's layout (arXiv 2410.13848, 2501.17811)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.data.documents import without_prompt
from chiasm.errors import CheckpointError
from chiasm.heads import GREEDY
from chiasm.heads.sampling import guided
from chiasm.inference.drawing import draw
from chiasm.inference.session import Session
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.convert import load
from chiasm.interop.families.deepseek_vl import PROMPT
from chiasm.interop.families.vqgan import signed, unsigned
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import DrawStep, forced
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.timm_siglip import siglip, siglip_rules
from chiasm.interop.shapes.towers import causal_config, normalisation, with_padding
from chiasm.views import Size

IMAGE = -1  # the id at each place of a picture in the case
PADDING = "image_padding"  # not in the original's config: the colour of its preprocessor's mean
GREY = (127, 127, 127)  # what the original pads pictures with
TOKENIZER = "gen_vision_model."
BEGIN, END = "<begin_of_image>", "<end_of_image>"  # round pictures, read and written
_TURNS = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<|User|>: {{ message['content'] }}\n\n"
    "{% elif message['role'] == 'assistant' %}<|Assistant|>: {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)
_SYSTEM = "{% if not messages or messages[0]['role'] != 'system' %}" + PROMPT + "\n\n{% endif %}"
TEMPLATES = {"default": "{{ bos_token }}" + _SYSTEM + _TURNS, "draw": "{{ bos_token }}" + _TURNS}


class Janus(Family, name="janus"):
    """deepseek-ai/Janus-1.3B and Janus-Pro: SigLIP to see, LlamaGen's tokenizer to draw.

    The config names the structures of the towers; one that is not known stands in it under its name.
    """

    looks_for = "config.json with model_type multi_modality and gen_vision_config"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "*.image_size": "the tower's params are used where a structure has one too",
        "*.output_dim": "the tensors tell",
        "*.n_embed": "the tensors tell",
        "*.input_dim": "the tensors tell",
        "*.cls": "one class is known at each place, which its tensors and options show",
        "gen_head_config.params.image_token_size": "the tensors tell",
        "*.ckpt_path": "where weights once were",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "multi_modality" and "gen_vision_config" in folder.config

    def read(self, folder: Folder) -> Original:
        return with_padding(folder, PADDING)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        seen, drawn = config["vision_config"]["params"], config["gen_head_config"]["params"]
        aligners = [config[name]["params"] for name in ("aligner_config", "gen_aligner_config")]
        if any(params["projector_type"] != "mlp_gelu" for params in aligners):
            raise CheckpointError("aligners of other projector_type than mlp_gelu are unknown")
        alphabet = {
            "type": "mlp",
            "code_width": aligners[1]["input_dim"],
            "depth": aligners[1]["depth"],
            "hidden": drawn["image_token_embed"],
        }
        return {
            "views": {
                "type": "letterbox",
                "size": seen["image_size"],
                "padding": tuple(config.get(PADDING, GREY)),
            },
            "encoder": siglip(seen, config),
            "connector": {"type": "mlp", "depth": aligners[0]["depth"]},
            "language": {
                **causal_config(config["language_config"], "llama"),
                **{"draw_marker": BEGIN, "draw_end": END, "empty_prompt": "padded"},
                **{"read_marker": BEGIN, "read_end": END},
            },
            **find_family("llamagen-vq").model(_tokenizer(config)),
            "heads": {"image": {"type": "raster", "alphabet": alphabet, "cells": False}},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        tokenizer = find_family("llamagen-vq").names(_tokenizer(config))
        return NameMap(
            *siglip_rules(self.model(config)["encoder"], "vision_model.vision_tower."),
            Rule("aligner.layers.{n}.{p}", "connector.layers.{n}.{p}"),
            Unused(TOKENIZER + "quantize.codebook_used"),
            *(Rule(TOKENIZER + str(rule.theirs), rule.ours) for rule in tokenizer.rules),
            Rule("gen_embed.weight", "heads.image.alphabet.codes.weight"),
            Rule("gen_aligner.layers.{n}.{p}", "heads.image.alphabet.adapter.{n}.{p}"),
            Rule("gen_head.output_mlp_projector.{p}", "heads.image.alphabet.output.0.{p}"),
            Rule("gen_head.vision_head.{p}", "heads.image.alphabet.output.2.{p}"),
            Unused("language_model.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("language_model.{rest...}", "language.inner.{rest...}"),
        )

    def chat_template(self, config: Mapping[str, Any]) -> dict[str, str]:
        return TEMPLATES

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        usual = {f"encoder.{name}": torch.full((3, 1, 1), 0.5) for name in ("mean", "deviation")}
        return usual | normalisation(folder)

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(PADDING), folder)


def _tokenizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """The image tokenizer in LlamaGen's words: VQ-16, or what the config says otherwise."""
    params = config["gen_vision_config"]["params"]
    multipliers = list(params.get("ch_mult", (1, 1, 2, 2, 4)))
    return {
        "res": params.get("res", 384),
        "ch": params.get("ch", 128),
        "encoder_ch_mult": multipliers,
        "decoder_ch_mult": multipliers,
        "z_channels": params.get("z_channels", 256),
        "codebook_size": params["image_token_size"],
        "codebook_embed_dim": params["n_embed"],
    }


def _published(config: Mapping[str, Any]) -> dict[str, Any]:
    """A case's config as config.json has it."""
    seen = config["siglip"]
    aligner = {"projector_type": "mlp_gelu", "depth": 2}
    drawn = {"ch_mult": config["ch_mult"], "ch": config["vq_ch"], "z_channels": config["z"]}
    drawn["res"] = config["gen_res"] * 2 ** (len(config["ch_mult"]) - 1)
    drawn |= {"image_token_size": config["codebook"], "n_embed": config["code_dim"]}
    return {
        "vision_config": {
            "params": {"model_name": "case", "image_size": seen["image_size"], "select_layer": -1}
        },
        "case": seen,
        "aligner_config": {"params": aligner},
        "gen_aligner_config": {"params": {**aligner, "input_dim": config["code_dim"]}},
        "gen_vision_config": {"params": drawn},
        "gen_head_config": {"params": {"image_token_embed": config["head_dim"]}},
        "language_config": config["llm"],
    }


@replays("janus", "MultiModalityCausalLM")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Reads a picture, learns codes, draws greedily with guidance, encodes."""
    layout, config, inputs = find_family("janus"), case.config, case.inputs
    original = Original(_published(config), case.tensors)
    model = load(layout, original, constants=layout.constants(Folder(case.path))).model
    head, tokenizer, ids = model.image_head, model.image_tokenizer, inputs["und_ids"]
    pixels = unnormalised(model.encoder, inputs["und_pixels"].flatten(0, 1))
    pictures = [CasePicture(f"{i}", Size(*tile.shape[-2:]), tile[None]) for i, tile in enumerate(pixels)]
    read = read_documents(model, [case_document(model, row, pictures, IMAGE, repeated=True) for row in ids])

    prompt, codes = inputs["prompt_ids"], inputs["train_codes"].view(-1, *tokenizer.grid)
    words = model.language.tokenizer
    words.draw, words.inner.pad_token = int(prompt[-1]), f"<{config['pad_id']}>"
    question = case_document(model, prompt, [], IMAGE, repeated=False)
    span = head.prepare(codes)
    hidden = forced(model, [question] * len(codes), span)
    prompts = [question] * config["parallel"]
    step = DrawStep(Session(model, prompts + [without_prompt(model.contract, each) for each in prompts]))
    first = guided(head.alphabet.output(step.start), config["cfg_weight"])
    drawn = draw(model, prompts, replace(GREEDY, guidance=config["cfg_weight"]))
    return {
        "und_image_embeds": model.connector(model.encoder(pixels)),
        "und_logits": read.logits,
        "gen_logits": head.alphabet.output(hidden),
        "gen_loss": head.losses(hidden, span)["image"].mean,
        "first_cfg_logits": first,
        "greedy_codes": drawn.flatten(1),
        "greedy_image": signed(tokenizer.render(tokenizer.quantize.vectors(drawn))),
        "vq_codes": tokenizer.quantize.encode(tokenizer.latents(unsigned(inputs["edit_img"]))).flatten(1),
    }
