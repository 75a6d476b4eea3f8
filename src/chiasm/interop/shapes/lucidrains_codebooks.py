"""vector-quantize-pytorch's codebooks, which learn by moving averages: one, one a head, or one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import CheckpointError
from chiasm.interop.config import Config
from chiasm.interop.convert import load_named
from chiasm.interop.mapping import Chain, NameMap, OwnTensors, Reshape, Rule, Split, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.shapes.lucidrains_groups import PLAIN, Groups, gradient
from chiasm.tokenizers.moving_average import NearestCodes, VectorQuantizer

OWN = ("frequency", "last_use", "last_revival", "batches")
# Options that draw at random, need code, or learn what no codebook of ours has.
OFF = {
    "affine_param": False,
    "directional_reparam": False,
    "in_place_codebook_optimizer": None,
    "stochastic_sample_codes": False,
    "vq_bridge": None,
}
RESIDUAL_OFF = {
    "beam_size": None,
    "diveq": False,
    "eval_beam_size": None,
    "heads": 1,
    "implicit_neural_codebook": False,
    "quantize_dropout": False,
}


class LucidrainsCodebook(VectorQuantizer):
    """Nearest by distance, or, with `cosine`, by the product with vectors of whatever length."""

    def nearest(self, flat: Tensor) -> Tensor:
        return (flat @ self.vectors.T).argmax(1) if self.cosine else super().nearest(flat)


class CodebookUpdate:
    """One training pass of codebooks, of which the options say what it learns and how gradients pass."""

    def __init__(self, config: Config, width: int, *, rotates: bool, frozen: bool):
        for key, value in OFF.items():
            config.only(key, value)
        rotation = config.get("rotation_trick")
        self.rotation = rotates if rotation is None else rotation
        self.config, self.width = config, width
        self.learnable = config.get("learnable_codebook") or False
        moves = config.get("ema_update")
        self.moves = (not self.learnable if moves is None else moves) and not frozen
        self.by_hand = config.get("manual_ema_update", False)  # sums and counts alone
        self.fewest = config.get("threshold_ema_dead_code", 0)
        if self.fewest and not self.moves:
            raise CheckpointError("threshold_ema_dead_code is known with a codebook that learns only")
        for key in ("sample_codebook_temp", "straight_through"):
            config.get(key)  # of codes that are drawn
        self.routed = config.get("route_gradients_to_input", True)
        self.pushed = config.get("sync_update_v", 0.0)
        self.commitment = config.get("commitment_weight", 1.0)
        self.diversity = config.get("codebook_diversity_loss_weight", 0.0)
        self.orthogonal = config.get("orthogonal_reg_weight", 0.0)

    def book(self, size: int) -> LucidrainsCodebook:
        return LucidrainsCodebook(
            size,
            self.width,
            decay=self.config.get("decay", 0.8),
            epsilon=self.config.get("eps", 1e-5),
            cosine=self.config.get("use_cosine_sim", False),
            rotation=self.rotation,
            revive_after=0,
        )

    def through(self, vectors: Tensor) -> Tensor:
        """The quantized vectors with the gradient that the options give them."""
        passed = vectors if self.routed else vectors.detach()
        return passed + self.pushed * (passed - passed.detach())

    def learn(self, book: LucidrainsCodebook) -> None:
        """What moving averages make of a pass; raises CheckpointError where codes would be drawn anew."""
        if not self.moves:
            return book.forget()
        before = book.vectors.clone()
        book.after_step()
        if self.by_hand:
            book.vectors.copy_(before)
        if self.fewest and bool((book.counts < self.fewest).any()):
            raise CheckpointError(
                f"threshold_ema_dead_code is {self.fewest}: the original draws new places for the codes below it "
                "at random"
            )
        return None

    def loss(self, book: LucidrainsCodebook, x: Tensor, part: NearestCodes, before: Tensor) -> Tensor:
        """Of one codebook: x (rows, positions, channels) was looked up in the vectors `before`; it has learnt."""
        total = x.new_zeros(())
        if self.commitment:
            total = total + self.commitment * self._commitment(book, x, part, before)
        if self.orthogonal:
            total = total + self.orthogonal * self._correlation(book, part.codes)
        return total

    def evenness(
        self, books: Sequence[LucidrainsCodebook], looked_up: Sequence[Tensor], before: Sequence[Tensor]
    ) -> Tensor:
        """Minus the entropy of each position's mean choice, over all rows of all codebooks."""
        sharpness = self.config.get("codebook_diversity_temperature", 100.0)
        places = zip(books, looked_up, before, strict=True)
        chances = torch.cat([(sharpness * self._distances(*each)).softmax(-1) for each in places])
        mean = chances.mean(0)
        return self.diversity * (mean * mean.clamp(min=1e-5).log()).sum(-1).mean()

    def _distances(self, book: LucidrainsCodebook, x: Tensor, before: Tensor) -> Tensor:
        """To the vectors `before`; the gradient goes by those of now, as the original's does by then."""
        x = functional.normalize(x, dim=-1) if book.cosine else x
        products = x @ book.vectors.T
        products = products + (x @ before.T - products).detach()
        if book.cosine:
            return products
        squares = x.square().sum(-1, keepdim=True) + before.square().sum(-1) - 2 * products
        return -squares.clamp(min=1e-8).sqrt()

    def _commitment(self, book: LucidrainsCodebook, x: Tensor, part: NearestCodes, before: Tensor) -> Tensor:
        if not self.config.get("commitment_use_cross_entropy_loss", False):
            return part.commitment.mean()
        return functional.cross_entropy(self._distances(book, x, before).flatten(0, -2), part.codes.flatten())

    def _correlation(self, book: LucidrainsCodebook, codes: Tensor) -> Tensor:
        vectors = (
            book.vectors[codes.unique()]
            if self.config.get("orthogonal_reg_active_codes_only")
            else book.vectors
        )
        most = self.config.get("orthogonal_reg_max_codes")
        if most is not None and len(vectors) > most:
            raise CheckpointError(
                f"orthogonal_reg_max_codes is {most}: the original draws so many of {len(vectors)}"
            )
        directions = functional.normalize(vectors, dim=-1)
        return (directions @ directions.T).square().sum() / len(vectors) ** 2 - 1 / len(vectors)


