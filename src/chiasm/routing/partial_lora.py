"""Low-rank updates for some kinds of tokens."""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.parts.bounds import Positive, Share, Width
from chiasm.routing import Routing
from chiasm.routing.lora import Layer, LowRank, chosen
from chiasm.sequence.kinds import KindName
from chiasm.sequence.layout import current_layout


class PartialLoRA(Routing, name="partial_lora"):
    """InternLM-XComposer2's Partial LoRA (arXiv 2401.16420): low-rank updates for image tokens only.

    An image token meets W x + alpha/rank B A x, a text token W x, in training and in use. B starts at zero, so
    that an untrained update changes nothing (the original leaves both at nn.Linear's random values).

    Args:
        rank: width of the bottleneck between A and B; the original has 256.
        alpha: the update is scaled by alpha / rank; the original has alpha = rank.
        targets: names of the linear layers, or the ends of their names; 'all-linear' is every one but the
            language-model head.
        kinds: which tokens meet the update: 'read' are those of pictures that are looked at, 'written' those
            of pictures that are made.
        shared: groups of layers of one block that have one A in common, as the original has for queries, keys
            and values, which are one layer there.
        dropout: share of the update's inputs that are dropped in training.
    """

    def __init__(
        self,
        language: nn.Module,
        *,
        rank: Width = 16,
        alpha: Positive = 16.0,
        targets: list[str] | Literal["all-linear"] = "all-linear",
        kinds: list[KindName] = ["read", "written"],  # noqa: B006 (never changed)
        shared: list[list[str]] = [["q_proj", "k_proj", "v_proj"]],  # noqa: B006
        dropout: Share = 0.0,
    ):
        super().__init__()
        self.updates = nn.ModuleDict()
        firsts: dict[tuple[str, int], PartialUpdate] = {}
        for name, layer in chosen(language, targets, self.name).items():
            update = PartialUpdate(layer, rank, alpha / rank, tuple(kinds), dropout)
            parent, _, own = name.rpartition(".")
            for g, group in enumerate(shared):
                if own in group:
                    first = firsts.setdefault((parent, g), update)
                    if first.a.shape != update.a.shape:
                        raise RecipeError(
                            f"routing 'partial_lora' cannot share A between {group}: "
                            f"{own} has {update.a.shape[1]} inputs, not {first.a.shape[1]}"
                        )
                    update.a = first.a
            self.updates[name.replace(".", "/")] = update  # a module's name cannot contain a dot
            layer.register_forward_hook(update.add)

    def merge(self) -> None:
        """Nothing: what only some tokens meet cannot be added to the weights of all."""

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"rank": 2}


class PartialUpdate(LowRank):
    """The update of one linear layer at the positions of some kinds."""

    def __init__(self, layer: Layer, rank: int, scale: float, kinds: tuple[KindName, ...], dropout: float):
        super().__init__(layer, rank, scale)
        self.kinds, self.dropout = kinds, dropout

    def add(
        self, layer: nn.Module, arguments: tuple[Any, ...], output: Float[Tensor, "b t o"]
    ) -> Float[Tensor, "b t o"]:
        places = current_layout().by_kind
        rows = places.rows(*self.kinds)
        # Without a row nothing is added, but A and B still get a gradient, of zeros.
        update = self(functional.dropout(places.flat(arguments[0])[rows], self.dropout, self.training))
        return places.flat(output).index_add(0, rows, update.to(output.dtype)).view_as(output)
