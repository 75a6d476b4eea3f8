"""One process or many, as `torchrun` has set them up; nothing else needs to be configured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chiasm.distribution.devices import choose_device

_BUCKET_ELEMENTS = 16 * 2**20  # 64 MiB in fp32


@dataclass(frozen=True)
class Ranks:
    """The processes of a run; with one, every method is free.

    device: where this process computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @staticmethod
    def start(device: torch.device) -> Ranks:
        """Join the processes that `torchrun` started, if it did: by nccl on CUDA, each with a card of its own, else
        by gloo."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world > 1 and device.type == "cuda":
            device = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if world == 1:
            return Ranks(device=device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return Ranks(dist.get_rank(), world, device)

    @property
    def first(self) -> bool:
        return self.rank == 0

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

        A process whose batch did not touch a parameter (no image in it, say) adds zeros, so that no process
        waits for it. A parameter that no process touched has no gradient.
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
