"""SAM's image encoder with Meta's tensor names (DeepSeek-VL, Vary)."""

from chiasm.interop.mapping import OwnTensors, Rule


def sam_rules(prefix: str, slot: str = "encoder") -> list[Rule | OwnTensors]:
    """Rules for the encoder `sam` but for what follows the neck; tensors begin with `prefix`."""
    theirs, ours = prefix + "blocks.{n}.", slot + ".blocks.{n}."
    return [
        Rule(prefix + "patch_embed.proj.{p}", slot + ".patchify.{p}"),
        Rule(prefix + "pos_embed", slot + ".positions"),
        Rule(theirs + "norm1.{p}", ours + "attention_norm.{p}"),
        Rule(theirs + "norm2.{p}", ours + "mlp_norm.{p}"),
        Rule(theirs + "mlp.lin1.{p}", ours + "mlp.0.{p}"),
        Rule(theirs + "mlp.lin2.{p}", ours + "mlp.2.{p}"),
        *attention_rules(theirs, ours),
        Rule(prefix + "neck.{rest...}", slot + ".neck.{rest...}"),
        OwnTensors(slot + ".mean"),
        OwnTensors(slot + ".deviation"),
    ]


def attention_rules(theirs: str, ours: str) -> list[Rule]:
    """Rules for a block's attention, which transformers names as Meta does."""
    return [
        Rule(theirs + "attn.qkv.{p}", ours + "attention.qkv.{p}"),
        Rule(theirs + "attn.proj.{p}", ours + "attention.out.{p}"),
        Rule(theirs + "attn.rel_pos_h", ours + "attention.row_distances"),
        Rule(theirs + "attn.rel_pos_w", ours + "attention.column_distances"),
    ]
