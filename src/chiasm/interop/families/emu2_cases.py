"""The replay of Emu2: images read and drawn as vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from chiasm.heads import GREEDY, finish
from chiasm.inference.reading import CodedImage, CodeReader
from chiasm.inference.session import Session
from chiasm.interop.convert import load
from chiasm.interop.family import Original, find_family
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import DrawStep
from chiasm.interop.parity.replay import CasePicture, case_document, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes import emu2
from chiasm.model import Model
from chiasm.views import Size

BEGIN, IMAGE = 44, 46  # ids of the cases' small vocabulary


@replays("emu2", "EmuModel", without_effect={})
@torch.no_grad()
def replay_multimodal(case: Case) -> dict[str, Tensor]:
    """What the tower makes of images, and vectors drawn after prompts with images and without."""
    model = case_model(case, {})
    tokenizer: Any = model.image_tokenizer
    pixels = unnormalised(tokenizer.encoder, case.inputs["image"])
    encoded = tokenizer.encode(pixels)
    images = [CodedImage(CasePicture(f"{i}", Size(1, 1), pixels), each) for i, each in enumerate(encoded)]
    assert model.image_head is not None
    return {
        "vit": tokenizer.encoder.tokens(pixels),
        "encoded": encoded.flatten(1, 2),
        "encoded_q2": _pooled(tokenizer.encoder(pixels), case.config["n_query2"]),
        "projected_up": model.image_head.embed_read(encoded),
        "gen_interleaved": drawn(model, case.inputs["prompt_ids"], case.inputs["prompt_mask"], images),
        "gen_text": drawn(model, case.inputs["text_ids"], case.inputs["text_mask"], []),
    }


def case_model(case: Case, networks: Mapping[str, Any]) -> Model:
    """The model of a case; networks: configs of its diffusion model."""
    place = "multimodal_encoder." if networks else ""
    config = emu2.from_case(case.config, case.tensors, place)
    tensors = {
        name.replace(".", "/", 1) if networks else name: tensor for name, tensor in case.tensors.items()
    }
    loaded = load(find_family("emu2"), Original({"emu": config, **networks}, tensors), where=case.name)
    model: Model = loaded.model
    words: Any = model.language.tokenizer
    words.draw = BEGIN
    return model


def drawn(model: Model, ids: Tensor, mask: Tensor | None, images: Sequence[CodedImage]) -> Tensor:
    """Vectors of an image after each row, whose padding is left out; images in the order of their places."""
    remaining: list[Any] = list(images)
    begin = torch.tensor([BEGIN])
    rows = [torch.cat([row if mask is None else row[mask[r].bool()], begin]) for r, row in enumerate(ids)]
    documents = [case_document(model, row, remaining, IMAGE, repeated=True) for row in rows]
    step = DrawStep(Session(model, documents, CodeReader(model)))
    assert model.image_head is not None
    return finish(model.image_head.write(step.start, GREEDY), step).flatten(1, 2)


def _pooled(grid: Tensor, queries: int) -> Tensor:
    """Features averaged to as many as are asked for."""
    stride = grid.shape[1] // round(queries**0.5)
    return rearrange(
        functional.avg_pool2d(rearrange(grid, "n h w c -> n c h w"), stride), "n c h w -> n (h w) c"
    )
