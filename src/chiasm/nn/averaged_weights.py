"""A moving average of weights, with which what diffuses generates better than with those of its last step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from chiasm.nn.stepwise import Stepwise

DOT = ":"  # for the dots of a weight's name, which no buffer's may have


class AveragedWeights(Stepwise):
    """The exponential moving average of a module's weights, and the module as it is with them.

    Early averages forget faster, by (1 + steps) / (10 + steps); before the first step they are the module's own.

    Args:
        module: whose weights are averaged while they learn. They are saved where it stands, the averages here.
        decay: what a step keeps of the average.
    """

    steps: Tensor

    def __init__(self, module: nn.Module, decay: float):
        super().__init__()
        self._module, self.decay = (module,), decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        for name, parameter in module.named_parameters():
            self.register_buffer(name.replace(".", DOT), parameter.detach().clone())

    @torch.no_grad()
    def after_step(self) -> None:
        learning = {name: each for name, each in self._module[0].named_parameters() if each.requires_grad}
        if not learning:
            return
        steps = self.steps.float()
        share = torch.where(steps == 0, 1.0, 1 - ((1 + steps) / (10 + steps)).clamp(max=self.decay))
        for name, parameter in learning.items():
            average = self.get_buffer(name.replace(".", DOT))
            average.lerp_(parameter.to(average.dtype), share.to(average.dtype))
        self.steps += 1

    def forget(self) -> None:
        """A step that was skipped has changed nothing."""

    def forward(self, *inputs: Any) -> Any:
        """What the module makes with the averaged weights."""
        if self.steps == 0:
            return self._module[0](*inputs)
        weights = {name.replace(DOT, "."): each for name, each in self.named_buffers() if name != "steps"}
        return functional_call(self._module[0], weights, inputs)
