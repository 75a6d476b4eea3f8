"""Stage 1 of BLIP-2 (arXiv 2301.12597, section 3.2): the Q-Former learns with words, before a language model.

stage = Stage1(encoder.width, vocabulary=30523)
losses = stage.losses(encoder(pixels), ids)       # contrastive, matching, captioning
stage.hand_over(connector)                        # its queries and blocks, to a `qformer` of the same sizes
"""

from __future__ import annotations

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors.qformer import QFormer, Trunk
from chiasm.nn.activations import Activation
from chiasm.nn.losses import Loss
from chiasm.sequence import IGNORE

SMOOTHING = 0.1  # of the labels, for contrast and captions
FLOOR = 1e-4  # added to the chances of negatives, so that none is impossible


class Stage1(nn.Module):
    """Queries and words in one trunk, with the heads of the three losses.

    in_width: channels of the features. vocabulary: words. context: most words of a text. shared: channels in which
    images and texts are compared. begin: the id that begins a caption. padding: the id after a text's end.
    All else is as in the connector `qformer`.
    """

    def __init__(
        self,
        in_width: int,
        *,
        vocabulary: int,
        queries: int = 32,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        activation: Activation = "gelu",
        cross_every: int = 2,
        epsilon: float = 1e-12,
        context: int = 512,
        shared: int = 256,
        begin: int = 30522,
        padding: int = 0,
    ):
        super().__init__()
        self.begin, self.padding = begin, padding
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.trunk = Trunk(in_width, width, depth, heads, hidden, cross_every, epsilon, activation, text=True)
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(context, width)
        self.picture_out, self.text_out = nn.Linear(width, shared), nn.Linear(width, shared)
        self.matching = nn.Linear(width, 2)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.transform, self.transform_norm = nn.Linear(width, width), nn.LayerNorm(width, epsilon)
        self.head = nn.Linear(width, vocabulary)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.head.weight = self.words.weight

    def losses(
        self,
        grid: Float[Tensor, "n gh gw c"],
        ids: Int[Tensor, "n t"],
        generator: torch.Generator | None = None,
    ) -> dict[str, Loss]:
        """`contrastive`, `matching` and `captioning` of n images and the text of each.

        ids: a text begins with a token that stands for the whole of it ([CLS]). generator: draws the negatives
        of matching, likelier the more similar a wrong pair is.
        """
        features = rearrange(grid, "n gh gw c -> n (gh gw) c")
        queries, words = self.read_images(features), self.read_texts(ids)
        to_text, to_image = self.similarities(queries, words[:, 0])
        pairs = torch.arange(len(ids), device=ids.device)
        contrast = [
            functional.cross_entropy(each, pairs, reduction="none", label_smoothing=SMOOTHING)
            for each in (to_text, to_image)
        ]
        return {
            "contrastive": Loss.of(torch.cat(contrast)),
            "matching": self._match(features, ids, to_text, to_image, generator),
            "captioning": self._caption(features, ids),
        }

    def read_images(self, features: Float[Tensor, "n s c"]) -> Float[Tensor, "n q w"]:
        return self.trunk(self._queries(len(features)), features)

    def read_texts(self, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n t w"]:
        """Every word attends to every word; no image is read."""
        mask = rearrange(ids != self.padding, "n t -> n 1 t")
        return self.trunk(self._queries(len(ids))[:, :0], None, self._embed(ids), mask=mask)

    def similarities(
        self, queries: Float[Tensor, "n q w"], texts: Float[Tensor, "m w"]
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, "m n"]]:
        """Images to texts and texts to images: the best query's cosine over the temperature."""
        images = functional.normalize(self.picture_out(queries), dim=-1)
        texts = functional.normalize(self.text_out(texts), dim=-1)
        cosines = reduce(einsum(images, texts, "n q d, m d -> n m q"), "n m q -> n m", "max")
        return cosines / self.temperature, cosines.T / self.temperature

    def match(self, features: Float[Tensor, "n s c"], ids: Int[Tensor, "n t"]) -> Float[Tensor, "n two"]:
        """Logits of 'do not belong together' and 'belong together'; queries and words attend to each other."""
        queries = self._queries(len(ids))
        real = torch.cat([torch.ones_like(queries[..., 0], dtype=torch.bool), ids != self.padding], dim=1)
        hidden = self.trunk(queries, features, self._embed(ids), mask=rearrange(real, "n l -> n 1 l"))
        return reduce(self.matching(hidden[:, : queries.shape[1]]), "n q two -> n two", "mean")

    def caption(self, features: Float[Tensor, "n s c"], ids: Int[Tensor, "n t"]) -> Float[Tensor, "n t v"]:
        """Logits of the next word: words attend to the queries and to earlier words, queries to queries only."""
        queries = self._queries(len(ids))
        q, t = queries.shape[1], ids.shape[1]
        real = torch.cat([torch.ones_like(queries[..., 0], dtype=torch.bool), ids != self.padding], dim=1)
        mask = torch.ones(q + t, q + t, dtype=torch.bool, device=ids.device).tril()
        mask[:q, :q] = True
        hidden = self.trunk(queries, features, self._embed(ids), mask=mask & rearrange(real, "n l -> n 1 l"))
        return self.head(self.transform_norm(functional.gelu(self.transform(hidden[:, q:]))))

    @torch.no_grad()
    def take_over(self, connector: QFormer) -> None:
        """Begin with the queries and the blocks of a connector of the same sizes."""
        self.queries.copy_(connector.queries)
        self.trunk.load_state_dict(self.trunk.state_dict() | connector.trunk.state_dict())

    @torch.no_grad()
    def hand_over(self, connector: QFormer) -> None:
        """Give a connector of the same sizes the queries and the blocks, without what is for words."""
        own = {key: value for key, value in self.state_dict().items() if ".word_feed" not in key}
        connector.queries.copy_(self.queries)
        trunk = {key.removeprefix("trunk."): value for key, value in own.items() if key.startswith("trunk.")}
        connector.trunk.load_state_dict(trunk)

    def _match(
        self,
        features: Float[Tensor, "n s c"],
        ids: Int[Tensor, "n t"],
        to_text: Float[Tensor, "n n"],
        to_image: Float[Tensor, "n n"],
        generator: torch.Generator | None,
    ) -> Loss:
        """Each pair, each text with a wrong image, each image with a wrong text."""
        n = len(ids)
        wrong_image = _sample_negatives(to_image, generator)
        wrong_text = _sample_negatives(to_text, generator)
        images = torch.cat([features, features[wrong_image], features])
        logits = self.match(images, torch.cat([ids, ids, ids[wrong_text]]))
        labels = (torch.arange(3 * n, device=ids.device) < n).long()
        return Loss.of(functional.cross_entropy(logits, labels, reduction="none"))

    def _caption(self, features: Float[Tensor, "n s c"], ids: Int[Tensor, "n t"]) -> Loss:
        ids = torch.cat([torch.full_like(ids[:, :1], self.begin), ids[:, 1:]], dim=1)
        labels = ids.masked_fill(ids == self.padding, IGNORE)[:, 1:]
        logits = rearrange(self.caption(features, ids)[:, :-1], "n t v -> n v t")
        terms = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=SMOOTHING)
        return Loss(terms.sum(), (labels != IGNORE).sum().float())

    def _queries(self, count: int) -> Float[Tensor, "n q w"]:
        return self.queries.expand(count, -1, -1)

    def _embed(self, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n t w"]:
        return self.words(ids) + self.places.weight[: ids.shape[1]]


@torch.no_grad()
def _sample_negatives(
    similarities: Float[Tensor, "n n"], generator: torch.Generator | None
) -> Int[Tensor, " n"]:
    """For each row another column than its own, drawn by likeness."""
    chances = (similarities.softmax(dim=1) + FLOOR).fill_diagonal_(0)
    return torch.multinomial(chances, 1, generator=generator)[:, 0]
