"""VAR: the transformer and its tokenizer, two files (arXiv 2404.02905)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from chiasm.errors import CheckpointError
from chiasm.heads import GREEDY
from chiasm.inference.drawing import decode, draw
from chiasm.interop.convert import load
from chiasm.interop.families import var_vq
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import Chain, NameMap, Reshape, Rule, Split, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import forced, prompt
from chiasm.interop.parity.verify import replays
from chiasm.storage.weights import find_named
from chiasm.tokenizers import join_scales, split_scales

HEAD_WIDTH = 64  # of every published model
TOKENIZER = (  # arguments of the tokenizer that stand beside the transformer's
    "beta",
    "ch_mult",
    "default_qresi_counts",
    "num_res_blocks",
    "quant_conv_ks",
    "quant_resi",
    "share_quant_resi",
    "using_znorm",
)
TRAINING = ("drop_rate", "attn_drop_rate", "drop_path_rate", "dropout", "test_mode")
INITIAL = ("init_adaln", "init_adaln_gamma", "init_head", "init_std")


class Var(Family, name="var"):
    """var_d*.pth and vae_ch*.pth without a config: the structure is read from the tensors.

    The original's arguments are its config; a config.json may tell what tensors do not (heads, where attention is
    plain). Names of the transformer's tensors begin with `var.` here, those of the tokenizer's with `vae.`.
    """

    looks_for = "one var_*.pth and one vae_ch*.pth"
    without_effect: ClassVar = {
        **dict.fromkeys(TRAINING, "in training only"),
        **dict.fromkeys(INITIAL, "the weights are loaded"),
        "flash_if_available": "speed only",
        "fused_if_available": "speed only",
        "device": "where the original is to run",
    }

    def recognises(self, folder: Folder) -> bool:
        return all(len(list(folder.path.glob(form))) == 1 for form in ("var_*.pth", "vae_ch*.pth"))

    def read(self, folder: Folder) -> Original:
        file, tokenizer = (find_named(folder.path, form) for form in ("var_*.pth", "vae_ch*.pth"))
        drawn, seen = folder.read(file), folder.read(tokenizer)
        tensors = {f"var.{key}": each for key, each in drawn.items()}
        tensors |= {f"vae.{key}": each for key, each in seen.items()}
        return Original({**structure(drawn, seen, str(folder.path)), **folder.config}, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        width = config["embed_dim"]
        head = {
            "type": "scales",
            "alphabet": {"type": "own", "bias": True, "deviation": 0.02 * (3 * width) ** -0.5},
            "unconditional": config.get("cond_drop_rate", 0.1),
        }
        return {
            "language": {
                "type": "var",
                "width": width,
                "depth": config["depth"],
                "heads": config["num_heads"],
                "hidden": round(width * config.get("mlp_ratio", 4.0)),
                "shared": config.get("shared_aln", False),
                "cosine": config.get("attn_l2_norm", False),
                "epsilon": config.get("norm_eps", 1e-6),
                "classes": config.get("num_classes", 1000),
            },
            "image_tokenizer": var_vq.part(_tokenizer(config)),
            "heads": {"image": head},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        width, heads, scales = config["embed_dim"], config["num_heads"], config["patch_nums"]
        cells, block, ours = sum(side * side for side in scales), "var.blocks.{n}.", "language.layers.{n}."
        finer = Split((1, len(scales) - 1))
        return NameMap(
            Unused("var.lvl_1L"),
            Unused("var.attn_bias_for_masking"),
            Unused(block + "attn.zero_k_bias"),
            Rule("var.class_emb.weight", "language.table.weight"),
            Rule("var.pos_start", "language.start", Reshape((1, 1, width), (1, width))),
            Rule("var.lvl_embed.weight", ("language.level", "heads.image.levels.weight"), finer),
            Rule(
                "var.pos_1LC",
                ("language.cell", "heads.image.cells.weight"),
                Chain((Reshape((1, cells, width), (cells, width)), Split((1, cells - 1)))),
            ),
            Rule("var.word_embed.{w}", "heads.image.read.{w}"),
            Rule("var.head.{w}", "heads.image.alphabet.output.{w}"),
            Rule("var.head_nm.ada_lin.1.{w}", "language.steer_norm.make.{w}"),
            Rule("var.shared_ada_lin.1.{w}", "language.steer.make.{w}"),
            Rule(block + "ada_lin.1.{w}", ours + "steer.make.{w}"),
            Rule(block + "ada_gss", ours + "steer.own", Reshape((1, 1, 6, width), (6, width))),
            Rule(block + "attn.scale_mul_1H11", ours + "sharpness", Reshape((1, heads, 1, 1), (heads,))),
            Rule(block + "attn.mat_qkv.weight", ours + "qkv.weight"),
            Rule(block + "ffn.fc1.{w}", ours + "first.{w}"),
            Rule(block + "ffn.fc2.{w}", ours + "second.{w}"),
            Rule(block + "attn.{rest...}", ours + "{rest...}"),
            *var_vq.rules(_tokenizer(config), "vae."),
        )

    def write(self, original: Original, folder: Path) -> None:
        config = original.config
        drawn = f"var_d{config['depth']}.pth"
        seen = f"vae_ch{config['ch']}v{config['V']}z{config['Cvae']}.pth"
        for file, prefix in ((drawn, "var."), (seen, "vae.")):
            torch.save(
                {k.removeprefix(prefix): t for k, t in original.tensors.items() if k.startswith(prefix)},
                folder / file,
            )


def structure(drawn: Mapping[str, Tensor], seen: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The original's arguments, as far as tensors tell them."""
    try:
        width, code_width = drawn["word_embed.weight"].shape
        levels = drawn["lvl_1L"].flatten().bincount().tolist()
        classes, hidden = len(drawn["class_emb.weight"]) - 1, len(drawn["blocks.0.ffn.fc1.weight"])
        scales = [math.isqrt(count) for count in levels]
        tokenizer = var_vq.structure(seen, where, scales)
    except KeyError as error:
        raise CheckpointError(f"{where} is not VAR: it lacks {error}") from None
    sharpness = drawn.get("blocks.0.attn.scale_mul_1H11")
    return {
        "V": tokenizer["vocab_size"],
        "Cvae": code_width,
        **{key: tokenizer[key] for key in ("ch", "share_quant_resi", "quant_conv_ks")},
        "patch_nums": scales,
        "num_classes": classes,
        "depth": len({key.split(".")[1] for key in drawn if key.startswith("blocks.")}),
        "embed_dim": width,
        "mlp_ratio": hidden / width,
        "num_heads": width // HEAD_WIDTH if sharpness is None else sharpness.numel(),
        "shared_aln": "shared_ada_lin.1.weight" in drawn,
        "attn_l2_norm": sharpness is not None,
    }


