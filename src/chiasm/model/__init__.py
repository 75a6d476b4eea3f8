"""The slots wired together: what a recipe's `model` section becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.data.documents import Contract
from chiasm.data.sample import Message
from chiasm.decoders import ImageDecoder
from chiasm.distribution.devices import fitting
from chiasm.encoders import Encoder
from chiasm.errors import DataError, known_options
from chiasm.heads import Order, Span
from chiasm.heads.segmentation import MaskHead
from chiasm.language import Language
from chiasm.model.contract import contract_of
from chiasm.model.images import caption_ids, image_losses
from chiasm.model.masks import mask_losses, with_pyramids
from chiasm.model.signals import signal_losses, with_signals
from chiasm.model.visual_tokens import visual_tokens
from chiasm.model.wiring import wire
from chiasm.nn.losses import Loss, added, cross_entropy
from chiasm.recipe.slots import GROUPS, MODALITIES, in_order
from chiasm.routing import Routing
from chiasm.sequence import IGNORE, PackedBatch, ReadImages, WrittenImages, fill, fill_from
from chiasm.sequence.cross_attended import CrossAttended
from chiasm.sequence.layout import Layout
from chiasm.tokenizers import ImageTokenizer
from chiasm.views import Size, Views

if TYPE_CHECKING:
    from PIL import Image

    from chiasm.conversation import Conversation, Reply
    from chiasm.inference.masks import Segmentation
    from chiasm.inference.zoom import Zoom, ZoomedAnswer
    from chiasm.recipe import SamplingOptions


class Embedded(NamedTuple):
    """A batch with its images in their places, as the language model reads it.

    span: what the image head shall predict; None where nothing is drawn.
    """

    embeddings: Float[Tensor, "b t d"]
    layout: Layout
    span: Span | None


class Model(nn.Module):
    """A model that sees, if it has an encoder, and draws, if it has an image head.

    Without a language model it is an image tokenizer, or an encoder, alone: `model.image_tokenizer` encodes and
    decodes, and asking for words is an error.

    Submodules are the slots, under the names that a recipe gives them, so that `encoder.*`, `language.*` and so
    on name the parameters of each part in a checkpoint.
    """

    views: Views | None
    encoder: Encoder | None
    connector: Connector | None
    language: Language
    routing: Routing
    image_tokenizer: ImageTokenizer | None
    image_decoder: ImageDecoder | None

    def __init__(self, spec: Mapping[str, Mapping[str, Any]], *, texts: Iterable[str] = (), seed: int = 0):
        """Build every slot of a resolved `model` section.

        texts: what a text tokenizer is trained on, where the recipe has none. seed: of the initial weights; each
        slot draws from its own, so that models that share a part share its initial values.
        """
        super().__init__()
        self.spec = {slot: dict(options) for slot, options in spec.items()}
        groups: dict[str, dict[str, nn.Module]] = {group: {} for group in GROUPS}
        for slot, part in wire(self.spec, texts, seed).items():
            group, _, name = slot.partition(".")
            if group not in groups:
                setattr(self, slot, part)
            elif part is not None:
                groups[group][name] = part
        self.heads = nn.ModuleDict(groups["heads"])
        self.modalities = nn.ModuleDict(groups[MODALITIES])
        if self.views is not None:
            with torch.device("cpu"):  # places are counted in earnest where weights stand on the meta device
                self.contract.read_order(
                    Size(64, 64), "the recipe"
                )  # a size no part can take is an error now

    @property
    def image_head(self) -> Order | None:
        """The head that writes images."""
        return getattr(self.heads, "image", None)

    @property
    def mask_head(self) -> MaskHead | None:
        """The head that writes masks."""
        return getattr(self.heads, "mask", None)

    @property
    def speaks(self) -> bool:
        return self.language is not None

    @property
    def sees(self) -> bool:
        return self.encoder is not None or self.reads_targets

    @property
    def draws(self) -> bool:
        return self.image_head is not None

    @property
    def conditions(self) -> bool:
        """Whether the image head writes what the decoder is conditioned on, whose loss they learn together."""
        return self.image_head is not None and self.image_head.alphabet.conditions

    @property
    def target_encoder(self) -> ImageTokenizer | None:
        """What images that are written are learnt as, and stays as it is: the image tokenizer; or, where the head
        writes conditions, the autoencoder in which their decoder works. None = they are learnt as pixels."""
        if not self.conditions:
            return self.image_tokenizer
        return None if self.image_decoder is None else self.image_decoder.autoencoder

    @property
    def follows_words(self) -> bool:
        """Whether images follow words, after which alone the decoder draws them."""
        return self.image_head is not None and self.image_head.layout().follows_words

    @property
    def decodes_alone(self) -> bool:
        """Whether the image decoder can learn what the image head writes while the language model does not run."""
        return self.image_head is not None and self.image_head.word_learner is not None

    @property
    def reads_targets(self) -> bool:
        """Whether images are read as the targets with which they are written."""
        return self.encoder is None and self.image_head is not None and self.image_head.reads_codes

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def contract(self) -> Contract:
        """What the data side needs to know of this model; raises ChiasmError if it has no language model."""
        return contract_of(self)

    def slots(self) -> dict[str, Any]:
        """The parts by slot, in the order in which data passes through them."""
        parts = {slot: reduce(_inner, slot.split("."), self) for slot in in_order(self.spec)}
        return {slot: part for slot, part in parts.items() if part is not None}

    def standalone(self) -> dict[str, dict[str, Any]]:
        """The `model` section with which this model is rebuilt from its own folder alone."""
        built = self.slots()
        return {slot: self.spec[slot] | built[slot].standalone() for slot in self.spec if slot in built}

    def train_only(self, slots: Iterable[str]) -> None:
        """Let the named slots learn; freeze all others, and put them in evaluation mode."""
        parts = self.slots()
        for part in parts.values():
            if isinstance(part, nn.Module):
                part.eval()
                part.requires_grad_(False)
        for slot in parts.keys() & set(slots):
            for module in parts[slot].learners().values():
                module.train()
                module.requires_grad_(True)

    def losses(self, batch: PackedBatch) -> dict[str, Loss]:
        """Losses by name: `text`, those of the heads, of the modalities and of the routing."""
        batch, pyramids = with_pyramids(self.encoder, batch)
        embeddings, layout, span = self.embed(batch)
        hidden = self.language(embeddings, layout)
        image, mask = batch.written.image, batch.written.mask
        losses: dict[str, Loss] = {}
        rows = batch.labels != IGNORE
        if bool(rows.any()):
            losses["text"] = _text_loss(self.language.logits(hidden[rows]), batch.labels[rows])
        if self.image_head is not None and image is not None and span is not None:
            losses = added(losses, image_losses(self.image_head, hidden, span, image, batch.ids))
        if self.mask_head is not None and mask is not None:
            losses = added(losses, mask_losses(self.mask_head, hidden, pyramids, mask))
        losses = added(losses, signal_losses(self.modalities, hidden, batch.written.signals))
        return added(losses, self.routing.losses())

    def caption_losses(self, batch: PackedBatch) -> dict[str, Loss]:
        """The decoder's losses on images and the words before them, for which no language model runs."""
        images, head = batch.written.image, self.image_head
        if images is None:
            return {}
        assert head is not None
        assert head.word_learner is not None
        assert images.words is not None
        words = caption_ids(batch.ids, images.words, head.space)
        return head.word_learner.word_losses(words, images.targets, images.sources)

    def text_logits(self, hidden: Float[Tensor, "*s d"], *, images: bool = True) -> Float[Tensor, "*s v"]:
        """Logits of the next token of a text, which is never a code; with `images`, it may begin one."""
        logits = self.language.logits(hidden)
        if self.image_head is None:
            return logits
        marker = () if images else self.language.tokenizer.before_picture
        never = torch.cat([self._code_ids, torch.tensor(marker, dtype=torch.long)])
        return logits.index_fill(-1, never.to(logits.device), -torch.inf) if len(never) else logits

    @cached_property
    def _code_ids(self) -> Int[Tensor, " c"]:
        """Ids of the vocabulary that stand for codes; there may be many, and each word asks for them."""
        return torch.tensor([] if self.image_head is None else [*self.image_head.reserved], dtype=torch.long)

    def embed(self, batch: PackedBatch) -> Embedded:
        """Words and images of a batch as the language model reads them."""
        embeddings, layout = self.language.embed_batch(batch), batch.layout
        span: Span | None = None
        if batch.shown is not None:
            assert self.image_head is not None
            values = self.image_head.embed_read(self.targets(batch.shown))
            embeddings = fill_from(embeddings, batch.shown.starts, values)
        if batch.read is not None:
            visual, places = self.encode_images(batch.read)[batch.read.sources], batch.read.places
            if self.routing.cross_attends:
                images = CrossAttended.of(visual, batch.read.lengths, places, batch.documents)
                layout = replace(layout, cross_attended=images)
                visual = self.routing.marker.expand(len(places), -1)
            embeddings = fill(embeddings, places, visual)
        image, mask = batch.written.image, batch.written.mask
        if image is not None:
            span = self._span(image, batch.positions)
            embeddings = fill_from(embeddings, image.starts, span.embeddings)
        if mask is not None:
            if self.mask_head is None:
                raise DataError("the batch asks for masks, but this model has no mask head")
            starts = torch.tensor(mask.starts, device=embeddings.device)
            queries = self.mask_head.embeddings().expand(len(starts), -1, -1)
            embeddings = fill_from(embeddings, starts, queries)
        embeddings = with_signals(self.modalities, embeddings, batch)
        return Embedded(embeddings, layout, span)

    def encode_images(self, read: ReadImages) -> Float[Tensor, "s d"]:
        """All visual tokens of the pictures read, one after another, and behind them the views' markers or words.

        Raises DataError if a part breaks its word.
        """
        if self.encoder is None or self.connector is None:
            raise DataError("the batch shows pictures, but this model has no encoder")
        return visual_tokens(read, self.encode, self.connector, self.views, self.language)

    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        """Features of the encoder; without a graph when it is frozen."""
        assert self.encoder is not None
        learns = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            return self.encoder(fitting(pixels, self.encoder))

    def targets(self, written: WrittenImages) -> Shaped[Tensor, "n ..."]:
        """What the image head shall write of images: codes or vectors; or, where it writes conditions, what their
        decoder learns from."""
        if written.encoded or self.conditions:
            return written.targets
        assert self.image_tokenizer is not None
        with torch.no_grad():
            return self.image_tokenizer.encode(fitting(written.targets, self.image_tokenizer))

    def _span(self, written: WrittenImages, positions: Int[Tensor, "b t"]) -> Span:
        if self.image_head is None:
            raise DataError("the batch writes pictures, but this model has no image head")
        span = self.image_head.prepare(self.targets(written))._replace(sources=written.sources)
        orphans = written.orphans(positions)
        return span._replace(orphans=orphans) if bool(orphans.any()) else span

    # What users call; the loops stand in chiasm.inference.

    def chat(self, messages: Sequence[Message | Mapping[str, Any]] | str, **options: Any) -> Reply:
        """Answer a conversation, in words and, if the model draws, pictures; see `chiasm.conversation.chat`."""
        from chiasm.conversation import chat

        return chat(self, messages, **options)

    def zoom(
        self,
        messages: Sequence[Message | Mapping[str, Any]] | str,
        settings: Zoom | None = None,
        **options: Any,
    ) -> ZoomedAnswer:
        """Answer about an image in two looks; see `chiasm.conversation.zoom`."""
        from chiasm.conversation import zoom

        return zoom(self, messages, settings, **known_options("zoom", zoom, options))

    def generate(self, prompt: str | Sequence[str], **options: Any) -> list[Image.Image]:
        """Draw a picture for each prompt; see `chiasm.inference.drawing.generate`."""
        from chiasm.inference.drawing import generate

        return generate(self, prompt, **known_options("generate", generate, options))

    def segment(self, image: Any, question: str) -> Segmentation:
        """Mark what a question asks for in an image; see `chiasm.inference.masks.segment`."""
        from chiasm.inference.masks import segment

        return segment(self, image, question)

    def synthesise(self, modality: str, prompt: Conversation, **options: Any) -> Float[np.ndarray, ...]:
        """Answer a conversation with a signal of a modality; see `chiasm.conversation.synthesise`."""
        from chiasm.conversation import synthesise

        return synthesise(self, modality, prompt, **known_options("synthesise", synthesise, options))

    def complete(self, pictures: Sequence[Any], **options: Any) -> list[Image.Image]:
        """Draw what follows in a row of pictures; see `chiasm.inference.completion.complete`."""
        from chiasm.inference.completion import complete

        return complete(self, pictures, **known_options("complete", complete, options))

    def edit(self, images: Any, prompt: str, **options: Any) -> list[Image.Image]:
        """Draw a picture anew, or the part of it under a mask; see `chiasm.inference.editing.edit`."""
        from chiasm.inference.editing import edit

        return edit(self, images, prompt, **known_options("edit", edit, options))

    sampling: SamplingOptions | None = None  # defaults of `chat` and `generate`, from the recipe


def _inner(module: Any, name: str) -> Any:
    return getattr(module, name, None)


def _text_loss(logits: Float[Tensor, "m v"], labels: Int[Tensor, " m"]) -> Loss:
    return Loss(cross_entropy(logits, labels), torch.tensor(float(labels.numel()), device=labels.device))
