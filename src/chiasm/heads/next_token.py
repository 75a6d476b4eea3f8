"""Pictures as codes predicted one after another in raster order."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.bounds import Chance
from chiasm.errors import ChiasmError
from chiasm.generators import Generators
from chiasm.heads import Ask, DrawingState, ImageHead, Sampling, Span, SpanLayout, Writing, raster
from chiasm.heads.sampling import choose, guided
from chiasm.losses import Loss


class NextToken(ImageHead, name="next_token"):
    """Next-token prediction over image codes with a vocabulary of their own (LlamaGen, arXiv 2406.06525).

    Every code opens an attention block of its own, so codes are seen causally, as words are. A code's
    embedding carries a learned embedding of its cell, which tells the language model which cell comes next;
    the marker that begins a picture always predicts the first cell. Embedding and output layer are separate
    from the language model's, so text can never hold image codes, nor a picture words.

    Args:
        unconditional: share of training pictures that follow an empty prompt, for guidance (0 = never).
    """

    shows = True

    def __init__(
        self,
        width: int,
        codebook_size: int,
        grid: tuple[int, int],
        *,
        unconditional: Chance = 0.1,
    ):
        super().__init__()
        self._set_up(codebook_size, grid, unconditional)
        self.codes = nn.Embedding(codebook_size, width)
        self.cells = nn.Embedding(grid[0] * grid[1], width)
        output = nn.Linear(width, codebook_size, bias=False)
        self.output: nn.Module = output
        for layer in (self.codes, self.cells, output):
            nn.init.normal_(layer.weight, std=0.02)

    def _set_up(self, codebook_size: int, grid: tuple[int, int], unconditional: float) -> None:
        self.codebook_size, self.grid = codebook_size, grid
        self.unconditional = unconditional

    @property
    def length(self) -> int:
        """Codes of a picture."""
        return self.grid[0] * self.grid[1]

    def layout(self) -> SpanLayout:
        count = self.length
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
        return Span(self._embed(flat, first=0), flat)

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        return {"image": code_loss(self.logits(hidden), span)}

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw cell by cell. The last code is not asked to be read; whoever goes on after the image does that."""
        known = begun(progress, start, count_images(start, sampling.guidance, self.unconditional))
        codes = yield from self._continue(start, known, sampling, generators, progress)
        return rearrange(codes, "n (gh gw) -> n gh gw", gh=self.grid[0])

    def _continue(
        self,
        start: Float[Tensor, "r d"],
        codes: Int[Tensor, "n m"],
        sampling: Sampling,
        generators: Generators | None,
        progress: DrawingState | None,
    ) -> Writing:
        """Complete images whose first m codes are known and not yet read."""
        known, hidden = 0, start
        while codes.shape[1] < self.length and not self._ended(codes):
            if codes.shape[1] > known:
                unread = self._embed(codes[:, known:], first=known)
                hidden = (yield Ask(doubled(unread, sampling.guidance)))[:, -1]
                known = codes.shape[1]
            code = choose(self._guided(hidden, codes, sampling.guidance), sampling, generators)
            codes = torch.cat([codes, code[:, None]], 1)
            if progress is not None:
                progress.note(codes, codes.shape[1])
        return codes

    def _ended(self, codes: Int[Tensor, "n m"]) -> bool:
        """Whether the pictures are whole before their last cell."""
        return False

    def _guided(
        self, hidden: Float[Tensor, "r d"], codes: Int[Tensor, "n m"], guidance: float
    ) -> Float[Tensor, "n k"]:
        """Logits of the code that follows `codes`."""
        return guided(self.logits(hidden), guidance)

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        """Of the codes that hidden states predict."""
        return self.output(hidden).float()

    def _embed(self, codes: Int[Tensor, "n m"], first: int) -> Float[Tensor, "n m d"]:
        """Embeddings of the codes of the cells `first`, `first + 1`, ..."""
        return self.codes(codes) + self.cells.weight[first : first + codes.shape[1]]


def check_codes(codes: Int[Tensor, "n gh gw"], grid: tuple[int, int], codebook_size: int) -> None:
    """Raise ChiasmError on codes of another tokenizer."""
    if tuple(codes.shape[1:]) != tuple(grid):
        raise ChiasmError(f"codes of shape {tuple(codes.shape)} given to an image head of grid {grid}")
    if codes.numel() and not (codes.min() >= 0 and codes.max() < codebook_size):
        raise ChiasmError(
            f"codes from {int(codes.min())} to {int(codes.max())} given to an image head of "
            f"{codebook_size} codes (0 to {codebook_size - 1})"
        )


def count_images(start: Float[Tensor, "r d"], guidance: float, unconditional: float) -> int:
    """How many images are drawn; raises ChiasmError when guidance lacks the rows without a prompt."""
    if guidance != 1 and unconditional == 0:
        raise ChiasmError(
            f"guidance {guidance} needs a head trained with empty prompts, but its 'unconditional' is 0: "
            "use guidance 1 or train with unconditional > 0"
        )
    rows = len(start)
    if guidance != 1 and rows % 2:
        raise ChiasmError(
            f"guidance needs a row with and a row without each prompt, but there are {rows} rows"
        )
    return rows if guidance == 1 else rows // 2


def doubled(values: Tensor, guidance: float) -> Tensor:
    """What the rows of images read: with guidance those without a prompt read the same."""
    return values if guidance == 1 else torch.cat([values, values])


def begun(progress: DrawingState | None, start: Float[Tensor, "r d"], images: int) -> Int[Tensor, "n m"]:
    """The codes that were drawn before the drawing was stopped; none of a fresh image."""
    if progress is not None and progress.values is not None:
        return progress.values
    return torch.zeros(images, 0, dtype=torch.long, device=start.device)


def code_loss(logits: Float[Tensor, "n m k"], span: Span) -> Loss:
    """Cross-entropy of the codes, one term each that has something to be predicted from."""
    terms = functional.cross_entropy(rearrange(logits, "n m k -> n k m"), span.targets, reduction="none")
    return Loss.of(terms if span.orphans is None else terms[learnt(span)])


def learnt(span: Span) -> Bool[Tensor, "n m"]:
    """The targets of a next-token head that have something to be predicted from: not an orphan's first."""
    assert span.orphans is not None
    learns = torch.ones_like(span.targets, dtype=torch.bool)
    learns[:, 0] = ~span.orphans
    return learns