def _tokenizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer in the words of its own family."""
    renamed = {"vocab_size": config["V"], "z_channels": config["Cvae"], "v_patch_nums": config["patch_nums"]}
    return {
        **{key: config[key] for key in TOKENIZER if key in config},
        **renamed,
        "ch": config.get("ch", 160),
    }


@replays("var", "VAR")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Teacher-forced logits behind a class and behind none, and greedy pictures with guidance and without."""
    config = {key: value for key, value in case.config.items() if key != "cfg_scale"}
    model = load(find_family("var"), Original(config, case.tensors)).model
    head, quantizer = model.image_head, model.image_tokenizer.quantize
    classes, sides = case.inputs["label_B"].tolist(), quantizer.scales
    codes = join_scales(
        [case.inputs[f"gt_idx_{i}"].unflatten(1, (side, side)) for i, side in enumerate(sides)]
    )
    span = head.prepare(codes)
    prompts = [prompt([each]) for each in classes]
    hidden = forced(model, prompts, span)
    empty = forced(model, [prompt([model.language.tokenizer.begin])] * len(classes), span)
    logits = head.alphabet.output(hidden)
    terms = functional.cross_entropy(rearrange(logits, "n m k -> n k m"), span.targets, reduction="none")
    drawn, plain = (
        draw(model, prompts, replace(GREEDY, guidance=1 + scale)) for scale in (case.config["cfg_scale"], 0.0)
    )
    return {
        "logits": logits,
        "logits_null": head.alphabet.output(empty),
        "loss_per_sample": terms.mean(1),
        "var_input": quantizer.next_inputs(codes),
        "img_greedy": decode(model, drawn),
        **_by_scale("greedy_idx", drawn, sides),
        **_by_scale("greedy_nocfg_idx", plain, sides),
    }


def _by_scale(name: str, codes: Tensor, sides: Sequence[int]) -> dict[str, Tensor]:
    parts = split_scales(codes, [(side, side) for side in sides])
    return {f"{name}_{i}": part.flatten(1) for i, part in enumerate(parts)}
