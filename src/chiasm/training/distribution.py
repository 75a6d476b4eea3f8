"""One process or many: what `torchrun` has set up is used, and nothing else needs to be said."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BUCKET_ELEMENTS = 16 * 2**20  # 64 MiB in fp32


@dataclass(frozen=True)
class Ranks:
    """The processes of a run; with one, every method is free."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @staticmethod
    def start() -> Ranks:
        """Join the processes that `torchrun` started, if it did: gloo on CPU, nccl on CUDA."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return Ranks()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return Ranks(dist.get_rank(), world, int(os.environ.get("LOCAL_RANK", "0")))

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in order of rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def totals(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Sums over all processes by name; a name that only some processes know counts too."""
        sums: dict[str, float] = {}
        for own in self.gather(dict(numbers)):
            for name, value in own.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def any(self, flag: bool) -> bool:
        return any(self.gather(flag))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of all processes, in flat buckets.

        A process whose batch did not touch a parameter (no picture in it, say) brings zeros, so that no one
        waits for it. What nobody touched keeps no gradient, as with one process.
        """
        if self.world == 1:
            return
        touched = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        dist.all_reduce(touched)
        used = [parameter for parameter, count in zip(parameters, touched.tolist()) if count]
        for bucket in _buckets(used):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            for parameter, summed in zip(bucket, flat.split([p.numel() for p in bucket])):
                parameter.grad = summed.view_as(parameter).clone()

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Make the tensors of every process those of the first."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def stop(self) -> None:
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _buckets(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters of one type side by side, as many as fit into a bucket."""
    buckets: list[list[nn.Parameter]] = []
    filled = 0
    for parameter in parameters:
        if (
            not buckets
            or filled + parameter.numel() > _BUCKET_ELEMENTS
            or buckets[-1][0].dtype != parameter.dtype
        ):
            buckets.append([])
            filled = 0
        buckets[-1].append(parameter)
        filled += parameter.numel()
    return buckets
