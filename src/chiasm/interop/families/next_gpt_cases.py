"""Replays of NExT-GPT's projectors (arXiv 2309.05519)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chiasm import parts
from chiasm.interop.config import known_value
from chiasm.interop.convert import load_named
from chiasm.interop.mapping import NameMap
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.next_gpt import (
    NEW,
    OLD,
    Rules,
    group_projector,
    group_rules,
    output_projector,
    output_rules,
)

CONNECTOR = "connector."
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
    ours, _ = names.to_ours(case.tensors, case.name)
    load_named(connector, ours, names, case.name, prefix=CONNECTOR)
    return connector
