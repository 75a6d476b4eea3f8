"""The quantizers of lucidrains' vector-quantize-pytorch, each beside ours; it publishes no checkpoints."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from chiasm.errors import CheckpointError
from chiasm.interop.cases import Case
from chiasm.interop.convert import load_named
from chiasm.interop.mapping import Chain, NameMap, Own, Reshape, Rule, Split, Unused
from chiasm.interop.verify import replays
from chiasm.stepwise import after_step
from chiasm.tokenizers.lookup_free import ProjectedLookupFree
from chiasm.tokenizers.quantizer import VectorQuantizer
from chiasm.tokenizers.vqgan_fsq import FiniteScalars

# Options that stand at what we do; any other value is refused.
SAME: dict[str, Any] = {
    "preserve_symmetry": False,
    "learnable_codebook": False,
    "codebook_scale": 1.0,
    "spherical": False,
    "straight_through_activation": None,
    "bound_hard_clamp": False,
    "orthogonal_rotation": False,
    "orthogonal_reg_weight": 0.0,
    "shared_codebook": False,
}
OWN = ("frequency", "last_use", "last_revival", "batches")
PLAIN = (Unused("q.zz_dummy"), Unused("q.mask"), Rule("q.{rest...}", "{rest...}"))


@replays("lucidrains_vq", "LFQ / FSQ / VectorQuantize / ResidualVQ")
def replay(case: Case) -> dict[str, Tensor]:
    """One quantizer: codes, vectors, losses and the gradient to what was quantized."""
    known = {"FSQ": replay_scalars, "LFQ": replay_signs, "VectorQuantize": replay_averages}
    known["ResidualVQ"] = replay_residuals
    told = dict(case.config["args"])
    if case.config["cls"] not in known:
        raise CheckpointError(f"there is no counterpart of {case.config['cls']}")
    for option, value in SAME.items():
        if told.pop(option, value) != value:
            raise CheckpointError(f"{case.config['cls']}: {option} is known as {value} only")
    return known[case.config["cls"]](case, told)


class Grouped(nn.Module):
    """Channels projected to groups of equal width, each quantized by itself, and back."""

    books: Any  # the codebooks, where there are any

    def __init__(self, width: int, inner: int, groups: int):
        super().__init__()
        projects = width != inner * groups
        self.groups = groups
        self.project_in = nn.Linear(width, inner * groups) if projects else nn.Identity()
        self.project_out = nn.Linear(inner * groups, width) if projects else nn.Identity()

    def split(self, x: Tensor) -> Tensor:
        return self.project_in(_last(x)).unflatten(-1, (self.groups, -1))

    def join(self, groups: Tensor) -> Tensor:
        return _first(self.project_out(groups.flatten(-2)))


def replay_scalars(case: Case, told: dict[str, Any]) -> dict[str, Tensor]:
    levels, groups = told["levels"], told.get("num_codebooks", 1)
    quantizer = FiniteScalars(len(levels), levels)
    outside = Grouped(told.get("dim") or len(levels) * groups, len(levels), groups)
    _load(outside, NameMap(*PLAIN), case)
    x = case.inputs["x"].clone().requires_grad_()
    quantized = quantizer(outside.split(x))
    made = outside.join(quantized.vectors)
    (made * case.inputs["r"]).sum().backward()
    codes = outside.join(quantizer.vectors(quantized.codes))
    indices = _together(quantized.codes, told, groups)
    return {"quantized": made, "indices": indices, "codes": codes, "grad_x": _grad(x)}


def replay_signs(case: Case, told: dict[str, Any]) -> dict[str, Tensor]:
    groups = told.get("num_codebooks", 1)
    bits = int(math.log2(told["codebook_size"])) if "codebook_size" in told else told["dim"]
    outside = Grouped(told.get("dim") or bits * groups, bits, groups)
    _load(outside, NameMap(*PLAIN), case)
    quantizer = ProjectedLookupFree(
        bits,
        bits,
        commitment=told.get("commitment_loss_weight", 0.0),
        entropy=told.get("entropy_loss_weight", 0.1),
        diversity=told.get("diversity_gamma", 1.0),
        soft_clamp=told.get("soft_clamp_input_value") or 0.0,
    )
    x = case.inputs["x"].clone().requires_grad_()
    latents = outside.split(x)
    quantized = [quantizer(group) for group in latents.unbind(-2)]
    aux = torch.stack([each.weight * each.mean for part in quantized for each in part.losses.values()]).sum()
    aux = aux / groups
    made = outside.join(torch.stack([part.vectors for part in quantized], -2))
    (aux + (made * case.inputs["r"]).sum()).backward()
    entropies = [quantizer.entropies(quantizer.inner(group).flatten(0, -2)) for group in latents.unbind(-2)]
    codes = torch.stack([part.codes for part in quantized], -1)
    commitment = torch.stack([part.losses["commitment"].mean for part in quantized]).mean()
    return {
        "quantized": made,
        "indices": _together(codes, told, groups),
        "codes": outside.join(quantizer.vectors(codes)),
        "aux_loss": aux,
        "per_sample_entropy": torch.stack([single.mean() for single, _ in entropies]).mean(),
        "batch_entropy": torch.stack([mean for _, mean in entropies]).mean(),
        "commitment": commitment * bool(quantizer.commitment),  # 0 where it has no weight
        "grad_x": _grad(x),
    }


def replay_averages(case: Case, told: dict[str, Any]) -> dict[str, Tensor]:
    """A codebook for all heads, or one a head."""
    heads = told.get("heads", 1)
    books = heads if told.get("separate_codebook_per_head") else 1
    width = told.get("codebook_dim") or told["dim"]
    outside = Grouped(told["dim"], width, heads)
    outside.books = _codebooks(told, books, width)
    entries = _book_rules(told, width, "q._codebook.", [f"books.{n}." for n in range(books)])
    _load(outside, NameMap(*entries, *PLAIN), case)
    _begin(outside.books)

    def quantized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        groups = outside.split(x).split(heads // books, -2)
        parts = [book(group) for book, group in zip(outside.books, groups, strict=True)]
        vectors, codes = (torch.cat([part[i] for part in parts], i - 2) for i in range(2))
        commitment = torch.cat([part.commitment for part in parts], -2).mean()
        return outside.join(vectors), _together(codes, told, heads), commitment

    outside.books.eval()
    vectors, codes, _ = quantized(case.inputs["x"])
    outside.books.train()
    x = case.inputs["x"].clone().requires_grad_()
    made, _, commitment = quantized(x)
    after_step(outside)
    loss = told.get("commitment_weight", 1.0) * commitment
    (loss + (made * case.inputs["r"]).sum()).backward()
    return {
        "quantized": vectors,
        "indices": codes,
        "loss": loss,
        "quantized_train": made,
        "grad_x": _grad(x),
        "embed_after": torch.stack([book.vectors for book in outside.books]),
        "cluster_size_after": torch.stack([book.counts for book in outside.books]),
        "embed_avg_after": torch.stack([book.sums for book in outside.books]),
    }


def replay_residuals(case: Case, told: dict[str, Any]) -> dict[str, Tensor]:
    """Each codebook quantizes what those before it have left over."""
    width, depth = told.get("codebook_dim") or told["dim"], told["num_quantizers"]
    outside = Grouped(told["dim"], width, 1)
    outside.books = _codebooks(told, depth, width)
    entries = [
        entry
        for n in range(depth)
        for entry in _book_rules(told, width, f"q.layers.{n}._codebook.", [f"books.{n}."])
    ]
    _load(outside, NameMap(*entries, *PLAIN), case)
    _begin(outside.books)

    def quantized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left = outside.split(x)
        total, codes, losses = torch.zeros_like(left), [], []
        for book in outside.books:
            part = book(left)
            left, total = left - part.vectors.detach(), total + part.vectors
            codes.append(part.codes[..., 0])
            losses.append(told.get("commitment_weight", 1.0) * part.commitment.mean())
        return outside.join(total), torch.stack(codes, -1), torch.stack(losses)

    outside.books.eval()
    vectors, codes, _ = quantized(case.inputs["x"])
    outside.books.train()
    x = case.inputs["x"].clone().requires_grad_()
    made, _, losses = quantized(x)
    after_step(outside)
    (losses.sum() + (made * case.inputs["r"]).sum()).backward()
    return {
        "quantized": vectors,
        "indices": codes,
        "loss": losses if case.outputs["loss"].ndim else losses.sum(),
        "quantized_train": made,
        "grad_x": _grad(x),
        "embed_after": torch.stack([book.vectors for book in outside.books]),
        "cluster_size_after": torch.stack([book.counts for book in outside.books]),
        "embed_avg_after": torch.stack([book.sums for book in outside.books]),
    }


def _codebooks(told: dict[str, Any], count: int, width: int) -> nn.ModuleList:
    return nn.ModuleList(
        VectorQuantizer(
            told["codebook_size"],
            width,
            decay=told.get("decay", 0.8),
            epsilon=told.get("eps", 1e-5),
            cosine=told.get("use_cosine_sim", False),
            rotation=told.get("rotation_trick", True),
            revive_after=0,
        )
        for _ in range(count)
    )


def _book_rules(told: dict[str, Any], width: int, theirs: str, ours: list[str]) -> list[Rule | Unused | Own]:
    """The codebooks that are one tensor of theirs."""
    size, apart = told["codebook_size"], Split((1,) * len(ours))
    vectors = Chain((apart, Reshape((1, size, width), (size, width))))
    return [
        Unused(theirs + "initted"),
        Rule(theirs + "embed", tuple(book + "vectors" for book in ours), vectors),
        Rule(theirs + "embed_avg", tuple(book + "sums" for book in ours), vectors),
        Rule(
            theirs + "cluster_size",
            tuple(book + "counts" for book in ours),
            Chain((apart, Reshape((1, size), (size,)))),
        ),
        *(Own(ours[0].split(".")[0] + ".{n}." + own) for own in OWN),
    ]


def _together(codes: Tensor, told: dict[str, Any], groups: int) -> Tensor:
    """Codes of one group have no axis of groups, unless it is asked for."""
    return codes if groups > 1 or told.get("keep_num_codebooks_dim") else codes[..., 0]


def _begin(books: nn.ModuleList) -> None:
    for book in books:
        book.batches.fill_(1)  # type: ignore[operator, union-attr] # or it would start from the first batch


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
