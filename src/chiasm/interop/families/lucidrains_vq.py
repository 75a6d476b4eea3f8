"""The quantizers of lucidrains' vector-quantize-pytorch, each beside ours; it publishes no checkpoints."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from chiasm.errors import CheckpointError
from chiasm.interop.cases import Case
from chiasm.interop.convert import load_named
from chiasm.interop.mapping import NameMap, Own, Reshape, Rule, Unused
from chiasm.interop.verify import replays
from chiasm.tokenizers.lookup_free import ProjectedLookupFree
from chiasm.tokenizers.quantizer import VectorQuantizer
from chiasm.tokenizers.vqgan_fsq import FiniteScalars

# Options that stand at what we do; any other value is refused.
SAME: dict[str, Any] = {
    "num_codebooks": 1,
    "heads": 1,
    "preserve_symmetry": False,
    "learnable_codebook": False,
    "codebook_scale": 1.0,
    "spherical": False,
    "straight_through_activation": None,
    "codebook_dim": None,
}
PLAIN = NameMap(Unused("q.zz_dummy"), Unused("q.mask"), Rule("q.{rest...}", "{rest...}"))


@replays("lucidrains_vq", "LFQ / FSQ / VectorQuantize / ResidualVQ")
def replay(case: Case) -> dict[str, Tensor]:
    """One quantizer: codes, vectors, losses and the gradient to what was quantized."""
    known = {"FSQ": replay_scalars, "LFQ": replay_signs, "VectorQuantize": replay_averages}
    told = dict(case.config["args"])
    if case.config["cls"] not in known:
        raise CheckpointError(f"there is no counterpart of {case.config['cls']}")
    for option, value in SAME.items():
        if told.pop(option, value) != value:
            raise CheckpointError(f"{case.config['cls']}: {option} is known as {value} only")
    return known[case.config["cls"]](case, told)


def replay_scalars(case: Case, told: dict[str, Any]) -> dict[str, Tensor]:
    levels = told["levels"]
    quantizer = FiniteScalars(told.get("dim") or len(levels), levels)
    _load(quantizer, PLAIN, case)
    x = case.inputs["x"].clone().requires_grad_()
    quantized = quantizer(_last(x))
    made = _first(quantized.vectors)
    (made * case.inputs["r"]).sum().backward()
    codes = _first(quantizer.vectors(quantized.codes))
    return {"quantized": made, "indices": quantized.codes, "codes": codes, "grad_x": _grad(x)}


def replay_signs(case: Case, told: dict[str, Any]) -> dict[str, Tensor]:
    bits = int(math.log2(told["codebook_size"])) if "codebook_size" in told else told["dim"]
    quantizer = ProjectedLookupFree(
        told.get("dim") or bits,
        bits,
        commitment=told.get("commitment_loss_weight", 0.0),
        entropy=told.get("entropy_loss_weight", 0.1),
        diversity=told.get("diversity_gamma", 1.0),
        soft_clamp=told.get("soft_clamp_input_value") or 0.0,
    )
    _load(quantizer, PLAIN, case)
    x = case.inputs["x"].clone().requires_grad_()
    latents = _last(x)
    quantized = quantizer(latents)
    losses = quantized.losses
    aux = torch.stack([each.weight * each.mean for each in losses.values()]).sum()
    made = _first(quantized.vectors)
    (aux + (made * case.inputs["r"]).sum()).backward()
    single, mean = quantizer.entropies(quantizer.inner(latents).flatten(0, -2))
    return {
        "quantized": made,
        "indices": quantized.codes,
        "codes": _first(quantizer.vectors(quantized.codes)),
        "aux_loss": aux,
        "per_sample_entropy": single.mean(),
        "batch_entropy": mean,
        "commitment": losses["commitment"].mean * bool(quantizer.commitment),  # 0 where it has no weight
        "grad_x": _grad(x),
    }


def replay_averages(case: Case, told: dict[str, Any]) -> dict[str, Tensor]:
    size, width = told["codebook_size"], told["dim"]
    quantizer = VectorQuantizer(
        size,
        width,
        decay=told.get("decay", 0.8),
        epsilon=told.get("eps", 1e-5),
        cosine=told.get("use_cosine_sim", False),
        rotation=told.get("rotation_trick", True),
        revive_after=0,
    )
    vectors, counts = Reshape((1, size, width), (size, width)), Reshape((1, size), (size,))
    names = NameMap(
        Unused("q.zz_dummy"),
        Unused("q._codebook.initted"),
        Rule("q._codebook.embed", "vectors", vectors),
        Rule("q._codebook.embed_avg", "sums", vectors),
        Rule("q._codebook.cluster_size", "counts", counts),
        *(Own(own) for own in ("frequency", "last_use", "last_revival", "batches")),
    )
    _load(quantizer, names, case)
    quantizer.batches.fill_(1)  # or it would start from the first batch
    looked_up = quantizer.eval()(_last(case.inputs["x"]))
    x = case.inputs["x"].clone().requires_grad_()
    learnt = quantizer.train()(_last(x))
    loss = told.get("commitment_weight", 1.0) * learnt.commitment.mean()
    made = _first(learnt.vectors)
    (loss + (made * case.inputs["r"]).sum()).backward()
    return {
        "quantized": _first(looked_up.vectors),
        "indices": looked_up.codes,
        "loss": loss,
        "quantized_train": made,
        "grad_x": _grad(x),
        "embed_after": quantizer.vectors[None],
        "cluster_size_after": quantizer.counts[None],
        "embed_avg_after": quantizer.sums[None],
    }


def _load(quantizer: nn.Module, names: NameMap, case: Case) -> None:
    ours, _ = names.to_ours(case.tensors, case.name)
    load_named(quantizer, ours, names, case.name)


def _last(x: Tensor) -> Tensor:
    """Pictures and videos have their channels first, sequences last."""
    return x.movedim(1, -1) if x.ndim > 3 else x


def _first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1) if x.ndim > 3 else x


def _grad(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad
