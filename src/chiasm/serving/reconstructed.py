"""What a model's image tokenizer makes of a client's image, as a reply."""

from __future__ import annotations

from threading import Lock
from typing import Any

from chiasm.inference.reconstruction import reconstruct
from chiasm.model import Model
from chiasm.serving.messages import RequestImages
from chiasm.serving.replies import encoded
from chiasm.serving.schema import ReconstructionRequest

_ONE = Lock()  # at a time, as it is computed beside the engine


def reconstruction_of(model: Model, body: ReconstructionRequest, images: RequestImages) -> dict[str, Any]:
    """The image as the tokenizer sees it, its codes if it has any, and one image for each scale."""
    picture = images.file(body.image.image_url, "image")
    with _ONE:
        made = reconstruct(model, picture)
    codes = None if made.target.is_floating_point() else made.target
    return {
        "object": "reconstruction",
        "model": body.model,
        "size": f"{made.original.width}x{made.original.height}",
        "b64_json": encoded(made.original),
        "grid": list(made.target.shape[:2]),
        "codes": None if codes is None else codes.tolist(),
        "different_codes": None if codes is None else len(codes.unique()),
        "data": [
            {"b64_json": encoded(each.image), "positions": each.positions, "psnr": round(each.psnr, 2)}
            for each in made.decoded
        ],
    }
