"""A public text encoder that stays as it is, and the tokenizer that belongs to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from chiasm.errors import CheckpointError, DataError, RecipeError
from chiasm.storage.skeleton import weightless
from chiasm.storage.transformers_config import as_options, build_config, read_config
from chiasm.storage.transformers_weights import load_pretrained
from chiasm.storage.weights import resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KINDS = {"clip_text_model": "CLIPTextModel", "t5": "T5EncoderModel"}  # by model_type: transformers' class
READS_PADDING = ("clip_text_model",)  # as Stable Diffusion was trained


class PublicTextEncoder(nn.Module):
    """CLIP's text tower (Stable Diffusion, arXiv 2112.10752) or T5's encoder (Imagen, 2205.11487), frozen.

    Texts are padded to `length` tokens; what is longer loses its end (`check_length`).

    Args:
        who: whose it is, which begins messages.
        checkpoint: a local folder or hub name of the encoder; of CLIP's two towers the text's is taken.
        tokenizer: likewise, of its tokenizer; None = it lies beside the encoder.
        config: instead of a checkpoint, from scratch: a transformers config with its `model_type`.
        length: tokens of every text.
        tokenizer_bytes: of the tokenizer's file that a saved model holds among its weights; None = read it.
    """

    tokenizer_file: Tensor

    def __init__(
        self,
        who: str,
        *,
        checkpoint: str | None,
        tokenizer: str | None,
        config: dict[str, Any] | None,
        length: int,
        tokenizer_bytes: int | None,
    ):
        super().__init__()
        if (checkpoint is None) == (config is None):
            raise RecipeError(f"{who} needs either a checkpoint or a config")
        self.length = length
        folder = resolve(checkpoint) if checkpoint is not None else None
        own = _load(folder, str(checkpoint)) if folder is not None else _from_scratch(config or {}, who)
        self.model = own.requires_grad_(False)
        most = getattr(own.config, "max_position_embeddings", None)
        if most is not None and length > most:
            raise RecipeError(
                f"{who} shall read {length} tokens, but its text encoder has {most} positions; lower its length"
            )
        if tokenizer_bytes is not None:
            file = torch.zeros(tokenizer_bytes, dtype=torch.uint8)
        else:
            place = resolve(tokenizer) if tokenizer is not None else folder
            if place is None:
                raise RecipeError(f"{who} with a config needs a tokenizer, a folder or hub name")
            file = _as_bytes(place, own.config.vocab_size, who)
        # With the weights, so that a saved model needs no folder.
        self.register_buffer("tokenizer_file", file)
        self._tokenizer: PreTrainedTokenizerFast | None = None

    @property
    def width(self) -> int:
        return self.model.config.hidden_size

    def standalone(self) -> dict[str, Any]:
        """Options that rebuild it without the folders that it was read from."""
        own = {"checkpoint": None, "tokenizer": None, "config": as_options(self.model.config)}
        return {**own, "tokenizer_bytes": len(self.tokenizer_file)}

    def read(self, texts: Sequence[str]) -> tuple[Float[Tensor, "n k d"], Bool[Tensor, "n k"] | None]:
        """The last hidden states of texts; and where their tokens stand, of an encoder that reads no padding."""
        ids, mask = self._tokens(texts)
        if self.model.config.model_type in READS_PADDING:
            return self._hidden(ids), None
        return self._hidden(ids, mask), mask.bool()

    @property
    def pools(self) -> bool:
        """Whether it makes one vector of a text."""
        return self.model.config.model_type in READS_PADDING

    @torch.no_grad()
    def pooled(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """One vector a text: the last hidden state at its end."""
        self.model.eval()
        return self.model(input_ids=self._tokens(texts)[0]).pooler_output

    def check_length(self, text: str, called: str) -> None:
        """Raises DataError for a text that it does not read to its end. called: what the text is."""
        count = len(self.tokenizer(text.strip(), verbose=False).input_ids)
        if count > self.length:
            raise DataError(
                f"{called} has {count} tokens, but the text encoder of this model's image decoder reads "
                f"{self.length}; shorten it"
            )

    def _tokens(self, texts: Sequence[str]) -> tuple[Int[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Ids, and 1 where they are of a text."""
        options: Any = {"padding": "max_length", "max_length": self.length, "truncation": True}
        encoded = self.tokenizer([text.strip() for text in texts], return_tensors="pt", **options)
        ids, mask = (encoded[name].to(self.tokenizer_file.device) for name in ("input_ids", "attention_mask"))
        return ids, mask

    @torch.no_grad()
    def _hidden(
        self, ids: Int[Tensor, "n k"], mask: Int[Tensor, "n k"] | None = None
    ) -> Float[Tensor, "n k d"]:
        self.model.eval()  # a stage that trains the decoder sets all of it to training
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Of the encoder, from its file."""
        if self._tokenizer is None:
            self._tokenizer = _from_bytes(self.tokenizer_file)
        return self._tokenizer


def _load(folder: Path, reference: str) -> Any:
    unreadable = f"transformers cannot load a text encoder from {reference}"
    settings = read_config(folder, unreadable, "text_config")
    kind = _kind_of(settings, unreadable)
    if weightless():
        return kind(settings)
    return load_pretrained(
        kind,
        folder,
        reference,
        unreadable,
        expected=lambda name: not name.endswith("position_ids"),
        belongs=lambda model, name: name.startswith("text_model.") and "position_ids" not in name,
        config=settings,
    )


def _from_scratch(config: dict[str, Any], who: str) -> Any:
    where = f"{who}: its config"
    settings = build_config(config, where)
    return _kind_of(settings, where)(settings).eval()


def _kind_of(settings: Any, where: str) -> Any:
    import transformers

    if settings.model_type not in KINDS:
        raise RecipeError(f"{where}: it is a {settings.model_type!r}; there are {', '.join(KINDS)}")
    return getattr(transformers, KINDS[settings.model_type])


def _as_bytes(folder: Path, size: int, who: str) -> Tensor:
    """A fast tokenizer of transformers as the bytes of one file.

    size: of the encoder's vocabulary. who: begins messages. Raises RecipeError for a tokenizer with ids beyond it.
    """
    from transformers import AutoTokenizer

    try:
        inner = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # files of all kinds of forms
        raise CheckpointError(f"no tokenizer can be read from {folder}: {error}") from None
    if not inner.is_fast:
        raise CheckpointError(f"the tokenizer of {folder} has no tokenizer.json")
    if (most := max(inner.get_vocab().values(), default=0)) >= size:
        raise RecipeError(
            f"{who}: the tokenizer of {folder} has tokens up to {most}, but the text encoder "
            f"reads those below {size}; name the tokenizer that belongs to it"
        )
    special = {name: str(token) for name, token in inner.special_tokens_map.items() if isinstance(token, str)}
    record = {"tokenizer": inner.backend_tokenizer.to_str(), "special": special}
    return torch.frombuffer(bytearray(json.dumps(record).encode()), dtype=torch.uint8).clone()


def _from_bytes(file: Int[Tensor, " b"]) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    from tokenizers import Tokenizer

    record = json.loads(bytes(file.cpu().tolist()))
    special = record["special"]
    special.setdefault("pad_token", special.get("eos_token"))
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(record["tokenizer"]), **special)
