"""The tensors of diffusers' AutoencoderKL, whose attention had other names in files of before 2023."""

from __future__ import annotations

from collections.abc import Collection

from chiasm.interop.mapping import Rule

FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def autoencoder_rules(keys: Collection[str], prefix: str, ours: str) -> list[Rule]:
    """Rules for an autoencoder's tensors, which begin with `prefix`; keys: all names, which show its age."""
    place = ".mid_block.attentions.{n}."
    former = any(key.startswith(prefix) and key.endswith(".proj_attn.weight") for key in keys)
    rules = [
        Rule(f"{prefix}{side}{place}{old}.{{p}}", f"{ours}{side}{place}{new}.{{p}}")
        for side in ("encoder", "decoder")
        for old, new in (FORMER.items() if former else ())
    ]
    return [*rules, Rule(prefix + "{rest...}", ours + "{rest...}")]
