"""A code too large for one softmax, written as a few small sub-tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.heads import Alphabet, DrawnValues, HeadContext, Sampling
from chiasm.heads.sampling import choose, guided
from chiasm.heads.spans import doubled
from chiasm.language.llama_block import GridRotation, LlamaBlock, Rotary, initialise
from chiasm.nn.generators import Generators
from chiasm.nn.losses import cross_entropy
from chiasm.parts.bounds import Depth, Epsilon, Heads, Positive, Share, Width
from chiasm.sequence.layout import Layout
from chiasm.tokenizers.lookup_free import join_code, split_code


class Factorised(Alphabet, name="factorised"):
    """Open-MAGVIT2's factorised codes (arXiv 2409.04410).

    The bits of a code's number are cut into sub-tokens, the lowest bits first. What stands at a code's position is
    the sum of its sub-tokens' embeddings; a small transformer of its own, behind the language model's hidden state,
    predicts them one after another. The language model needs no last norm: this alphabet's own stands behind both.

    Args:
        bits: of each sub-token; together those of a code.
        depth: layers over the sub-tokens.
        heads: of attention.
        hidden: width inside the networks.
        rope_base: of the rotary embedding.
        epsilon: of the norms.
        dropout: of what attention and networks add, in training.
        guidance_offsets: what each sub-token adds to the guidance asked for; [] = nothing.
        temperature_factors: by what each sub-token multiplies the temperature asked for; [] = 1.
        top_ks: among how many values each sub-token is drawn, where fewer than are asked for; 0 = all, [] = all.
    """

    def __init__(
        self,
        context: HeadContext,
        symbols: int,
        *,
        bits: list[PositiveInt] = [6, 12],  # noqa: B006
        depth: Depth = 2,
        heads: Heads = 16,
        hidden: Width = 2816,
        rope_base: Positive = 10000.0,
        epsilon: Epsilon = 1e-5,
        dropout: Share = 0.1,
        guidance_offsets: list[float] = [],  # noqa: B006
        temperature_factors: list[float] = [],  # noqa: B006
        top_ks: list[NonNegativeInt] = [],  # noqa: B006
    ):
        super().__init__()
        size, width = context.codes.size, context.width
        if 2 ** sum(bits) != size:
            raise RecipeError(
                f"alphabet 'factorised': {' + '.join(map(str, bits))} bits make {2 ** sum(bits)} codes, but the "
                f"image tokenizer has {size}"
            )
        self.bits, self.size, self.columns = list(bits), size, context.codes.grid[1]
        self.guidance_offsets = self._each("guidance_offsets", guidance_offsets, 0.0)
        self.temperature_factors = self._each("temperature_factors", temperature_factors, 1.0)
        self.top_ks = self._each("top_ks", top_ks, 0)
        # The last sub-token's is only ever read at a position.
        self.tables = nn.ModuleList(
            nn.Embedding(2**count, width) for count in bits[: None if symbols else -1]
        )
        self.added = (
            nn.Embedding(symbols - size, width) if symbols > size else None
        )  # the order's own symbols
        self.rotation = GridRotation(width // heads, rope_base)
        self.layers = nn.ModuleList(
            LlamaBlock(width, heads, heads, hidden, epsilon, dropout) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, epsilon)
        self.outputs = nn.ModuleList(nn.Linear(width, 2**count, bias=False) for count in bits)
        initialise(self)
        for output in self.outputs:
            nn.init.zeros_(output.weight)  # type: ignore[arg-type]

    def embed(self, values: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        parts = split_code(values if self.added is None else values.clamp(max=self.size - 1), self.bits)
        codes = torch.stack([table(part) for table, part in zip(self.tables, parts, strict=True)]).sum(0)
        if self.added is None:
            return codes
        added = self.added((values - self.size).clamp(min=0))
        return torch.where((values < self.size)[..., None], codes, added)

    def loss(
        self,
        hidden: Float[Tensor, "m d"],
        values: Int[Tensor, " m"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> Float[Tensor, ""]:
        """The sum of the cross-entropies of a code's sub-tokens."""
        return torch.stack(self.part_losses(hidden, values, weights)).sum()

    def part_losses(
        self,
        hidden: Float[Tensor, "m d"],
        values: Int[Tensor, " m"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> list[Float[Tensor, ""]]:
        """The cross-entropy of each sub-token."""
        parts = split_code(values, self.bits)
        logits = self.logits(hidden, parts)
        return [cross_entropy(each, part, weights) for each, part in zip(logits, parts, strict=True)]

    def logits(
        self, hidden: Float[Tensor, "*s d"], parts: Sequence[Int[Tensor, "*s"]]
    ) -> list[Float[Tensor, "*s k"]]:
        """Logits of every sub-token, each given the true ones before it."""
        before = [table(part) for table, part in zip(self.tables, parts[:-1], strict=False)]
        read = self._read(torch.stack([hidden, *before], -2))
        return [output(read[..., i, :]).float() for i, output in enumerate(self.outputs)]

    def draw(
        self,
        hidden: Float[Tensor, "r ... d"],
        sampling: Sampling,
        generators: Generators | None = None,
        *,
        never: int | None = None,
    ) -> DrawnValues:
        """Sub-token by sub-token. The few before are read again for each: that is cheaper than a cache."""
        read = hidden[..., None, :]
        parts: list[Tensor] = []
        confidence = torch.ones((), device=hidden.device)
        for i, output in enumerate(self.outputs):
            if i:
                part = doubled(parts[-1], sampling.guidance)
                read = torch.cat([read, self.tables[i - 1](part)[..., None, :]], -2)
            logits = output(self._read(read)[..., -1, :]).float()
            if sampling.guidance != 1:
                strength = sampling.guidance + self.guidance_offsets[i]
                logits = guided(logits, strength) if strength != 1 else logits.chunk(2)[0]
            if never is not None and i == len(self.bits) - 1:
                logits = self._without(logits, parts, never)
            parts.append(choose(logits, self._own_sampling(sampling, i), generators))
            confidence = confidence * logits.softmax(-1).gather(-1, parts[-1][..., None])[..., 0]
        return DrawnValues(join_code(parts, self.bits), confidence)

    def _own_sampling(self, sampling: Sampling, index: int) -> Sampling:
        limits = [k for k in (sampling.top_k, self.top_ks[index]) if k]
        temperature = sampling.temperature * self.temperature_factors[index]
        return replace(sampling, temperature=temperature, top_k=min(limits, default=0))

    def _without(
        self, logits: Float[Tensor, "n ... k"], parts: Sequence[Int[Tensor, "n ..."]], never: int
    ) -> Float[Tensor, "n ... k"]:
        """Logits of the last sub-token that make no code `never` of those before it."""
        *before, last = (int(part) for part in split_code(torch.tensor(never), self.bits))
        same: Bool[Tensor, "n ..."] = torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)
        for part, value in zip(parts, before, strict=True):
            same = same & (part == value)
        forbidden = torch.arange(logits.shape[-1], device=logits.device) == last
        return logits.masked_fill(same[..., None] & forbidden, -torch.inf)

    def _read(self, x: Float[Tensor, "*n s d"]) -> Float[Tensor, "*n s d"]:
        """Hidden states and sub-tokens through the small transformer."""
        rows = x.flatten(0, -3)
        count = rows.shape[1]
        layout = replace(
            Layout.causal(len(rows), count, x.device), queries=count
        )  # too short for other kernels
        rotary = self._rotary(count, x.device)
        for layer in self.layers:
            rows = layer(rows, rotary, layout)
        return self.norm(rows).view_as(x)

    def _rotary(self, count: int, device: torch.device) -> Rotary:
        """As in the published models: the hidden state has no place, sub-tokens take the grid's first ones."""
        steps = torch.arange(count, device=device)[None]
        cells = (steps - 1).clamp(min=0)
        return self.rotation(cells // self.columns, cells % self.columns, steps > 0)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"bits": [1, 3], "depth": 1, "heads": 4, "hidden": 48}

    def _each(self, option: str, values: Sequence, default: float) -> list:
        if len(values) not in (0, len(self.bits)):
            raise RecipeError(
                f"alphabet 'factorised': {option} has {len(values)} values for {len(self.bits)} sub-tokens"
            )
        return list(values) or [default] * len(self.bits)
