"""Words of the language model as the tokens of a denoiser, by a public text encoder that stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.decoders import TextCodec
from chiasm.decoders.conditioners import Conditioner, ConditionerContext
from chiasm.decoders.conditioners.words import words_mask
from chiasm.decoders.conditions import Condition
from chiasm.errors import CheckpointError, RecipeError
from chiasm.parts.bounds import Tokens
from chiasm.storage.skeleton import weightless
from chiasm.storage.transformers_config import as_options, build_config, read_config
from chiasm.storage.transformers_weights import load_pretrained
from chiasm.storage.weights import resolve
from chiasm.tokenizers.spaces import WordIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KINDS = {"clip_text_model": "CLIPTextModel", "t5": "T5EncoderModel"}  # by model_type: transformers' class
READS_PADDING = ("clip_text_model",)  # as Stable Diffusion was trained


class TextModel(Conditioner, name="text_model"):
    """CLIP's text tower (Stable Diffusion, arXiv 2112.10752) or T5's encoder (Imagen, 2205.11487), frozen.

    The language model's words are written out as text, which the encoder's own tokenizer reads; what is longer than
    `length` loses its end. The last hidden states are the tokens. What guidance leads away from is the empty text.

    Args:
        checkpoint: a local folder or hub name of the encoder; of CLIP's two towers the text's is taken.
        tokenizer: likewise, of its tokenizer; null = it lies beside the encoder.
        config: instead of a checkpoint, from scratch: a transformers config with its `model_type`.
        length: tokens of the encoder, to which every text is padded.
        words: most words of the language model that are written out.
        projected: a learnt projection to the denoiser's width stands behind it; else both have one width.
        tokenizer_bytes: of the tokenizer's file that a saved model holds among its weights; null = read it.
    """

    space: WordIds
    tokenizer_file: Tensor

    def __init__(
        self,
        context: ConditionerContext,
        *,
        checkpoint: str | None = None,
        tokenizer: str | None = None,
        config: dict[str, Any] | None = None,
        length: Tokens = 77,
        words: Tokens = 77,
        projected: bool = False,
        tokenizer_bytes: Tokens | None = None,
    ):
        super().__init__()
        self.space, self.length = context.words(self.name, words), length
        assert context.reader is not None
        self._codec: TextCodec = context.reader.tokenizer
        if (checkpoint is None) == (config is None):
            raise RecipeError("conditioner 'text_model' needs either a checkpoint or a config")
        folder = resolve(checkpoint) if checkpoint is not None else None
        self.model = _load(folder, str(checkpoint)) if folder is not None else _from_scratch(config or {})
        self.model.requires_grad_(False)
        self._check_length()
        width, wanted = self.model.config.hidden_size, context.token_width
        if context.pooled_width is not None:
            raise RecipeError(
                "conditioner 'text_model' makes no pooled vector, which this denoiser reads (SDXL's); use one "
                "without, or conditioner 'words'"
            )
        if width != wanted and not projected:
            raise RecipeError(
                f"conditioner 'text_model': the text encoder has width {width}, but the denoiser's tokens {wanted} "
                "(Stable Diffusion 1.5 has 768, 2 has 1024); take the encoder that belongs to it, or set "
                "projected: true"
            )
        self.projection = nn.Linear(width, wanted) if projected else nn.Identity()
        if tokenizer_bytes is not None:
            file = torch.zeros(tokenizer_bytes, dtype=torch.uint8)
        else:
            place = resolve(tokenizer) if tokenizer is not None else folder
            if place is None:
                raise RecipeError(
                    "conditioner 'text_model' with a config needs a tokenizer, a folder or hub name"
                )
            file = _as_bytes(place, self.model.config.vocab_size)
        self.register_buffer(
            "tokenizer_file", file
        )  # with the weights, so that a saved model needs no folder
        self._tokenizer: PreTrainedTokenizerFast | None = None

    def standalone(self) -> dict[str, Any]:
        own = {"checkpoint": None, "tokenizer": None, "config": as_options(self.model.config)}
        return {**own, "tokenizer_bytes": len(self.tokenizer_file)}

    def learners(self) -> Mapping[str, nn.Module]:
        return {"projection": self.projection}

    def forward(self, target: Int[Tensor, "n 1 k"]) -> Condition:
        words_mask(target, self.space, self.name)
        rows = target[:, 0].tolist()
        return self._read([self._codec.decode([id for id in row if id != self.space.size]) for row in rows])

    def empty(self, condition: Condition) -> Condition:
        return self._read([""] * len(condition.tokens))

    def _read(self, texts: Sequence[str]) -> Condition:
        options: Any = {"padding": "max_length", "max_length": self.length, "truncation": True}
        encoded = self.tokenizer([text.strip() for text in texts], return_tensors="pt", **options)
        ids, mask = (encoded[name].to(self.tokenizer_file.device) for name in ("input_ids", "attention_mask"))
        if self.model.config.model_type in READS_PADDING:
            return Condition(self.projection(self._hidden(ids)))
        return Condition(self.projection(self._hidden(ids, mask)), mask.bool())

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

    def _check_length(self) -> None:
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most is not None and self.length > most:
            raise RecipeError(
                f"conditioner 'text_model' shall read {self.length} tokens, but its text encoder has {most} "
                "positions; lower its length"
            )


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


def _from_scratch(config: dict[str, Any]) -> Any:
    where = "conditioner 'text_model': its config"
    settings = build_config(config, where)
    return _kind_of(settings, where)(settings).eval()


def _kind_of(settings: Any, where: str) -> Any:
    import transformers

    if settings.model_type not in KINDS:
        raise RecipeError(f"{where}: it is a {settings.model_type!r}; there are {', '.join(KINDS)}")
    return getattr(transformers, KINDS[settings.model_type])


def _as_bytes(folder: Path, size: int) -> Tensor:
    """A fast tokenizer of transformers as the bytes of one file.

    size: of the encoder's vocabulary. Raises RecipeError for a tokenizer with ids beyond it.
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
            f"conditioner 'text_model': the tokenizer of {folder} has tokens up to {most}, but the text encoder "
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
