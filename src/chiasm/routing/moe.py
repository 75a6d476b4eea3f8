"""Sparse experts, the choice among them and its balance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Count, Heads, Positive, Weight
from chiasm.routing import Routing
from chiasm.routing.blocks import feed_forwards, original, replace, width_of
from chiasm.routing.choice import Choice, choose, gumbel
from chiasm.sequence.kinds import KINDS
from chiasm.sequence.layout import current_layout


class MoE(Routing, Indivisible, name="moe"):
    """MoE-LLaVA's sparse experts in place of feed-forward networks (arXiv 2401.15947).

    In the chosen layers every token meets its best `top_k` of several experts, weighted by a router. The experts
    begin as copies of the layer's own network, so that a dense checkpoint is upcycled (arXiv 2212.05055) and an
    untrained router changes nothing; that network itself then stands by idle, unless `residual`. Padding meets no
    expert and counts for nothing.

    Without a capacity a token's output depends on no other token, and packing changes nothing. The original has
    `capacity: 1.5, eval_capacity: 2.0` in DeepSpeed, and noise in use as well.

    Args:
        experts: how many in a layer, or in each of the chosen layers.
        top_k: how many a token meets.
        layers: which feed-forward networks become experts, counted from 0; 'alternate' is every other one from
            the first, as the original's.
        capacity: in training, an expert has room for this many times its even share of the choices; what finds
            no room is dropped, and the weights of the others are raised. None: for all.
        eval_capacity: likewise in use.
        min_capacity: least room of an expert, in tokens.
        noise: when Gumbel noise is added to the scores of every choice but the first.
        residual: the layer's own network is met as well, and a second router weighs the two (arXiv 2201.05596).
        balance: weight of the loss that keeps the experts in use alike.
    """

    names = ("balance",)

    def __init__(
        self,
        language: nn.Module,
        *,
        experts: Heads | list[Heads] = 4,
        top_k: Heads = 2,
        layers: Literal["alternate", "all"] | list[int] = "alternate",
        capacity: Positive | None = None,
        eval_capacity: Positive | None = None,
        min_capacity: Count = 0,
        noise: Literal["never", "training", "always"] = "training",
        residual: bool = False,
        balance: Weight = 0.01,
    ):
        super().__init__()
        self.weight, self.capacities = balance, {True: capacity, False: eval_capacity}
        networks = _chosen(feed_forwards(language, self.name), layers)
        counts = experts if isinstance(experts, list) else [experts] * len(networks)
        if len(counts) != len(networks) or min(counts) < top_k:
            raise RecipeError(
                f"routing 'moe' has {len(networks)} layers of experts and meets {top_k}, but experts is {experts}"
            )
        self.layers = nn.ModuleDict()
        for (name, network), count in zip(networks.items(), counts, strict=True):
            layer = Experts(
                network,
                width_of(language),
                count,
                top_k=top_k,
                capacity=capacity,
                eval_capacity=eval_capacity,
                min_capacity=min_capacity,
                noise=noise,
                residual=residual,
            )
            self.layers[name.replace(".", "/")] = layer  # a module's name cannot contain a dot
            replace(network, layer.forward)

    def losses(self) -> dict[str, Loss]:
        """`balance`: a term a token, which adds up those of the layers."""
        balances = [each.balance for each in self.each() if each.balance is not None]
        for layer in self.each():
            layer.balance = None
        if not self.training or not self.weight or not balances:
            return {}
        return {
            "balance": Loss(
                torch.stack([each.sum for each in balances]).sum(), balances[0].count, self.weight
            )
        }

    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        if self.capacities[self.training] is not None:
            return "an expert of routing 'moe' has room for a share of a whole batch's tokens; set capacity: null"
        if self.weight and not ranks:
            return "routing 'moe' keeps the use of its experts alike over a whole batch; set balance: 0"
        return None

    def report(self) -> dict[str, Any]:
        """By layer and kind of token (text, read, written): each expert's share of the choices since the last
        report. Kinds that did not occur are left out."""
        shares: dict[str, dict[str, list[float]]] = {}
        for name, layer in zip(self.layers, self.each(), strict=True):
            rows = {} if layer.use is None else dict(zip(KINDS, layer.use.double(), strict=True))
            layer.use = None
            shares[name.replace("/", ".")] = {
                kind: (row / row.sum()).tolist() for kind, row in rows.items() if row.sum()
            }
        return shares

    def each(self) -> list[Experts]:
        return list(self.layers.values())  # type: ignore[arg-type]

    def merge(self) -> None:
        """Nothing: experts cannot be added up."""

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"experts": 3}


class Experts(nn.Module):
    """Several copies of a feed-forward network, of which each token meets some.

    draw: makes the noise for scores.
    balance: of the last call, until it is asked for.
    use: in evaluation, choices by kind of token and expert, until they are asked for.
    """

    def __init__(
        self,
        network: nn.Module,
        width: int,
        count: int,
        *,
        top_k: int,
        capacity: float | None,
        eval_capacity: float | None,
        min_capacity: int,
        noise: str,
        residual: bool,
    ):
        super().__init__()
        self._network = [network]  # in a list, so that it does not become a submodule
        self.top_k, self.noise, self.min_capacity = top_k, noise, min_capacity
        self.capacities = {True: capacity, False: eval_capacity}  # in training, in use
        self.router = nn.Linear(width, count, bias=False)
        self.experts = nn.ModuleList(copy.deepcopy(network) for _ in range(count))
        self.mixer = nn.Linear(width, 2) if residual else None
        self.draw: Callable[[Tensor], Tensor] = gumbel
        self.balance: Loss | None = None
        self.use: Int[Tensor, "k e"] | None = None

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        flat = x.reshape(-1, x.shape[-1])
        real = _real(len(flat), x.device)
        choice = self.choose(flat[real])
        total, tokens = choice.balance(ranks=self.training)
        self.balance = Loss(total if self.training else total.detach(), total.new_tensor(float(tokens)))
        if not self.training:
            self._note(choice, real, len(flat))
        mixed = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            chosen = choice.weights[:, e].nonzero()[:, 0]
            rows = real[chosen]
            # An expert that nobody chose is called as well, so that it gets a gradient, of zeros.
            if len(rows) or torch.is_grad_enabled():
                answer = expert(flat[rows]) * choice.weights[chosen, e, None].to(flat.dtype)
                mixed = mixed.index_add(0, rows, answer.to(mixed.dtype))
        mixed = mixed.view_as(x)
        if self.mixer is None:
            return mixed
        shares = self.mixer(x).softmax(-1)
        return mixed * shares[..., :1] + original(self._network[0], x) * shares[..., 1:]

    def choose(self, tokens: Float[Tensor, "n d"]) -> Choice:
        """Which experts these tokens meet; scores are in float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            scores = functional.linear(tokens.float(), self.router.weight.float())
            noisy = self.noise == "always" or (self.noise == "training" and self.training)
            return choose(
                scores,
                self.top_k,
                capacity=self.capacities[self.training],
                least=self.min_capacity,
                noise=self.draw(scores) if noisy else None,
            )

    def _note(self, choice: Choice, real: Int[Tensor, " m"], positions: int) -> None:
        kinds = current_layout().by_kind.kinds.flatten()
        if len(kinds) != positions:
            return
        kinds = kinds[real]
        count = choice.weights.shape[1]
        at = kinds[:, None] * count + choice.experts
        table = torch.bincount(at.flatten(), minlength=len(KINDS) * count).view(-1, count)
        self.use = table if self.use is None else self.use + table


def _real(positions: int, device: torch.device) -> Int[Tensor, " m"]:
    """The flat positions that are no padding: only they meet experts, and count."""
    layout = current_layout()
    if layout.by_kind.kinds.numel() != positions:
        return torch.arange(positions, device=device)
    return layout.filled


def _chosen(networks: dict[str, nn.Module], layers: Any) -> dict[str, nn.Module]:
    wanted = range(0, len(networks), 2) if layers == "alternate" else range(len(networks))
    if isinstance(layers, list):
        if not layers or len(set(layers)) != len(layers) or not set(layers) <= set(range(len(networks))):
            raise RecipeError(
                f"routing 'moe': layers {layers} are not different ones of 0 to {len(networks) - 1}"
            )
        wanted = sorted(layers)  # type: ignore[assignment]
    names = list(networks)
    return {names[i]: networks[names[i]] for i in wanted}
