"""Open-MAGVIT2's head: a code too large for one softmax is written as a few small sub-tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from chiasm.bounds import Chance, Depth, Epsilon, Heads, Positive, Share, Width
from chiasm.errors import RecipeError
from chiasm.generators import Generators
from chiasm.heads import Ask, DrawingState, ImageHead, Sampling, Span, SpanLayout, Writing, raster
from chiasm.heads.next_token import begun, check_codes, count_images, doubled, learnt
from chiasm.heads.sampling import choose, guided
from chiasm.language.llama_block import GridRotation, LlamaBlock, Turns, initialise
from chiasm.layout import Layout
from chiasm.losses import Loss
from chiasm.tokenizers.lookup_free import join_code, split_code


class Factorised(ImageHead, name="factorised"):
    """Open-MAGVIT2's factorised codes (arXiv 2409.04410).

    The bits of a code's number are cut into sub-tokens, the lowest bits first. What stands at a code's position is
    the sum of its sub-tokens' embeddings; a small transformer of its own, behind the language model's hidden state,
    predicts them one after another. The language model needs no last norm: the head's own stands behind both.

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
        unconditional: share of training pictures that follow an empty prompt, for guidance (0 = never).
    """

    def __init__(
        self,
        width: int,
        codebook_size: int,
        grid: tuple[int, int],
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
        unconditional: Chance = 0.1,
    ):
        super().__init__()
        if 2 ** sum(bits) != codebook_size:
            raise RecipeError(
                f"image_head 'factorised': {' + '.join(map(str, bits))} bits make {2 ** sum(bits)} codes, but the "
                f"image tokenizer has {codebook_size}"
            )
        self.bits, self.codebook_size, self.grid = list(bits), codebook_size, grid
        self.unconditional = unconditional
        self.guidance_offsets = self._each("guidance_offsets", guidance_offsets, 0.0)
        self.temperature_factors = self._each("temperature_factors", temperature_factors, 1.0)
        self.top_ks = self._each("top_ks", top_ks, 0)
        self.tables = nn.ModuleList(nn.Embedding(2**count, width) for count in bits)
        self.rotation = GridRotation(width // heads, rope_base)
        self.layers = nn.ModuleList(
            LlamaBlock(width, heads, heads, hidden, epsilon, dropout) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, epsilon)
        self.outputs = nn.ModuleList(nn.Linear(width, 2**count, bias=False) for count in bits)
        initialise(self)
        for output in self.outputs:
            nn.init.zeros_(output.weight)  # type: ignore[arg-type]

    def layout(self) -> SpanLayout:
        count = self.grid[0] * self.grid[1]
        return SpanLayout(
            opens=(True,) * count,
            exposed=(True,) * count,
            rows=tuple(range(-1, count - 1)),
            coordinates=raster(*self.grid),
        )

    def prepare(self, codes: Int[Tensor, "n gh gw"]) -> Span:
        """Embeddings to read at the codes' positions; raises ChiasmError on codes of another tokenizer."""
        check_codes(codes, self.grid, self.codebook_size)
        flat = rearrange(codes, "n gh gw -> n (gh gw)")
        return Span(self.embed(flat), flat)

    def embed(self, codes: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        parts = split_code(codes, self.bits)
        return torch.stack([table(part) for table, part in zip(self.tables, parts, strict=True)]).sum(0)

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        """`image`: the sum of the cross-entropies of a code's sub-tokens."""
        terms = self.part_losses(hidden, span.targets).sum(0)
        return {"image": Loss.of(terms if span.orphans is None else terms[learnt(span)])}

    def part_losses(
        self, hidden: Float[Tensor, "n m d"], codes: Int[Tensor, "n m"]
    ) -> Float[Tensor, "p n m"]:
        """The cross-entropy of each sub-token."""
        parts = split_code(codes, self.bits)
        return torch.stack(
            [
                functional.cross_entropy(rearrange(logits, "n m k -> n k m"), part, reduction="none")
                for logits, part in zip(self.logits(hidden, parts), parts, strict=True)
            ]
        )

    def logits(
        self, hidden: Float[Tensor, "n m d"], parts: Sequence[Int[Tensor, "n m"]]
    ) -> list[Float[Tensor, "n m k"]]:
        """Logits of every sub-token, each given the true ones before it."""
        before = [table(part) for table, part in zip(self.tables, parts[:-1], strict=False)]
        read = self._read(torch.stack([hidden, *before], 2).flatten(0, 1)).unflatten(0, hidden.shape[:2])
        return [output(read[:, :, i]).float() for i, output in enumerate(self.outputs)]

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw cell by cell and sub-token by sub-token; see `NextToken.write`."""
        codes = begun(progress, start, count_images(start, sampling.guidance, self.unconditional))
        known, hidden = 0, start
        while codes.shape[1] < self.grid[0] * self.grid[1]:
            if codes.shape[1] > known:
                unread = self.embed(codes[:, known:])
                hidden = (yield Ask(doubled(unread, sampling.guidance)))[:, -1]
                known = codes.shape[1]
            code = self._draw(hidden, sampling, generators)
            codes = torch.cat([codes, code[:, None]], 1)
            if progress is not None:
                progress.note(codes, codes.shape[1])
        return rearrange(codes, "n (gh gw) -> n gh gw", gh=self.grid[0])

    def _draw(
        self, hidden: Float[Tensor, "r d"], sampling: Sampling, generators: Generators | None
    ) -> Int[Tensor, " n"]:
        """The code of one cell. The few sub-tokens before are read again for each: that is cheaper than a cache."""
        read = hidden[:, None]
        parts: list[Int[Tensor, " n"]] = []
        for i, output in enumerate(self.outputs):
            if i:
                part = doubled(parts[-1], sampling.guidance)
                read = torch.cat([read, self.tables[i - 1](part)[:, None]], 1)
            logits = output(self._read(read)[:, -1]).float()
            if sampling.guidance != 1:
                strength = sampling.guidance + self.guidance_offsets[i]
                logits = guided(logits, strength) if strength != 1 else logits.chunk(2)[0]
            limits = [k for k in (sampling.top_k, self.top_ks[i]) if k]
            own = replace(
                sampling,
                temperature=sampling.temperature * self.temperature_factors[i],
                top_k=min(limits, default=0),
            )
            parts.append(choose(logits, own, generators))
        return join_code(parts, self.bits)

    def _read(self, x: Float[Tensor, "n s d"]) -> Float[Tensor, "n s d"]:
        rows, count = x.shape[:2]
        layout = replace(Layout.causal(rows, count, x.device), queries=count)  # too short for other kernels
        turns = self._turns(count, x.device)
        for layer in self.layers:
            x = layer(x, turns, layout)
        return self.norm(x)

    def _turns(self, count: int, device: torch.device) -> Turns:
        """As in the published models: the hidden state has no place, sub-tokens take the grid's first ones."""
        steps = torch.arange(count, device=device)[None]
        cells = (steps - 1).clamp(min=0)
        return self.rotation(cells // self.grid[1], cells % self.grid[1], steps > 0)

    def _each(self, option: str, values: Sequence, default: float) -> list:
        if len(values) not in (0, len(self.bits)):
            raise RecipeError(
                f"image_head 'factorised': {option} has {len(values)} values for {len(self.bits)} sub-tokens"
            )
        return list(values) or [default] * len(self.bits)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"bits": [1, 3], "depth": 1, "heads": 4, "hidden": 48}
