"""LlamaGen's transformer behind a caption that a frozen text encoder has read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForTextEncoding

from chiasm.errors import CheckpointError, ChiasmError, DataError, RecipeError, reason
from chiasm.language.llama_block import initialise
from chiasm.language.llamagen import GridLlama
from chiasm.language.text import PLAIN_TEMPLATE, TextTokenizer
from chiasm.parts.bounds import (
    Count,
    Depth,
    Epsilon,
    Heads,
    Positive,
    Share,
    Tokens,
    Vocabulary,
    Width,
    WidthOrZero,
)
from chiasm.sequence import Kind, PackedBatch
from chiasm.storage.skeleton import weightless
from chiasm.storage.transformers_config import build_config

# What a caption is to the text encoder: its words and the end marker.
CAPTION_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}{{ eos_token }}{% endif %}{% endfor %}"
)


class LlamaGenCaptions(GridLlama, name="llamagen_captions"):
    """LlamaGen's transformer for captions (arXiv 2406.06525): features of a frozen T5 stand where words would.

    Words are only read, never said: the text encoder sees all of a caption at once. The empty prompt is a learnt
    table of features, as many of its last rows as the caption has tokens, so that both are equally long; the
    original pads captions on the left to its whole length and hides the padding, which comes to the same. Without a
    text encoder it takes features that are given to it (`text_encoder`).

    Args:
        width: of a hidden state.
        depth: layers.
        heads: of attention.
        key_value_heads: heads of keys and values; 0 = as many as heads.
        hidden: width inside the networks.
        context: most positions of a document.
        rope_base: of the rotary embedding.
        epsilon: of the norms.
        token_dropout: of embeddings, in training.
        dropout: of what attention and networks add, in training.
        checkpoint: of the frozen text encoder: a folder or a hub name, as transformers reads it.
        config: instead, its configuration with the `model_type`, from scratch; its vocabulary size follows from the
            tokenizer.
        caption_width: of the text encoder's features; 0 = it tells.
        caption_tokens: most tokens of a caption, which are the rows of the learnt table.
        tokenizer: folder or hub name of a tokenizer; without one it comes from the checkpoint, or is trained.
        vocabulary: most tokens of a tokenizer trained on the recipe's own texts.
    """

    says = False
    shares_prefixes = False  # the text encoder sees all of a caption at once
    text_encoder: Any
    project: nn.Sequential

    def __init__(
        self,
        texts: Iterable[str] = (),
        draws: bool = False,
        *,
        width: Width = 1280,
        depth: Depth = 36,
        heads: Heads = 20,
        key_value_heads: Count = 0,
        hidden: Width = 3584,
        context: Tokens = 4096,
        rope_base: Positive = 10000.0,
        epsilon: Epsilon = 1e-5,
        token_dropout: Share = 0.1,
        dropout: Share = 0.1,
        checkpoint: str | None = None,
        config: dict[str, Any] | None = None,
        caption_width: WidthOrZero = 0,
        caption_tokens: Tokens = 120,
        tokenizer: str | None = None,
        vocabulary: Vocabulary = 4096,
    ):
        super().__init__(
            width=width,
            depth=depth,
            heads=heads,
            key_value_heads=key_value_heads,
            hidden=hidden,
            context=context,
            rope_base=rope_base,
            epsilon=epsilon,
            final_norm=True,
            turn_words=False,
            token_dropout=token_dropout,
            dropout=dropout,
        )
        self.tokenizer = TextTokenizer.of(tokenizer or checkpoint, texts, vocabulary)
        if self.tokenizer.inner.chat_template in (None, PLAIN_TEMPLATE):
            self.tokenizer.inner.chat_template = CAPTION_TEMPLATE
        self.tokenizer.mark_pictures(None, empty="blank")
        self.text_encoder = _text_encoder(checkpoint, config, len(self.tokenizer))
        features_width = 0 if self.text_encoder is None else int(self.text_encoder.config.hidden_size)
        if not (caption_width or features_width) or (
            caption_width and features_width and caption_width != features_width
        ):
            raise RecipeError(
                f"language 'llamagen_captions': caption_width is {caption_width}, but the text encoder's features "
                f"have {features_width or 'no known'} channels"
            )
        caption_width = caption_width or features_width
        self.empty = nn.Parameter(torch.randn(caption_tokens, caption_width) / caption_width**0.5)
        self.project = nn.Sequential(
            nn.Linear(caption_width, width, bias=False),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width, bias=False),
        )
        initialise(self.layers)
        initialise(self.project)
        self.requires_grad_(True)

    def standalone(self) -> dict[str, Any]:
        if self.text_encoder is None:
            return {}
        config = self.text_encoder.config
        return {"checkpoint": None, "config": config.to_diff_dict() | {"model_type": config.model_type}}

    def requires_grad_(self, requires_grad: bool = True) -> LlamaGenCaptions:
        """Whatever learns, the text encoder does not."""
        super().requires_grad_(requires_grad)
        if self.text_encoder is not None:
            self.text_encoder.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> LlamaGenCaptions:
        super().train(mode)
        if self.text_encoder is not None:
            self.text_encoder.eval()
        return self

    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        """Of tokens one by one, without the others of their caption; see `embed_batch`."""
        rows = ids.reshape(-1, 1)
        return self.project(self._features(rows, torch.ones_like(rows, dtype=torch.bool))).view(
            *ids.shape, -1
        )

    def embed_batch(self, batch: PackedBatch) -> Float[Tensor, "b t d"]:
        """The projected features of every caption: text that no picture and no other document divides."""
        words = (batch.kinds == Kind.TEXT) & (batch.documents >= 0)
        ids, real, places = _runs(batch.ids, words, batch.documents)
        embedded = self.empty.new_zeros(*batch.ids.shape, self.width)
        if not len(ids):
            return embedded
        if ids.shape[1] > len(self.empty):
            raise DataError(f"a caption has {ids.shape[1]} tokens, but at most {len(self.empty)} are known")
        features = self._features(ids, real)
        lengths = real.sum(1, keepdim=True)
        last = torch.arange(ids.shape[1], device=ids.device) - lengths + len(self.empty)
        without = self.empty[last.clamp(0, len(self.empty) - 1)]
        features = torch.where((ids == self.tokenizer.pad)[..., None], without, features)
        values = self.project(features[real])
        return embedded.flatten(0, 1).index_copy(0, places[real], values).view_as(embedded)

    @property
    def head(self) -> nn.Module:
        return nn.Identity()

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]:
        raise ChiasmError("this model only draws: it reads captions and says nothing")

    def _features(self, ids: Int[Tensor, "n m"], real: Bool[Tensor, "n m"]) -> Float[Tensor, "n m c"]:
        if self.text_encoder is None:
            raise ChiasmError(
                "language 'llamagen_captions' has no text encoder: give its 'checkpoint' or its 'config'"
            )
        with torch.no_grad():
            features = self.text_encoder(input_ids=ids, attention_mask=real.long())
        return features.last_hidden_state.to(self.empty.dtype)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "width": 32,
            "depth": 2,
            "heads": 4,
            "hidden": 48,
            "context": 256,
            "vocabulary": 400,
            "config": {
                "model_type": "t5",
                "d_model": 16,
                "d_kv": 8,
                "d_ff": 24,
                "num_layers": 1,
                "num_heads": 2,
            },
        }


def _runs(
    ids: Int[Tensor, "b t"], words: Bool[Tensor, "b t"], documents: Int[Tensor, "b t"]
) -> tuple[Int[Tensor, "n m"], Bool[Tensor, "n m"], Int[Tensor, "n m"]]:
    """Every unbroken run of words: its ids, which of them are no padding, and the flat places they come from."""
    before = torch.zeros_like(words)
    before[:, 1:] = words[:, :-1] & (documents[:, 1:] == documents[:, :-1])
    places = words.flatten().nonzero()[:, 0]
    run = (words & ~before).flatten()[places].long().cumsum(0) - 1
    lengths = torch.bincount(run)
    most = int(lengths.max()) if len(lengths) else 0
    real = torch.arange(most, device=ids.device) < lengths[:, None]
    table = torch.zeros_like(real, dtype=torch.long)
    table[real] = places
    return ids.flatten()[table] * real, real, table


def _text_encoder(checkpoint: str | None, config: dict[str, Any] | None, vocabulary: int) -> Any:
    """transformers' encoder of texts; None where neither is given. Raises RecipeError or CheckpointError."""
    if checkpoint is not None and config is not None:
        raise RecipeError("language 'llamagen_captions' takes either a 'checkpoint' or a 'config', not both")
    if config is not None:
        built = build_config({"vocab_size": vocabulary, **config}, "language 'llamagen_captions': its config")
        try:
            return AutoModelForTextEncoding.from_config(built).eval()
        except Exception as error:  # each architecture raises what it likes for sizes that it cannot have
            raise RecipeError(
                f"language 'llamagen_captions': transformers refuses this config: {reason(error)}"
            ) from None
    if checkpoint is None:
        return None
    try:
        if weightless():
            settings = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
            return AutoModelForTextEncoding.from_config(settings, dtype=torch.float32).eval()
        return AutoModelForTextEncoding.from_pretrained(
            checkpoint, dtype=torch.float32, trust_remote_code=False
        ).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"no text encoder can be read from {checkpoint}: {reason(error)}") from None
