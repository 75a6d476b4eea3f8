"""What a model's image tokenizer makes of a client's image, as a reply."""

from __future__ import annotations

from threading import Lock
from typing import Any

from chiasm.errors import naming
from chiasm.inference.reconstruction import reconstruct
from chiasm.model import Model
from chiasm.serving.messages import RequestImages
from chiasm.serving.replies import encoded
from chiasm.serving.schema import ReconstructionRequest

_ONE = Lock()  # at a time, as it is computed beside the engine


def reconstruction_of(model: Model, body: ReconstructionRequest, images: RequestImages) -> dict[str, Any]:
    """The image as the tokenizer sees it, its codes if it has any, and one image for each scale."""
    picture = images.file(body.image.image_url, "image")
    with _ONE, naming("model"):  # what is wrong with the image is of the field of the image already
        reconstruction = reconstruct(model, picture)
    codes = None if reconstruction.target.is_floating_point() else reconstruction.target
    return {
        "object": "reconstruction",
        "model": body.model,
        "size": f"{reconstruction.original.width}x{reconstruction.original.height}",
        "b64_json": encoded(reconstruction.original),
        "grid": list(reconstruction.target.shape[:2]),
        "codes": None if codes is None else codes.tolist(),
        "different_codes": None if codes is None else len(codes.unique()),
        "data": [
            {"b64_json": encoded(each.image), "positions": each.positions, "psnr": round(each.psnr, 2)}
            for each in reconstruction.decoded
        ],
    }
