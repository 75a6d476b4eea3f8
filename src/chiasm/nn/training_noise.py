"""Random numbers of losses: which items are masked, at which times of their noise they are learnt, and the noise.

With gradients they come from torch's generator, which a run seeds by (seed, stage, process) and restores when
it goes on; on CPUs they are drawn item by item, so that it does not matter over how many batches a step is shared
out.
Without, they are a function of the items alone, so that an evaluation can be repeated.

Two ways of old stand side by side, for runs that go on need their numbers: `training_numbers` takes them from
torch's generator itself, `TrainingNoise` seeds with it a source for each item.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from chiasm.nn.generators import Generators


def training_numbers(values: Shaped[Tensor, "n ..."], shape: tuple[int, ...]) -> Float[Tensor, "n ..."]:
    """Numbers of [0, 1) for each value of a loss: a vector, or an image's vectors or codes in a row.

    Without gradients they do not depend on the last bits of vectors, which depend on what else is in a batch.
    """
    if torch.is_grad_enabled():
        return torch.rand(len(values), *shape, device=values.device)
    if not values.is_floating_point():
        return _of_codes(values, shape)
    seeds = (values.detach().float().flatten(1).mean(1) * 1000).round().long().abs().tolist()
    return Generators(seeds).uniform(*shape, device=values.device)


def _of_codes(codes: Int[Tensor, "n k"], shape: tuple[int, ...]) -> Float[Tensor, "n ..."]:
    places = torch.arange(1, codes.shape[1] + 1, device=codes.device)
    seeds = (codes * places).sum(1).tolist()
    rows = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(codes.device) if rows else torch.zeros(0, *shape, device=codes.device)


class TrainingNoise:
    """Random numbers for the losses of a batch, of each item's own seed.

    items: whose first axis is that of the batch.
    """

    def __init__(self, items: Tensor):
        self._device = items.device
        if torch.is_grad_enabled():
            seeds = torch.randint(2**63 - 1, (len(items),)).tolist()
        else:
            seeds = [_digest(item) for item in items]
        self._own = Generators(seeds)

    def uniform(self, *shape: int) -> Float[Tensor, "n ..."]:
        """Numbers of [0, 1) for each item."""
        return self._own.uniform(*shape, device=self._device)

    def normal(self, *shape: int) -> Float[Tensor, "n ..."]:
        """Numbers of the standard normal distribution for each item."""
        return self._own.normal(*shape, device=self._device)


def _digest(item: Tensor) -> int:
    """A number below `SEEDS` that says what the item holds."""
    values = item.detach().float().cpu().contiguous().numpy().tobytes()
    return int.from_bytes(blake2b(values, digest_size=8).digest(), "big")
