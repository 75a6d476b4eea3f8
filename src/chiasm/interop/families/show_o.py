"""Show-o in the original's layout (arXiv 2408.12528), and the replay of its whole model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.heads import GREEDY, Ask, finish
from chiasm.heads.sampling import guided
from chiasm.inference.session import Session
from chiasm.interop.config import reader
from chiasm.interop.convert import load
from chiasm.interop.families.show_o_vq import ShowOTokenizer
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import DrawStep
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.towers import causal_config
from chiasm.language.turns import IMAGES_AHEAD
from chiasm.nn.losses import cross_entropy
from chiasm.sequence import IGNORE, Document
from chiasm.sequence.layout import Layout

# Behind the words of Phi-1.5 stand these, then the codes, then the mask.
MARKERS = (
    "[PAD]",
    "<|soi|>",
    "<|eoi|>",
    "<|sov|>",
    "<|eov|>",
    "<|t2i|>",
    "<|mmu|>",
    "<|t2v|>",
    "<|v2v|>",
    "<|lvg|>",
)
TEMPLATES = {
    "default": "{% for message in messages %}{% if message['role'] == 'user' %}"
    + IMAGES_AHEAD
    + "{{ bos_token if loop.first else ' ' }}USER: \n{{ message['content'] }} ASSISTANT:"
    "{% elif message['role'] == 'assistant' %} {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }}\n{% endif %}{% endfor %}",
    "draw": "{% for message in messages %}{% if message['role'] == 'user' %}<|t2i|>{{ bos_token }}"
    "{{ message['content'] }}{{ eos_token }}{% else %}{{ message['content'] }}{% endif %}{% endfor %}",
}
TOKENIZER = "vq_model."  # our prefix for the tensors of showlab/magvitv2
PHI = {"partial_rotary_factor": 0.5, "max_position_embeddings": 2048}  # microsoft/phi-1_5


class ShowO(Family, name="show-o"):
    """showlab/show-o, with the files of showlab/magvitv2 in a folder of their own inside it.

    config.json names Phi only; its structure follows from the tensors. Pictures are read as codes, in one
    attention block with the task's marker.
    """

    looks_for = "config.json with _class_name Showo, and a folder inside with _class_name MAGVITv2"
    without_effect: ClassVar = {
        "_class_name": "read by `recognises`",
        "_diffusers_version": "where the config came from",
        "_name_or_path": "where the config came from",
        "_version": "where the config came from",
        "llm_model_path": "where the language model's structure came from, which the tensors say",
        "load_from_showo": "where the weights came from",
        **{f"vq_model.{key}": reason for key, reason in ShowOTokenizer.without_effect.items()},
    }

    def recognises(self, folder: Folder) -> bool:
        return str(folder.config.get("_class_name", "")).lower() == "showo"

    def read(self, folder: Folder) -> Original:
        inside = [Folder(path) for path in sorted(folder.path.iterdir()) if path.is_dir()]
        drawers = [each for each in inside if find_family("show-o-vq").recognises(each)]
        if len(drawers) != 1:
            raise CheckpointError(
                f"{folder.path} must have one folder with the files of showlab/magvitv2 inside it "
                f"(config.json with _class_name MAGVITv2); it has {len(drawers)}"
            )
        tensors = dict(folder.tensors)
        config = {**folder.config, "phi": _phi(tensors), "vq_model": drawers[0].config}
        return Original(config, tensors | {TOKENIZER + key: t for key, t in drawers[0].tensors.items()})

    def write(self, original: Original, folder: Any) -> None:
        config = {key: value for key, value in original.config.items() if key not in ("phi", "vq_model")}
        drawer = {
            k.removeprefix(TOKENIZER): t for k, t in original.tensors.items() if k.startswith(TOKENIZER)
        }
        own = {key: t for key, t in original.tensors.items() if not key.startswith(TOKENIZER)}
        (folder / "magvitv2").mkdir(exist_ok=True)
        super().write(Original(config, own), folder)
        super().write(Original(original.config["vq_model"], drawer), folder / "magvitv2")

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        if config.get("w_clip_vit"):
            raise CheckpointError(
                "w_clip_vit is True: Show-o with a CLIP projector cannot be imported. By its mask "
                "(create_attention_mask_for_mmu_vit) <|mmu|>, the system prompt and <|soi|> see the whole image "
                "behind them, but of each other only what stands before; Chiasm's attention rule has no form for "
                "that, as what sees an image ahead of itself is of the image's block, in which all see each other. "
                "The form that reads codes (showlab/show-o) is known"
            )
        words, vocabulary = config["llm_vocab_size"], config["vocab_size"]
        config.only("codebook_size", vocabulary - words - len(MARKERS) - 1)
        config.only("mask_token_id", vocabulary - 1)
        drawer = find_family("show-o-vq").model(config["vq_model"])
        if "num_vq_tokens" in config:  # what draws larger images has the same image tokenizer
            steps = 2 ** (len(drawer["image_tokenizer"]["multipliers"]) - 1)
            drawer["image_tokenizer"]["size"] = math.isqrt(config["num_vq_tokens"]) * steps
        soi, eoi, mmu = (words + MARKERS.index(marker) for marker in ("<|soi|>", "<|eoi|>", "<|mmu|>"))
        head = {
            "type": "masked",
            "alphabet": {"type": "shared", "first": words + len(MARKERS)},
            "steps": 18,
            "cells": False,
            **{"before": [soi], "before_read": [mmu, soi], "behind": [eoi]},
        }
        language = causal_config({**PHI, **config["phi"], "vocab_size": vocabulary}, "phi")
        return {
            "language": {**language, "draw_marker": None, "empty_prompt": "template"},
            **drawer,
            "heads": {"image": head},
        }

    def chat_template(self, config: Mapping[str, Any]) -> dict[str, str]:
        return TEMPLATES

    def added_tokens(self, config: Mapping[str, Any]) -> dict[str, int]:
        return {marker: config["llm_vocab_size"] + i for i, marker in enumerate(MARKERS)}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        tokenizer = find_family("show-o-vq").names(config["vq_model"])
        alone = not any(key.startswith(TOKENIZER) for key in keys)  # a case of the language model
        return NameMap(
            *([OwnTensors("image_tokenizer.{rest...}")] if alone else []),
            Unused(TOKENIZER + "quantize.embedding"),
            Unused(TOKENIZER + "quantize.power_vals"),
            *(Rule(TOKENIZER + str(rule.theirs), rule.ours) for rule in tokenizer.rules),
            Unused("showo.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("showo.{rest...}", "language.inner.{rest...}"),
        )


def _phi(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The structure of the language model, from its tensors."""
    layer = "showo.model.layers.0."
    needed = (
        "showo.model.embed_tokens.weight",
        layer + "mlp.fc1.weight",
        layer + "self_attn.q_layernorm.weight",
    )
    lacking = [name for name in needed if name not in tensors]
    if lacking:
        raise CheckpointError(f"the checkpoint of Show-o lacks {', '.join(lacking)}")
    width, per_head = tensors[needed[0]].shape[1], tensors[needed[2]].shape[0]
    layers = {name.split(".")[3] for name in tensors if name.startswith("showo.model.layers.")}
    return {
        "hidden_size": width,
        "intermediate_size": tensors[needed[1]].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // per_head,
        "qk_layernorm": True,
    }


