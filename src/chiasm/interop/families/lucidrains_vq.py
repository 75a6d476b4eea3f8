"""The quantizers of lucidrains' vector-quantize-pytorch, each beside ours; it publishes no checkpoints.

Here are those without a codebook; see `lucidrains_codebooks` for the others. Options that draw at random or are
code are refused by name; so are learnt extras that no quantizer of ours has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chiasm.errors import CheckpointError
from chiasm.interop.config import Config
from chiasm.interop.mapping import NameMap, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import load_case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.lucidrains_codebooks import replay_averages, replay_residuals
from chiasm.interop.shapes.lucidrains_groups import PLAIN, Groups, gradient
from chiasm.tokenizers.quantizers.fsq import FiniteScalars
from chiasm.tokenizers.quantizers.lfq_projected import ProjectedLookupFree

WITHOUT_EFFECT = {
    "shape": "of a case's input",
    "args.force_quantization_f32": "these numbers have 32 bits",
    "args.allowed_dtypes": "these numbers have 32 bits",
    "args.scale": "the original does not read it",
    "args.sync_kmeans": "on several machines only",
    "args.sync_codebook": "on several machines only",
    "args.sync_affine_param": "on several machines only",
    "args.kmeans_iters": "of the codebook's beginning, which the weights are past",
    "args.affine_param_batch_decay": "of affine_param, which is refused",
    "args.affine_param_codebook_decay": "of affine_param, which is refused",
    "args.directional_reparam_variance": "of directional_reparam, which is refused",
    "args.manual_in_place_optimizer_update": "of in_place_codebook_optimizer, which is refused",
    "args.return_zeros_for_masked_padding": "of masks, which no case has",
    "args.quantize_dropout_cutoff_index": "of quantize_dropout, which is refused",
    "args.quantize_dropout_multiple_of": "of quantize_dropout, which is refused",
    "args.mlp_kwargs": "of implicit_neural_codebook, which is refused",
    "args.beam_score_quantizer_weights": "of beam_size, which is refused",
    "args.codebook_diversity_temperature": "of codebook_diversity_loss_weight, which is 0",
    "args.orthogonal_reg_active_codes_only": "of orthogonal_reg_weight, which is 0",
    "args.orthogonal_reg_max_codes": "of orthogonal_reg_weight, which is 0",
    "args.entropy_loss_offset": "of experimental_softplus_entropy_loss, which is off",
    "args.cosine_sim_project_in_scale": "of cosine_sim_project_in, which is off",
    "args.layernorm_after_project_in": "there is no projection",
    "args.projection_has_bias": "there is no projection",
}


@replays("lucidrains_vq", "LFQ / FSQ / VectorQuantize / ResidualVQ", without_effect=WITHOUT_EFFECT)
def replay(case: Case) -> Mapping[str, Tensor]:
    """One quantizer: codes, vectors, losses and the gradient to what was quantized."""
    classes: dict[str, Callable[[Case, Config], dict[str, Tensor]]] = {
        "FSQ": replay_scalars,
        "LFQ": replay_signs,
        "VectorQuantize": replay_averages,
        "ResidualVQ": replay_residuals,
    }
    if case.config["cls"] not in classes:
        raise CheckpointError(f"there is no counterpart of {case.config['cls']}")
    return classes[case.config["cls"]](case, case.config["args"])


class Rotated(Groups):
    """Groups that are turned by a fixed rotation before they are quantized, and back afterwards."""

    orthogonal_rot: Tensor

    def __init__(self, width: int, inner: int, groups: int, *, rotates: bool, **options: Any):
        super().__init__(width, inner, groups, **options)
        if rotates:
            self.register_buffer("orthogonal_rot", torch.eye(inner))

    def split(self, x: Tensor) -> Tensor:
        split = super().split(x)
        return split @ self.orthogonal_rot if hasattr(self, "orthogonal_rot") else split

    def join(self, groups: Tensor) -> Tensor:
        return super().join(groups @ self.orthogonal_rot.T if hasattr(self, "orthogonal_rot") else groups)


class CosineProjection(nn.Module):
    """The cosines between inputs and columns, times `scale`."""

    def __init__(self, width: int, inner: int, scale: float):
        super().__init__()
        self.scale, self.weight = scale, nn.Parameter(torch.empty(width, inner))

    def forward(self, x: Tensor) -> Tensor:
        normalise = nn.functional.normalize
        return normalise(x, dim=-1) @ normalise(self.weight, dim=0) * self.scale


def replay_scalars(case: Case, config: Config) -> dict[str, Tensor]:
    levels, groups = list(config["levels"]), config.get("num_codebooks", 1)
    config.only("noise_dropout", 0.0)
    quantizer = FiniteScalars(
        levels=levels,
        symmetric=config.get("preserve_symmetry", False),
        clamped=config.get("bound_hard_clamp", False),
    )
    outside = _outside(config, len(levels), groups, config.get("channel_first") or None, case)
    x = case.inputs["x"].clone().requires_grad_()
    quantized = quantizer(outside.split(x))
    vectors = outside.join(quantized.vectors)
    (vectors * case.inputs["r"]).sum().backward()
    outputs = {"quantized": vectors, "grad_x": gradient(x)}
    if not config.get("return_indices", True):
        return outputs
    codes = outside.join(quantizer.vectors(quantized.codes))
    return outputs | {"indices": outside.codes(quantized.codes, config), "codes": codes}


def replay_signs(case: Case, config: Config) -> dict[str, Tensor]:
    groups, scale = config.get("num_codebooks", 1), config.get("codebook_scale", 1.0)
    bits = int(math.log2(config.get("codebook_size") or 2 ** config["dim"]))
    config.only("straight_through_activation", None)
    config.only("frac_per_sample_entropy", 1.0)  # of less, some are drawn
    softens = config.get("experimental_softplus_entropy_loss", False)
    quantizer = ProjectedLookupFree(
        bits=bits,
        commitment=config.get("commitment_loss_weight", 0.0),
        entropy=config.get("entropy_loss_weight", 0.1),
        diversity=config.get("diversity_gamma", 1.0),
        scale=scale,
        spherical=config.get("spherical", False),
        offset=config.get("entropy_loss_offset", 5.0) if softens else None,
    )
    outside = _outside(config, bits, groups, config.get("channel_first"), case)
    x = case.inputs["x"].clone().requires_grad_()
    parts = [quantizer(group) for group in outside.split(x).unbind(-2)]
    # Of the entropies, the means over the groups count.
    inner = [quantizer.inner(group).flatten(0, -2) for group in outside.split(x).unbind(-2)]
    single, mean = map(torch.stack, zip(*map(quantizer.entropies, inner), strict=True))
    entropy = single.mean() - quantizer.diversity * mean.mean()
    if quantizer.offset is not None:
        entropy = nn.functional.softplus(entropy + quantizer.offset)
    commitment = torch.stack([part.losses["commitment"].mean for part in parts]).mean()
    aux = quantizer.entropy * entropy + quantizer.commitment * commitment
    vectors = outside.join(torch.stack([part.vectors for part in parts], -2))
    (aux + (vectors * case.inputs["r"]).sum()).backward()
    codes = torch.stack([part.codes for part in parts], -1)
    return {
        "quantized": vectors,
        "indices": outside.codes(codes, config),
        "codes": outside.join(quantizer.vectors(codes)),
        "aux_loss": aux,
        "per_sample_entropy": single.mean(),
        "batch_entropy": mean.mean(),
        "commitment": commitment * bool(quantizer.commitment),  # 0 where it has no weight
        "grad_x": gradient(x),
    }


def _outside(config: Config, inner: int, groups: int, first: bool | None, case: Case) -> Rotated:
    width = config.get("dim") or inner * groups
    projects = config.get("has_projections")
    outside = Rotated(
        width,
        inner,
        groups,
        rotates=config.get("orthogonal_rotation", False),
        channel_first=first,
        projects=width != inner * groups if projects is None else projects,
        clamp=config.get("soft_clamp_input_value"),
    )
    if outside.projects and not config.get("projection_has_bias", True):
        outside.project_in = nn.Linear(width, inner * groups, bias=False)
        outside.project_out = nn.Linear(inner * groups, width, bias=False)
    if config.get("cosine_sim_project_in") and outside.projects:
        scale = config.get("cosine_sim_project_in_scale")
        outside.project_in = CosineProjection(
            width, inner * groups, config.get("codebook_scale", 1.0) if scale is None else scale
        )
    rotation = Rule("q.orthogonal_rot", "orthogonal_rot")
    names = NameMap(*PLAIN, rotation, Rule("q.{rest...}", "{rest...}"))
    load_case(outside, case, names)
    return outside
