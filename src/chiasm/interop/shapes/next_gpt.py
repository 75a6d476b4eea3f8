"""NExT-GPT's projectors under their own names (arXiv 2309.05519): the older and the newer ones, in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import plain
from chiasm.interop.families.blip2_hf import qformer_rules
from chiasm.interop.family import Folder
from chiasm.interop.mapping import Reshape, Rule, Split, Unused
from chiasm.interop.shapes.stable_diffusion import decoder

Rules = list[Rule | Unused]

STEPS, GUIDANCE = 50, 7.5  # of the diffusion model, whose own empty prompt guidance leads away from
HEADS = 4  # of the transformer, which its tensors do not tell
BERT = 64  # channels of a head of the Q-Former, which is as wide as bert-base
GROUP_HEADS = 8
# What the older layout calls the first and the last layer of an output projector, and the newer one.
OLD, NEW = ("fc", "model"), ("in_fc", "out_fc")

BLOCK = {
    "norm1.{p}": "attention_norm.{p}",
    "attn.proj.{p}": "attention.out.{p}",
    "norm2.{p}": "feed_norm.{p}",
    "mlp.fc1.{p}": "feed.0.{p}",
    "mlp.fc2.{p}": "feed.2.{p}",
}
GROUPING = {
    "norm_x.{p}": "feature_norm.{p}",
    "norm_tokens.{p}": "token_norm.{p}",
    "mlp_inter.fc1.{p}": "mix.0.{p}",
    "mlp_inter.fc2.{p}": "mix.2.{p}",
    "norm_post_tokens.{p}": "mixed_norm.{p}",
    "pre_assign_attn.attn.q_proj.{p}": "attention.query.{p}",
    "pre_assign_attn.attn.k_proj.{p}": "attention.key.{p}",
    "pre_assign_attn.attn.v_proj.{p}": "attention.value.{p}",
    "pre_assign_attn.attn.proj.{p}": "attention.out.{p}",
    "pre_assign_attn.norm2.{p}": "feed_norm.{p}",
    "pre_assign_attn.mlp.fc1.{p}": "feed.0.{p}",
    "pre_assign_attn.mlp.fc2.{p}": "feed.2.{p}",
    "pre_assign_attn.norm_post.{p}": "attended_norm.{p}",
    "assign.q_proj.{p}": "assignment.query.{p}",
    "assign.k_proj.{p}": "assignment.key.{p}",
    "assign.v_proj.{p}": "assignment.value.{p}",
    "assign.proj.{p}": "assignment.out.{p}",
    "norm_new_x.{p}": "out_norm.{p}",
    "mlp_channels.fc1.{p}": "out.0.{p}",
    "mlp_channels.fc2.{p}": "out.2.{p}",
}


def drawing(
    networks: Mapping[str, Any], projector: Mapping[str, Any], width: int, signals: Sequence[int]
) -> dict[str, Any]:
    """Head and image decoder.

    networks: see `decoder`. projector, width: the connector that it is here, and of the vectors that it makes.
    signals: ids of the signal tokens, of which the first begins an image. Raises CheckpointError where they do not
    fit.
    """
    read = networks["unet"]["cross_attention_dim"]
    if width != read:
        raise CheckpointError(
            f"its projector makes vectors of {width} channels, but the diffusion model attends to {read} (Stable "
            "Diffusion 1.5 to 768, 2 to 1024): it was trained for another one"
        )
    prediction = networks["scheduler"].get("prediction_type", "epsilon")
    image_decoder = decoder(
        networks, "euler" if prediction == "v_prediction" else "pndm", steps=STEPS, guidance=GUIDANCE
    )
    image_decoder["conditioner"] = {"type": "vectors", "empty": projector["queries"]}
    head = {
        "type": "queries",
        "alphabet": {"type": "condition", "depth": 0},
        "grid": [1, len(signals)],
        "causal": True,
        "words": list(signals),
        "from_marker": True,
        "with_words": True,
        "bridge": plain(projector),
        "unconditional": 0.0,
    }
    return {"heads": {"image": head}, "image_decoder": image_decoder}


def output_projector(kind: str, tensors: Mapping[str, Tensor], names: tuple[str, str]) -> dict[str, Any]:
    """The connector for an output projector of this kind, by the shapes of its tensors; `names`: OLD or NEW."""
    first = names[0] + ".weight"
    if kind == "transformer":
        return {
            "type": "query_transformer",
            "queries": tensors["query_embs"].shape[1],
            "width": tensors[first].shape[0],
            "depth": count(tensors, "tfm.encoder.layers."),
            "heads": HEADS,
            "hidden": tensors["tfm.encoder.layers.0.linear1.weight"].shape[0],
        }
    if kind == "qformer":
        width = tensors["query_tokens"].shape[2]
        blocks = "Qformer.bert.encoder.layer."
        return {
            "type": "qformer",
            "queries": tensors["query_tokens"].shape[1],
            "width": width,
            "depth": count(tensors, blocks),
            "heads": width // BERT,
            "hidden": tensors[blocks + "0.intermediate_query.dense.weight"].shape[0],
            "cross_every": 1,
            "projected": True,
        }
    raise CheckpointError(
        f"an output projector of the kind {kind!r} is known to no code that runs: the original's own fails on "
        "it; known: transformer, qformer"
    )


def output_width(tensors: Mapping[str, Tensor], names: tuple[str, str]) -> int:
    """Channels of the vectors that an output projector makes; raises CheckpointError where its last layer lacks."""
    last = names[1] + ".weight"
    if last not in tensors:
        raise CheckpointError(f"the output projector has no {last}, its last layer")
    return tensors[last].shape[0]


def output_rules(spec: Mapping[str, Any], names: tuple[str, str], theirs: str, ours: str) -> Rules:
    """Rules for `output_projector`'s connector."""
    shape = (spec["queries"], spec["width"])
    rules: Rules = [Rule(f"{theirs}{names[0]}.{{p}}", ours + "input.{p}")]
    if spec["type"] == "query_transformer":
        return [
            *rules,
            Rule(theirs + "query_embs", ours + "queries", Reshape((1, *shape), shape)),
            Rule(f"{theirs}{names[1]}.{{p}}", ours + "output.{p}"),
            Rule(theirs + "tfm.{rest...}", ours + "{rest...}"),
        ]
    bert = theirs + "Qformer.bert."
    return [
        *rules,
        Rule(theirs + "query_tokens", ours + "queries", Reshape((1, *shape), shape)),
        Unused(bert + "embeddings.position_ids"),
        Rule(bert + "embeddings.LayerNorm.{p}", ours + "trunk.norm.{p}"),
        *qformer_rules(bert + "encoder.", "self", ours),
        Rule(f"{theirs}{names[1]}.{{p}}", ours + "out.{p}"),
    ]


