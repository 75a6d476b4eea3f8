"""What replays of models that read pictures share: a case's ids and pixels through our documents and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn

from chiasm.data.documents import Contract
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Picture
from chiasm.errors import DataError
from chiasm.interop.convert import load_named
from chiasm.interop.mapping import NameMap
from chiasm.interop.parity.cases import Case
from chiasm.model import Model
from chiasm.sequence import Document, Kind, PackedBatch, pack
from chiasm.views import Size, View


class CasePicture(Picture):
    """A picture of which a case holds the pixels of every view, in the order of `Views.split`.

    tiles: RGB in [0, 1], of one size or each of its own; see `unnormalised`.
    """

    def __init__(
        self, key: str, size: Size, tiles: Float[Tensor, "n 3 h w"] | Sequence[Float[Tensor, "3 h w"]]
    ):
        self.key, self.size, self.tiles = key, size, tiles

    def open(self) -> Image.Image:
        raise DataError(f"image {self.key} of a case has no file")


class CaseReader(PictureReader):
    """Gives the encoder a case's own tiles instead of cutting pictures."""

    def __init__(self, contract: Contract):
        super().__init__(contract)

    def crops(self, image: Picture, views: Sequence[View]) -> list[Tensor]:
        assert isinstance(image, CasePicture)
        assert self.contract.views is not None
        every = self.contract.views.split(image.size)
        return [image.tiles[every.index(view)] for view in views]


@dataclass
class ForwardPass:
    """What a model made of documents, one a row: `visual` is what stands at all image positions, in order."""

    batch: PackedBatch
    embeddings: Float[Tensor, "b t d"]
    visual: Float[Tensor, "s d"]
    hidden: Float[Tensor, "b t d"]
    logits: Float[Tensor, "b t v"]


def load_case(module: nn.Module, case: Case, names: NameMap, prefix: str = "") -> None:
    """Load all tensors of a case into a module; `prefix` is what the module's own names lack in front."""
    ours, _ = names.to_ours(case.tensors, case.name)
    load_named(module, ours, names, case.name, prefix)


def unnormalised(encoder: Any, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Pixels in [0, 1] of a case's normalised ones: our encoders normalise for themselves."""
    return pixels * encoder.deviation + encoder.mean


def case_document(
    model: Model,
    ids: Int[Tensor, " t"],
    images: list[CasePicture],
    image: int,
    *,
    learnt: Bool[Tensor, " t"] | None = None,
    repeated: bool,
) -> Document:
    """A row of a case as a document; pictures are taken from the front of `images`.

    image: the id that marks a picture: once, or with `repeated` at each of its visual tokens.
    learnt: ids that have a text loss.
    """
    result, position = Document("a row of the case"), 0
    while position < len(ids):
        if int(ids[position]) != image:
            result.add_text([int(ids[position])], learn=learnt is not None and bool(learnt[position]))
            position += 1
            continue
        case_image = images.pop(0)
        where = f"image {case_image.key}"
        length = model.contract.read_tokens(case_image.size, where)
        words = model.contract.read_words(case_image.size, where)
        result.add_picture(case_image, Kind.READ, 0, [True] * length, [True] * length, words=words)
        position += length if repeated else 1
    return result.check(model.contract.context)


def read_documents(model: Model, documents: Sequence[Document], *, encoded: bool = False) -> ForwardPass:
    """Run documents, one a row, through the model as training and chat do.

    encoded: the pictures' tiles are features (n gh gw c) of the encoder.
    """
    batch, slots = pack([[each] for each in documents])
    batch = CaseReader(model.contract).attach(batch, slots)
    if batch.read is not None:
        batch.read.encoded = encoded
    embeddings, layout, _ = model.embed(batch)
    visual = embeddings.new_zeros(0, embeddings.shape[-1])
    if batch.read is not None:
        visual = model.encode_images(batch.read)[batch.read.sources]
    hidden = model.language(embeddings, layout)
    return ForwardPass(batch, embeddings, visual, hidden, model.language.logits(hidden))


def scattered(rows: Float[Tensor, "b t ..."], mask: Bool[Tensor, "b s"]) -> Float[Tensor, "b s ..."]:
    """Each row's values at the places that are True in its mask (the original's padding), and 0 elsewhere."""
    result = rows.new_zeros(*mask.shape, *rows.shape[2:])
    for r, real in enumerate(mask.bool()):
        result[r, real] = rows[r, : int(real.sum())]
    return result
