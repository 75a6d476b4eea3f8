"""SigLIP 2 at the aspect ratio of the image."""

from __future__ import annotations

from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.encoders.transformers import Transformers
from chiasm.errors import RecipeError
from chiasm.parts.bounds import LayerIndex


class NaflexSiglip(Transformers, name="siglip_naflex"):
    """SigLIP 2 for pictures of any aspect ratio, NaFlex (arXiv 2502.14786).

    Positions are interpolated (bilinear, antialias) from the table to the picture's own grid. SigLIP 2 of one
    resolution is a SigLIP: encoder `transformers`.

    Args:
        checkpoint: a local folder or hub name of a NaFlex SigLIP 2; of several towers the vision tower is taken.
        config: instead of a checkpoint, from scratch: a transformers config (`model_type: siglip2_vision_model`).
        layer: which hidden state: 0 is the embeddings, -1 the last block's output.
        final_norm: apply the model's final layer norm to it.
        class_token: 'drop'; SigLIP has none.
    """

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        config: dict[str, Any] | None = None,
        layer: LayerIndex = -1,
        final_norm: bool = True,
        class_token: Literal["drop"] = "drop",
    ):
        super().__init__(
            checkpoint=checkpoint, config=config, layer=layer, final_norm=final_norm, class_token=class_token
        )
        kind = self.model.config.model_type
        if kind != "siglip2_vision_model":
            raise RecipeError(
                f"encoder 'siglip_naflex' needs a NaFlex SigLIP 2, not {kind!r}; encoder 'transformers' takes that"
            )

    def _check_tokens(self) -> None:
        """It runs on patches, which `forward` makes."""

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns = self.grid(*pixels.shape[-2:])
        p, embeddings = self.patch_size[0], self.model.embeddings
        pixels = (pixels - self.mean) / self.deviation
        patches = rearrange(pixels, "n c (gh p) (gw q) -> n (gh gw) (p q c)", p=p, q=p)
        features = embeddings.patch_embedding(patches) + self._positions(rows, columns)
        hidden = self.final_norm(self.model.encoder(inputs_embeds=features).last_hidden_state)
        return rearrange(hidden, "n (gh gw) c -> n gh gw c", gh=rows)

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "s c"]:
        embeddings = self.model.embeddings
        side = embeddings.position_embedding_size
        table = rearrange(embeddings.position_embedding.weight, "(r s) c -> r s c", r=side)
        down, across = (_bilinear(side, length).to(table.device) for length in (rows, columns))
        resized = torch.einsum("h r, w s, r s c -> h w c", down, across, table.float())
        return rearrange(resized, "h w c -> (h w) c").to(table.dtype)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "config": {
                "model_type": "siglip2_vision_model",
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_patches": 16,
                "patch_size": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            }
        }


def _bilinear(side: int, length: int) -> Float[Tensor, "w s"]:
    """Weights of antialiased bilinear resizing along an axis, written out: torch's kernel errs for one column."""
    scale = side / length
    centres = (torch.arange(length)[:, None] + 0.5) * scale - 0.5
    weights = (1 - (torch.arange(side) - centres).abs() / max(scale, 1.0)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)
