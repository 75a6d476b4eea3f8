"""SigLIP at the aspect ratio of the image, as in Idefics2."""

from __future__ import annotations

from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.encoders.transformers import Transformers
from chiasm.errors import RecipeError
from chiasm.parts.bounds import LayerIndex


class NativeSiglip(Transformers, name="siglip_native"):
    """SigLIP for pictures of any aspect ratio, as Idefics2 continued it (arXiv 2405.02246, after arXiv 2307.06304).

    Positions are fractions of the sides, rounded down to the table's: nothing is interpolated.

    Args:
        checkpoint: a local folder or hub name of a SigLIP; of several towers the vision tower is taken.
        config: instead of a checkpoint, from scratch: a transformers config (`model_type: siglip_vision_model`).
        layer: which hidden state: 0 is the embeddings, -1 the last block's output.
        final_norm: apply the model's final layer norm to it.
        class_token: 'drop'; SigLIP has none.
        margin: the fractions are made smaller by this part of themselves before they are rounded. transformers 4.5x
            has 1e-6, by which a patch on an edge of the table falls to the position before it.
        counted: the fractions are counted up, as MiniCPM-V has it, and not multiplied, by which some patches on an
            edge do.
    """

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        config: dict[str, Any] | None = None,
        layer: LayerIndex = -1,
        final_norm: bool = True,
        class_token: Literal["drop", "join"] = "drop",
        margin: float = 0.0,
        counted: bool = False,
    ):
        super().__init__(
            checkpoint=checkpoint, config=config, layer=layer, final_norm=final_norm, class_token=class_token
        )
        if "siglip" not in self.model.config.model_type:
            raise RecipeError(f"encoder 'siglip_native' needs a SigLIP, not {self.model.config.model_type!r}")

        self.margin, self.counted = margin, counted

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns = self.grid(*pixels.shape[-2:])
        embeddings = self.model.embeddings
        patches = embeddings.patch_embedding((pixels - self.mean) / self.deviation)
        features = rearrange(patches, "n c gh gw -> n (gh gw) c")
        places = self.places(rows, columns, pixels.device)
        features = features + embeddings.position_embedding(rearrange(places, "gh gw -> (gh gw)"))
        hidden = self.final_norm(self.model.encoder(inputs_embeds=features).last_hidden_state)
        return rearrange(hidden, "n (gh gw) c -> n gh gw c", gh=rows)

    def places(self, rows: int, columns: int, device: torch.device | None = None) -> Int[Tensor, "gh gw"]:
        """Which row of the table of positions each patch of a grid has."""
        side = self.size[0] // self.patch_size[0]
        edges = torch.arange(1 / side, 1.0, 1 / side, device=device)

        def buckets(count: int) -> Int[Tensor, " m"]:
            if self.counted:  # on the CPU, for the rounding
                fractions = torch.arange(0, 1 - 1e-6, 1 / count).to(device)
                return torch.bucketize(fractions, edges, right=True)
            # In float32, because patches lie on the edges.
            indices = torch.arange(count, dtype=torch.float32, device=device)
            fractions = indices / count * (1 - self.margin) if self.margin else indices * (1.0 / count)
            fractions = fractions.clamp(max=1 - 1e-6)
            return torch.bucketize(fractions, edges, right=True)

        return buckets(rows)[:, None] * side + buckets(columns)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 16,
                "intermediate_size": 32,
                "image_size": 32,
                "patch_size": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            }
        }
