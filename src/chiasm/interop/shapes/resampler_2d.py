"""MiniCPM-V's resampler in its own names (Qwen-VL's are the same)."""

from __future__ import annotations

from chiasm.interop.mapping import Permute, Rule, Split, Unused

NORMS = {"ln_q": "query_norm", "ln_kv": "feature_norm", "ln_post": "output_norm"}


def resampler_rules(width: int, theirs: str, ours: str, *, placed: bool) -> list[Rule | Unused]:
    """Rules for the connector `resampler_2d` of this width, whose tensors begin with `theirs`.

    placed: its queries have positions, which the checkpoint has as a weight.
    """
    parts = (ours + "query.", ours + "key.", ours + "value.")
    fused = Split((width,) * 3)
    positions = f"{theirs}pos_embed"
    return [
        Rule(f"{theirs}query", f"{ours}queries"),
        Rule(positions, f"{ours}query_positions") if placed else Unused(positions),
        Rule(f"{theirs}kv_proj.weight", f"{ours}input.weight"),
        Rule(f"{theirs}attn.in_proj_weight", tuple(f"{part}weight" for part in parts), fused),
        Rule(f"{theirs}attn.in_proj_bias", tuple(f"{part}bias" for part in parts), fused),
        Rule(f"{theirs}attn.out_proj.{{p}}", f"{ours}output.{{p}}"),
        *[Rule(f"{theirs}{name}.{{p}}", f"{ours}{our_name}.{{p}}") for name, our_name in NORMS.items()],
        Rule(f"{theirs}proj", f"{ours}projection.weight", Permute((1, 0))),
    ]
