"""The discriminator of VQGAN."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from chiasm.critics import Critic
from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss
from chiasm.nn.stepwise import Stepwise
from chiasm.parts.bounds import Batches, Decay, Depth, Weight, Width

MOST_BALANCE = 1e4  # of the balance between the gradients (taming-transformers)
STEADY = 1e-4


class PatchGAN(Critic, Stepwise, Indivisible, name="patchgan"):
    """A discriminator of patches (PatchGAN, arXiv 1611.07004), with VQGAN's balance of gradients (2012.09841).

    It learns by the hinge loss to tell originals from reconstructions, patch by patch, while the tokenizer learns
    to have its reconstructions taken for originals. `weight` is multiplied by how much larger the gradient of the
    other losses is at the tokenizer's last layer than that of this one. The balance and the discriminator's batch
    norms are of a whole batch, so a step may not be shared out among micro-batches or processes.

    Published: taming and LlamaGen weight 0.5 to 0.8, balanced; Open-MAGVIT2 weight 0.1, balanced false,
    non_saturating true, own 0.8, lecam 0.05.

    Args:
        weight: of the tokenizer's loss.
        start: steps before it begins to learn and its loss to count.
        balanced: whether the weight follows the gradients.
        non_saturating: the tokenizer's loss is log(1 + exp(-logit)) instead of -logit.
        own: weight of the discriminator's loss.
        lecam: weight of LeCAM's pull of its logits towards the others' moving average (arXiv 2104.03310); 0 = none.
        lecam_decay: share of these averages that each step retains.
        width: channels behind the first layer.
        depth: layers that halve the resolution.
    """

    def __init__(
        self,
        *,
        weight: Weight = 0.5,
        start: Batches = 20_000,
        balanced: bool = True,
        non_saturating: bool = False,
        own: Weight = 1.0,
        lecam: Weight = 0.0,
        lecam_decay: Decay = 0.999,
        width: Width = 64,
        depth: Depth = 3,
    ):
        super().__init__()
        self.weight, self.start, self.balanced, self.non_saturating = weight, start, balanced, non_saturating
        self.own, self.lecam, self.lecam_decay = own, lecam, lecam_decay
        self.network = _network(width, depth)
        self._used = False  # since the last step
        self._next_averages: Float[Tensor, " two"] | None = None  # of the logits, after this step
        self.batches: Int[Tensor, ""]
        self.averages: Tensor
        self.register_buffer("batches", torch.tensor(0))
        self.register_buffer("averages", torch.zeros(2))  # of the logits of originals and of reconstructions

    def losses(
        self,
        reconstructed: Float[Tensor, "n 3 h w"],
        original: Float[Tensor, "n 3 h w"],
        error: Float[Tensor, ""],
        last_weight: Float[Tensor, ...],
    ) -> dict[str, Loss]:
        """`adversarial` teaches the tokenizer; `discriminator` and `lecam` teach the discriminator alone."""
        started = bool(self.batches >= self.start)
        if self.training:
            self._used = True
        if not started:
            return {
                name: Loss(reconstructed.new_zeros(()), _count(reconstructed), 0.0) for name in self._names
            }
        # The discriminator's weights are constants here; in its own losses the images are.
        fixed = {name: value.detach() for name, value in self.network.named_parameters()}
        logits = functional_call(self.network, fixed, (2 * reconstructed - 1,)).float().flatten(1)
        adversarial = (functional.softplus(-logits) if self.non_saturating else -logits).mean(1)
        weight = self.weight * self._balance(error, adversarial.mean(), last_weight)
        real, fake = (
            self.network(2 * each.detach() - 1).float().flatten(1) for each in (original, reconstructed)
        )
        discriminator = functional.relu(1 - real).mean(1) + functional.relu(1 + fake).mean(1)
        losses = {
            "adversarial": Loss.of(adversarial, weight),
            "discriminator": Loss.of(discriminator / 2, self.own),
        }
        if self.lecam:
            losses["lecam"] = Loss.of(self._pulled(real, fake), self.lecam)
        return losses

    def indivisible(self, *, ranks: bool, rows: int) -> str:
        return "critic 'patchgan' normalises and balances by each batch's own statistics; leave it out"

    @torch.no_grad()
    def after_step(self) -> None:
        self.batches += int(self._used)
        if self._next_averages is not None:
            self.averages.copy_(self._next_averages)
        self.forget()

    def forget(self) -> None:
        self._used, self._next_averages = False, None

    @property
    def _names(self) -> list[str]:
        return ["adversarial", "discriminator"] + ["lecam"] * bool(self.lecam)

    def _balance(self, error: Tensor, adversarial: Tensor, last_weight: Tensor) -> float:
        if not (self.balanced and error.requires_grad and last_weight.requires_grad):
            return 1.0
        error_gradient, adversarial_gradient = (
            torch.autograd.grad(each, last_weight, retain_graph=True)[0].norm()
            for each in (error, adversarial)
        )
        return float((error_gradient / (adversarial_gradient + STEADY)).clamp(0, MOST_BALANCE))

    def _pulled(self, real: Float[Tensor, "n p"], fake: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        if self.training:
            means = torch.stack([real.detach().mean(), fake.detach().mean()])
            self._next_averages = self.averages.lerp(means, 1 - self.lecam_decay)
        average_real, average_fake = self.averages if self._next_averages is None else self._next_averages
        terms = functional.relu(real - average_fake).square() + functional.relu(average_real - fake).square()
        return terms.mean(1)


def _network(width: int, depth: int) -> nn.Sequential:
    """pix2pix's discriminator: 4 x 4 convolutions, `depth` of stride 2, that end in one logit a patch."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    channels = width
    for level in range(1, depth + 1):
        wider = width * min(2**level, 8)
        stride = 2 if level < depth else 1
        layers += [
            nn.Conv2d(channels, wider, 4, stride, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.LeakyReLU(0.2),
        ]
        channels = wider
    network = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return network


def _count(images: Tensor) -> Tensor:
    return torch.tensor(float(len(images)), device=images.device)