@replays("show_o", "Showo")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Masks, logits and losses of all three tasks, and pictures drawn with guidance and without."""
    config, inputs = case.config, case.inputs
    model = load(find_family("show-o"), Original(_published(config), case.tensors)).model
    head, words = model.image_head, config["llm_vocab"]
    head.steps, head.schedule = config["steps"], config["schedule"]
    conditional, empty, learnt = inputs["t2i_ids"], inputs["t2i_uncond_ids"], inputs["train_ids"]
    soi = config["max_len"] + 1

    def logits(ids: Tensor) -> Tensor:
        return model.language.logits(model.language(model.language.embed(ids), _layout(model, ids, words)))

    def drawn(prompts: list[Tensor], guidance: float) -> tuple[Tensor, list[Tensor]]:
        """The codes, and the likeliest at every cell, step by step."""
        step, likeliest = DrawStep(Session(model, [_prompt(row, words, soi) for row in prompts])), []

        def read(ask: Ask) -> Tensor:
            hidden = step(ask)
            likeliest.append(
                guided(head.alphabet.logits(hidden[:, list(head.layout().rows)]), guidance).argmax(-1)
            )
            return hidden

        codes = finish(head.write(step.start, replace(GREEDY, guidance=guidance)), read)
        return codes.flatten(1), likeliest

    both, learnt_logits, labels = torch.cat([conditional, empty]), logits(learnt), inputs["train_labels"]
    codes, likeliest = drawn(list(both), 1 + config["gs"])  # the original counts guidance from 0
    return {
        "t2i_attention_allowed": _layout(model, both, words).allowed[:, None].long(),
        "t2i_logits": logits(conditional),
        "train_logits": learnt_logits,
        "loss_t2i": _mean(learnt_logits[:1, soi:], labels[:1, soi:]),
        "loss_lm": _mean(learnt_logits[1:2, :-1], labels[1:2, 1:]),
        "loss_mmu": _mean(learnt_logits[2:, :-1], labels[2:, 1:]),
        "greedy_ids": codes,
        "greedy_argmax_per_step": torch.stack(likeliest),
        "greedy_ids_nocfg": drawn(list(conditional), 1.0)[0],
    }


def _published(config: Mapping[str, Any]) -> dict[str, Any]:
    """A case's config as an import reads it; the case has no image tokenizer, so any of its grid and codes does."""
    side, bits = round(config["n_vq"] ** 0.5), (config["codebook"] - 1).bit_length()
    tokenizer = {"resolution": side, "ch": 32, "z": bits, "ch_mult": [1], "dec_mult": [1]}
    return {
        "phi": config["phi"],
        "llm_vocab_size": config["llm_vocab"],
        "vocab_size": config["llm_vocab"] + config["n_special"] + config["codebook"] + 1,
        "vq_model": {**tokenizer, "enc_blocks": [1], "dec_blocks": [1], "attn_resolutions": []},
    }