def input_projector(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The connector for an input projector of this kind, by the shapes of its tensors."""
    if kind == "group":
        return group_projector(tensors)
    depths = {"linear": 1, "mlp": 2}
    if kind not in depths:
        raise CheckpointError(
            f"an input projector of the kind {kind!r} is unknown; known: group, linear, mlp"
        )
    return {"type": "mlp", "depth": depths[kind]}


def input_rules(spec: Mapping[str, Any], theirs: str, ours: str) -> Rules:
    """Rules for `input_projector`'s connector."""
    if spec["type"] == "group":
        return group_rules(spec, theirs, ours)
    if spec["depth"] == 1:  # then it is a layer, else a row of layers
        return [Rule(theirs + "{p}", ours + "layers.0.{p}")]
    return [Rule(theirs + "layer.{n}.{p}", ours + "layers.{n}.{p}")]


def group_projector(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The connector for an input projector that groups, by the shapes of its tensors."""
    stages = range(count(tensors, "layers."))
    tokens = [tensors.get(f"layers.{n}.group_token") for n in stages]
    mixed = [tensors.get(f"layers.{n}.downsample.mlp_inter.fc2.weight") for n in stages]
    return {
        "type": "group",
        "depths": [count(tensors, f"layers.{n}.blocks.") for n in stages],
        "group_tokens": [0 if table is None else table.shape[1] for table in tokens],
        "groups": [weight.shape[0] for weight in mixed if weight is not None],
        "width": tensors["in_fc.weight"].shape[0],
        "heads": GROUP_HEADS,
    }


def group_rules(spec: Mapping[str, Any], theirs: str, ours: str) -> Rules:
    """Rules for the connector `group`."""
    width = spec["width"]
    tables = [(n, (tokens, width)) for n, tokens in enumerate(spec["group_tokens"]) if tokens]
    stage, block = theirs + "layers.{n}.", ours + "stages.{n}.blocks.{m}.attention."
    projections = tuple(f"{block}{part}.weight" for part in ("query", "key", "value"))
    return [
        Rule(theirs + "in_fc.{p}", ours + "input.{p}"),
        Rule(theirs + "norm.{p}", ours + "norm.{p}"),
        Rule(theirs + "out_fc.{p}", ours + "output.{p}"),
        *[
            Rule(f"{theirs}layers.{n}.group_token", f"{ours}stages.{n}.tokens", Reshape((1, *shape), shape))
            for n, shape in tables
        ],
        Rule(stage + "group_projector.0.{p}", ours + "stages.{n}.carry_norm.{p}"),
        Rule(stage + "group_projector.1.fc1.{p}", ours + "stages.{n}.carry.0.{p}"),
        Rule(stage + "group_projector.1.fc2.{p}", ours + "stages.{n}.carry.2.{p}"),
        Rule(stage + "blocks.{m}.attn.qkv.weight", projections, Split((width,) * 3)),
        *[Rule(f"{stage}blocks.{{m}}.{a}", f"{ours}stages.{{n}}.blocks.{{m}}.{b}") for a, b in BLOCK.items()],
        *[Rule(f"{stage}downsample.{a}", f"{ours}stages.{{n}}.grouping.{b}") for a, b in GROUPING.items()],
    ]


def count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow the prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): each for key, each in tensors.items() if key.startswith(prefix)}


def signal_ids(folder: Folder, name: str, signals: int, separator: str | None = None) -> list[int]:
    """Ids of the signal tokens, with those of the separator between them.

    name: of the n-th token, `{}` being n. Raises CheckpointError naming one that the folder's tokenizer lacks.
    """
    from chiasm.language.tokenizer_folder import load_tokenizer

    if signals < 2:
        raise CheckpointError(
            f"{folder.path} draws by {signals} signal tokens; there have to be two at least"
        )
    tokenizer = load_tokenizer(folder.path)
    words = [name.format(n) for n in range(signals)] + ([separator] if separator else [])
    vocabulary = tokenizer.get_vocab()
    lacking = [word for word in words if word not in vocabulary]
    if lacking:
        raise CheckpointError(
            f"the tokenizer of {folder.path} has no {', '.join(lacking)}, of which its images are made"
        )
    ids = [vocabulary[word] for word in words]
    if separator is None:
        return ids
    return [ids[0], *(id for signal in ids[1:-1] for id in (ids[-1], signal))]