def replay_averages(case: Case, config: Config) -> dict[str, Tensor]:
    """A codebook for all heads, or one a head."""
    heads = config.get("heads", 1)
    count = heads if config.get("separate_codebook_per_head", False) else 1
    width = config.get("codebook_dim") or config["dim"]
    step = CodebookUpdate(
        config, width, rotates=config["dim"] > 1, frozen=config.get("freeze_codebook", False)
    )
    projects = config["dim"] != width * heads
    outside = _Books(
        config["dim"],
        width,
        heads,
        channel_first=_channel_first(config),
        normalises=projects and config.get("layernorm_after_project_in", False),
    )
    outside.books = nn.ModuleList(step.book(config["codebook_size"]) for _ in range(count))
    _load(
        outside, _book_rules(case, config, width, "q._codebook.", [f"books.{n}." for n in range(count)]), case
    )

    def quantized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x is (batch, positions, heads, channels)."""
        rows = x.transpose(1, 2)
        looked_up = rows.unbind(1) if count > 1 else (rows.flatten(0, 1),)
        parts, loss = _pass(step, outside.books, looked_up)
        vectors, codes = (
            torch.stack([part[i] for part in parts], 1)
            if count > 1
            else parts[0][i].unflatten(0, rows.shape[:2])
            for i in range(2)
        )
        return vectors.transpose(1, 2), codes.transpose(1, 2), loss

    return _outputs(case, config, outside, step, quantized)


def replay_residuals(case: Case, config: Config) -> dict[str, Tensor]:
    """Each codebook quantizes what those before it have left over."""
    for key, value in RESIDUAL_OFF.items():
        config.only(key, value)
    width = config.get("codebook_dim") or config["dim"]
    config.get("freeze_codebook")  # the original unfreezes it with each call
    update, shared = (
        CodebookUpdate(config, width, rotates=width > 1, frozen=False),
        config.get("shared_codebook", False),
    )
    gradient_share = config.get("quant_grad_frac", 0.0)
    sizes = config["codebook_size"]
    sizes = list(sizes) if isinstance(sizes, list) else [sizes] * config["num_quantizers"]
    config.get("num_quantizers")
    groups = _Books(config["dim"], width, 1, channel_first=_channel_first(config))
    groups.books = nn.ModuleList(update.book(size) for size in (sizes[:1] if shared else sizes))
    entries: list[Any] = []
    for n in range(len(sizes)):
        place = f"q.layers.{n}._codebook."
        if shared and n:
            entries.append(Unused(place + "{rest...}"))  # the first's once more
        else:
            entries += _book_rules(case, config, width, place, [f"books.{n}."], size=sizes[n])
    _load(groups, entries, case)

    def quantized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        residual = x[..., 0, :]
        total, codes, losses = torch.zeros_like(residual), [], []
        books: list[Any] = list(groups.books) * (len(sizes) if shared else 1)
        for n, book in enumerate(books):
            before = book.vectors.clone()
            (part,), loss = _pass(update, [book], [residual])
            if shared and n < len(books) - 1:
                book.vectors.copy_(before)  # one codebook for all; it moves at the end
            residual = residual - (
                gradient_share * part.vectors + (1 - gradient_share) * part.vectors.detach()
            )
            total = total + part.vectors
            codes.append(part.codes)
            losses.append(loss)
        return total[..., None, :], torch.stack(codes, -1), torch.stack(losses)

    outputs = _outputs(case, config, groups, update, quantized)
    if not case.outputs["loss"].ndim:
        outputs["loss"] = outputs["loss"].sum()
    if shared:
        for name in ("embed_after", "cluster_size_after", "embed_avg_after"):
            outputs[name] = outputs[name].expand(len(sizes), *outputs[name].shape[1:])
    return outputs


class _Books(Groups):
    books: nn.ModuleList


def _pass(step: CodebookUpdate, books: Any, looked_up: Sequence[Tensor]) -> tuple[list[NearestCodes], Tensor]:
    """Rows (rows, positions, channels) through a codebook each, which learns from them in training mode."""
    before = [book.vectors.clone() for book in books]
    parts = [book(x) for book, x in zip(books, looked_up, strict=True)]
    if not books[0].training:
        return parts, torch.zeros(())
    losses = []
    for book, *place in zip(books, looked_up, parts, before, strict=True):
        step.learn(book)
        losses.append(step.loss(book, *place))
    loss = torch.stack(losses).mean()
    if step.diversity:
        loss = loss + step.evenness(books, looked_up, before)
    return [part._replace(vectors=step.through(part.vectors)) for part in parts], loss


def _outputs(
    case: Case, config: Config, groups: _Books, update: CodebookUpdate, quantized: Any
) -> dict[str, Tensor]:
    """Codes and vectors in use, then a training pass and the codebooks after it."""

    residual = "num_quantizers" in config

    def through(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        without_sequence = x.ndim == 2  # vectors without a sequence
        split = groups.split(x[:, None] if without_sequence else x)
        places = split.shape[1:-2]
        vectors, codes, loss = quantized(split.flatten(1, -3))
        joined = groups.join(vectors.unflatten(1, places))
        codes = codes.unflatten(1, places)
        codes = codes if codes.shape[-1] > 1 or residual else codes[..., 0]
        return (joined[:, 0], codes[:, 0], loss) if without_sequence else (joined, codes, loss)

    groups.eval()
    vectors, codes, _ = through(case.inputs["x"])
    groups.train()
    x = case.inputs["x"].clone().requires_grad_()
    trained, _, losses = through(x)
    (losses.sum() + (trained * case.inputs["r"]).sum()).backward()
    books: Any = groups.books
    outputs = {
        "quantized": vectors,
        "indices": codes,
        "loss": losses,
        "quantized_train": trained,
        "grad_x": gradient(x),
    }
    if len({len(book.vectors) for book in books}) == 1:
        outputs["embed_after"] = torch.stack([book.vectors for book in books])
        outputs["cluster_size_after"] = torch.stack([book.counts for book in books])
        outputs["embed_avg_after"] = torch.stack([book.sums for book in books])
    return outputs


def _channel_first(config: Config) -> bool:
    images = [config.get(key, False) for key in ("accept_image_fmap", "accept_3d_fmap")]
    return any(images) or not config.get("channel_last", True)


def _book_rules(
    case: Case, config: Config, width: int, theirs: str, ours: list[str], size: int | None = None
) -> list[Rule | Unused | OwnTensors]:
    """The codebooks that are one tensor of theirs."""
    if config.get("kmeans_init", False) and not bool(
        case.tensors.get(theirs + "initted", torch.tensor(False))
    ):
        raise CheckpointError("kmeans_init is True: the original draws the codebook from its first input")
    size = config["codebook_size"] if size is None else size
    split = Split((1,) * len(ours))
    vectors = Chain((split, Reshape((1, size, width), (size, width))))
    counts = Chain((split, Reshape((1, size), (size,))))
    return [
        Unused(theirs + "initted"),
        Rule(theirs + "embed", tuple(book + "vectors" for book in ours), vectors),
        Rule(theirs + "embed_avg", tuple(book + "sums" for book in ours), vectors),
        Rule(theirs + "cluster_size", tuple(book + "counts" for book in ours), counts),
        *(OwnTensors(book + own) for book in ours for own in OWN),
    ]


def _load(outside: _Books, entries: list[Any], case: Case) -> None:
    names = NameMap(*entries, *PLAIN, Rule("q.{rest...}", "{rest...}"))
    ours, _ = names.to_ours(case.tensors, case.name)
    load_named(outside, ours, names, case.name)
    books: Any = outside.books
    for book in books:
        book.batches.fill_(book.settle)  # or it would start from the first step
