"""What several orders share: checks of what they are given, which targets are learnt, and the rows of guidance."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from chiasm.errors import ChiasmError, RecipeError
from chiasm.heads import Alphabet, DrawingState, Order, Span
from chiasm.nn.losses import Loss
from chiasm.tokenizers.spaces import Codes, Space, check_codes


def check_target(target: Shaped[Tensor, "n gh gw ..."], space: Space) -> None:
    """Raise ChiasmError on what another image tokenizer has encoded."""
    if isinstance(space, Codes):
        check_codes(target, space.grid, space.size, "an image head")
    elif tuple(target.shape[1:]) != (*space.grid, space.width):
        raise ChiasmError(
            f"vectors of shape {tuple(target.shape)} given to an image head of grid {tuple(space.grid)} and width "
            f"{space.width}"
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


def begun(
    progress: DrawingState | None, start: Float[Tensor, "r d"], images: int, space: Space
) -> Shaped[Tensor, "n m"]:
    """The values that were drawn before the drawing was stopped; none of a fresh image."""
    if progress is not None and progress.values is not None:
        return progress.values
    if isinstance(space, Codes):
        return torch.zeros(images, 0, dtype=torch.long, device=start.device)
    return torch.zeros(images, 0, space.width, device=start.device)


def with_retained(values: Shaped[Tensor, "n m"], progress: DrawingState | None) -> Shaped[Tensor, "n l"]:
    """Values and those behind them that stay as they are, up to the next that is to be drawn."""
    if progress is None or progress.retained is None:
        return values
    retained, redrawn = progress.retained
    begin = values.shape[1]
    run = redrawn[begin:].nonzero()
    end = begin + int(run[0]) if len(run) else len(retained)
    following = retained[begin:end].to(values)
    return torch.cat([values, following.expand(len(values), *following.shape)], 1)


def not_orphaned(span: Span) -> Bool[Tensor, "n m"]:
    """The targets that have something to be predicted from, where row -1 predicts the first: not an orphan's."""
    learns = torch.ones(span.targets.shape[:2], dtype=torch.bool, device=span.targets.device)
    if span.orphans is not None:
        learns[:, 0] = ~span.orphans
    return learns


def value_losses(alphabet: Alphabet, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
    """The loss of every target, one term each that has something to be predicted from."""
    if span.orphans is None:  # nothing is to be looked for
        return counted(alphabet, hidden.flatten(0, 1), span.targets.flatten(0, 1))
    learns = not_orphaned(span)
    return counted(alphabet, hidden[learns], span.targets[learns])


def counted(
    alphabet: Alphabet, hidden: Float[Tensor, "m d"], values: Shaped[Tensor, " m"]
) -> dict[str, Loss]:
    """The alphabet's loss of these values, one term each."""
    total = alphabet.loss(hidden, values)
    return {alphabet.counted_as: Loss(total, total.new_tensor(float(len(values))))}


def at_cells(
    embeddings: Float[Tensor, "n m d"], cells: nn.Embedding | None, first: int = 0
) -> Float[Tensor, "n m d"]:
    """With the embeddings of their cells, `first` and those behind it, where cells have any."""
    if cells is None:
        return embeddings
    return embeddings + cells.weight[first : first + embeddings.shape[1]]


def cell_embedding(count: int, width: int) -> nn.Embedding:
    cells = nn.Embedding(count, width)
    nn.init.normal_(cells.weight, std=0.02)
    return cells


def refuse_strays(order: Order, alphabet: Alphabet) -> None:
    """Raise RecipeError for an alphabet that may draw what only an order of variable length leaves out."""
    if alphabet.strays:
        raise RecipeError(
            f"alphabet {alphabet.name!r} has stray words, which order {order.name!r} would take for codes: leave "
            "them out, or use order 'variable'"
        )
