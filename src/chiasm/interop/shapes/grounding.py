"""GLIGEN's tensors in a network: the gated layers of its transformer blocks, and what makes tokens of boxes."""

from __future__ import annotations

from chiasm.interop.mapping import Rule

GATED = {
    "alpha_attn": "gate",
    "alpha_dense": "mlp_gate",
    "linear.{p}": "boxes.{p}",
    "attn.to_q.{p}": "query.{p}",
    "attn.to_k.{p}": "key.{p}",
    "attn.to_v.{p}": "value.{p}",
    "attn.to_out.0.{p}": "out.{p}",
    "ff.net.0.proj.{p}": "mlp.input.{p}",
    "ff.net.2.{p}": "mlp.output.{p}",
    "norm1.{p}": "norm.{p}",
    "norm2.{p}": "mlp_norm.{p}",
}


def gated_rules(theirs: str, ours: str) -> list[Rule]:
    """Rules for the gated layers whose names begin with these."""
    return [Rule(theirs + a, ours + b) for a, b in GATED.items()]


def box_rules(theirs: str, ours: str) -> list[Rule]:
    """Rules for what makes tokens of boxes. Names begin with `theirs` and `ours`."""
    return [
        Rule(theirs + "linears.{n}.{p}", ours + "network.{n}.{p}"),
        Rule(theirs + "null_positive_feature", ours + "no_phrase"),
        Rule(theirs + "null_position_feature", ours + "no_place"),
    ]