def _layout(model: Any, ids: Int[Tensor, "b t"], words: int) -> Layout:
    """The attention rule of rows of ids, and positions: padding on the left is a document of its own."""
    pad, soi, mmu = (words + MARKERS.index(marker) for marker in ("[PAD]", "<|soi|>", "<|mmu|>"))
    layout = Layout.causal(*ids.shape)
    real = ((ids != pad).cumsum(1) > 0).long()
    opens = layout.opens.clone()
    for r, c in (ids == soi).nonzero().tolist():
        read = c > 0 and int(ids[r, c - 1]) == mmu
        start, span = (c - 1, model.image_head.read_layout()) if read else (c, model.image_head.layout())
        opens[r, start : start + span.length] = torch.tensor(span.opens)
    lengths = (1 - real).sum(1, keepdim=True)
    positions = torch.arange(ids.shape[1]) - real * lengths
    return replace(layout, documents=real, opens=opens, positions=positions)


def _prompt(row: Int[Tensor, " t"], words: int, soi: int) -> Document:
    row_document = Document("a row of the case")
    row_document.add_text([id for id in row[:soi].tolist() if id != words], learn=False)
    return row_document


def _mean(logits: Tensor, labels: Tensor) -> Tensor:
    learnt = labels != IGNORE
    return cross_entropy(logits[learnt], labels[learnt]) / learnt.sum()
