"""The perceiver resampler of Idefics (arXiv 2306.16527) in transformers' layout."""

from __future__ import annotations

import torch
from torch import Tensor

from chiasm import parts
from chiasm.interop.mapping import NameMap, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import load_case
from chiasm.interop.parity.verify import replays

NAMES = (
    ("0.context_layer_norm", "feature_norm"),
    ("0.latents_layer_norm", "latent_norm"),
    ("0.q_proj", "query"),
    ("0.k_proj", "key"),
    ("0.v_proj", "value"),
    ("0.q_layer_norm", "query_norm"),
    ("0.k_layer_norm", "key_norm"),
    ("0.output_proj", "output"),
    ("1.ln", "mlp.0"),
    ("1.fc", "mlp.1"),
    ("1.c_proj", "mlp.3"),
)


def perceiver_rules(prefix: str) -> list[Rule]:
    """The names of IdeficsPerceiverResampler and ours."""
    return [
        *[Rule(f"{prefix}blocks.{{n}}.{a}.{{p}}", f"connector.layers.{{n}}.{b}.{{p}}") for a, b in NAMES],
        Rule(f"{prefix}latents", "connector.latents"),
        Rule(f"{prefix}layer_norm.{{p}}", "connector.norm.{p}"),
    ]


@replays("perceiver_resampler", "IdeficsPerceiverResampler")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    config = case.config
    width = config["embed_dim"]
    spec = {
        "type": "perceiver_resampler",
        "latents": config["n_latents"],
        "depth": config["depth"],
        "heads": config["n_heads"],
        "head_width": config["head_dim"],
        "hidden": config.get("intermediate", 4 * width),
        "activation": "relu",
        "head_norm": config.get("qk_layer_norms_perceiver", False),
    }
    connector = parts.build("connector", spec, width, width).eval()
    names = NameMap(*perceiver_rules(""))
    load_case(connector, case, names, "connector.")
    return {"latents": connector(case.inputs["context"][:, None])}
