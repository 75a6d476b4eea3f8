"""Visual tokens near the embeddings of the words for what they show."""

from __future__ import annotations

import unicodedata
from typing import Any, ClassVar

import torch
from einops import einsum, reduce
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.language import Language
from chiasm.model import Model
from chiasm.nn.losses import Loss
from chiasm.objectives import Described, Objective, Setting
from chiasm.objectives.names import named, numbered
from chiasm.parts.bounds import Positive


class TokenAlignment(Objective, name="token_alignment"):
    """Each name of an image is to be found at one of its visual tokens, by cosine with the name's word embedding.

    The likeness of an image to a name is the largest over its tokens, made smooth (the late interaction of FILIP,
    arXiv 2111.07783). Each name that belongs to the image is told from all that do not; nothing says which token
    shows it (multiple-instance learning, as in arXiv 1411.4952). Names are the labels of the data; the table of
    words stays as it is. A language model that learns behind it finds things by their names much sooner.

    Args:
        temperature: what cosines are divided by.
    """

    names: ClassVar = ("alignment",)
    trains: ClassVar = ("connector", "encoder")
    learns: ClassVar = False

    def __init__(self, setting: Setting, *, temperature: Positive = 0.05):
        super().__init__()
        connector, language = setting.model.connector, setting.model.language
        if connector is None or connector.cells is not None:
            actual = "none" if connector is None else f"{connector.name!r}, which is told the places of views"
            raise RecipeError(
                "objective 'token_alignment' reads each image as one grid through the connector, but the model "
                f"has {actual}"
            )
        self.temperature = temperature
        self.numbers = numbered(setting.labels(), self.name)
        self.register_buffer("words", _directions(language, list(self.numbers)))
        self.words: Float[Tensor, "names d"]

    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        assert model.connector is not None
        tokens = functional.normalize(model.connector(model.encode(batch.pixels)).float(), dim=-1)
        self.observe(reduce(tokens, "n k d -> n d", "mean"))
        likeness = einsum(tokens, self.words, "n k d, names d -> n k names") / self.temperature
        present = named(batch, self.numbers).to(likeness.device)
        return {"alignment": Loss.of(told_apart(likeness.logsumexp(1), present))}

    def terms(self, batch: Described) -> dict[str, float]:
        return {"alignment": float(named(batch, self.numbers).sum())}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"temperature": 0.2}


def told_apart(logits: Float[Tensor, "n names"], present: Bool[Tensor, "n names"]) -> Float[Tensor, " pairs"]:
    """The cross-entropy of each name that is present, among itself and all that are not."""
    lowest = torch.finfo(logits.dtype).min
    absent = logits.masked_fill(present, lowest).logsumexp(1, keepdim=True)
    return functional.softplus(absent - logits)[present]


@torch.no_grad()
def _directions(language: Language, names: list[str]) -> Float[Tensor, "names d"]:
    """Unit vectors: the mean of the embeddings of each name's tokens, as it stands inside a sentence.

    That is behind a space, but in scripts of wide letters, which have none. Raises RecipeError for an empty name.
    """
    tokenizer, table = language.tokenizer, []
    for name in names:
        if not name.strip():
            raise RecipeError("objective 'token_alignment' needs names, but a label of the data is empty")
        wide = unicodedata.east_asian_width(name[0]) in ("W", "F")
        ids = tokenizer.encode_plain(name if wide else f" {name}")
        table.append(
            language.embed(torch.tensor(ids, device=next(language.parameters()).device)).float().mean(0)
        )
    return functional.normalize(torch.stack(table), dim=-1)
