"""Any causal language model of transformers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

from chiasm.errors import CheckpointError, RecipeError, reason
from chiasm.language import Language, dynamic_cache
from chiasm.language import chameleon as _chameleon  # noqa: F401 - makes it known to transformers
from chiasm.language import minicpm as _minicpm  # noqa: F401 - likewise
from chiasm.language.documents_apart import check_attention, check_positions
from chiasm.language.logits import adjusted, check_logits
from chiasm.language.text import DRAW, Empty, TextTokenizer
from chiasm.parts.bounds import Positive, Times, Vocabulary
from chiasm.sequence.attention import NAME
from chiasm.sequence.layout import ALL, Layout
from chiasm.storage.skeleton import weightless
from chiasm.storage.transformers_config import as_options, build_config, read_config
from chiasm.storage.transformers_weights import load_pretrained

# Buffers of older checkpoints that hold no weights: causal masks, and frequencies that follow from the config.
MASKS = re.compile(r"(attn|attention)\.(masked_)?bias$|rotary_emb\.inv_freq$")


class Causal(Language, name="causal"):
    """A causal language model of transformers, from a configuration (from scratch) or a checkpoint.

    Args:
        checkpoint: a folder, a hub name, or `package:NAME`; a .gguf file is dequantized once and cached.
        config: transformers' configuration with its `model_type`, for a model from scratch; the vocabulary
            size follows from the tokenizer.
        embedding_std: standard deviation of the initial tables of words and positions of a model from scratch;
            null = as the configuration says.
        tokenizer: folder or hub name of a tokenizer; without one it comes from the checkpoint, or is trained.
        chat_template: a file with a chat template (Jinja) to use in place of the tokenizer's own, or the name of
            one, for base models that have none: `question` (Question: ... Answer: ...), `vicuna` (USER: ...
            ASSISTANT: ...), `plain` (what the user says, an added token <|answer|>, the answer), `tools` (the plain
            one, with tools and their calls), `caption` (what the user says, which is mostly an image, and the
            answer behind the token that begins a text), `continued` (what the user says, and the answer directly
            behind it).
        template_work: how many times the usual work a chat template may do, and characters it may have.
        vocabulary: most tokens of a tokenizer trained on the recipe's own texts; 0 = no words at all, for models of
            pictures alone.
        draw_marker: the token that begins a written picture, added where the tokenizer lacks it; null = none, a
            picture follows what stands before it at once.
        draw_end: the token behind a written picture; null = none.
        read_marker: the token before a picture that an encoder reads; null = none. A text with `{number}` counts
            the pictures of a document from 0 (MiniCPM-V 2.6: <image_id>{number}</image_id>), with `{ordinal}`
            from 1 (Qwen-VL: Picture {ordinal}: <img>).
        read_end: the token behind one; null = none.
        special_tokens: further tokens, added where the tokenizer lacks them, such as the words of views.
        empty_prompt: what stands before a picture without a prompt, for guidance: the `begin` token alone; the chat
            `template` round no words, as Show-o; or the prompt `padded`, all but its ends, as Janus, or `hidden`,
            where the image does not see that padding but stands as far behind, as JanusFlow.
    """

    def __init__(
        self,
        texts: Iterable[str] = (),
        draws: bool = False,
        *,
        checkpoint: str | None = None,
        config: dict[str, Any] | None = None,
        embedding_std: Positive | None = None,
        tokenizer: str | None = None,
        chat_template: str | None = None,
        template_work: Times = 1.0,
        vocabulary: Vocabulary = 4096,
        draw_marker: str | None = DRAW,
        draw_end: str | None = None,
        empty_prompt: Empty = "begin",
        read_marker: str | None = None,
        read_end: str | None = None,
        special_tokens: list[str] = [],  # noqa: B006
    ):
        super().__init__()
        if (checkpoint is None) == (config is None):
            raise RecipeError(
                "language 'causal' needs either a 'checkpoint' or a 'config' (from scratch), not both"
            )
        if checkpoint is not None and embedding_std is not None:
            raise RecipeError(
                "language 'causal': embedding_std is of models from scratch; a checkpoint has tables"
            )
        folder = None if checkpoint is None else _folder(checkpoint)
        if tokenizer or folder:
            self.tokenizer = TextTokenizer.load(tokenizer or folder)  # type: ignore[arg-type]
        else:
            self.tokenizer = (
                TextTokenizer.train(texts, vocabulary) if vocabulary else TextTokenizer.wordless()
            )
        if chat_template is not None:
            self.tokenizer.use_template(chat_template)
        self.tokenizer.allow_work(template_work)
        self.tokenizer.add_special(special_tokens)
        self.tokenizer.mark_read(read_marker, read_end)
        if draws:
            self.tokenizer.mark_pictures(draw_marker, draw_end, empty_prompt)
        self.inner = _load(folder) if folder else _from_config(config or {}, len(self.tokenizer))
        if embedding_std is not None:
            _draw_tables(self.inner, embedding_std)
        if len(self.tokenizer) > self.inner.get_input_embeddings().num_embeddings:
            self.inner.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        check_positions(self.inner)
        check_logits(self.inner)
        self._cache_keyword = _cache_keyword(self.inner.base_model)
        self.width = self.inner.get_input_embeddings().embedding_dim
        self.context = _context(self.inner.config)
        self.shares_prefixes = not _rotates_by_length(self.inner.config)

    def standalone(self) -> dict[str, Any]:
        return {"checkpoint": None, "chat_template": None, "config": as_options(self.inner.config)}

    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.inner.get_input_embeddings()(ids)

    def read(
        self, embeddings: Float[Tensor, "b q d"], layout: Layout, cache: DynamicCache | None
    ) -> Float[Tensor, "b q d"]:
        return self.inner.base_model(
            inputs_embeds=embeddings,
            position_ids=layout.of_queries(layout.positions),
            use_cache=cache is not None,
            layout=layout,
            **({} if cache is None else {self._cache_keyword: cache}),
        ).last_hidden_state

    @property
    def head(self) -> nn.Module:
        return self.inner.get_output_embeddings()

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]:
        return adjusted(self.head(hidden), self.inner.config)

    def grow(self, count: int) -> int:
        first: int = self.inner.get_input_embeddings().num_embeddings
        self.inner.resize_token_embeddings(first + count, mean_resizing=False)
        return first

    def new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.inner.config)

    def expect(self, cache: DynamicCache, positions: int) -> None:
        """Nothing: transformers' caches grow position by position."""

    def join(self, caches: Sequence[DynamicCache]) -> DynamicCache:
        return dynamic_cache.join(self.new_cache(), caches)

    def select(
        self, cache: DynamicCache, rows: Int[Tensor, " r"], *, columns: slice | Int[Tensor, " s"] = ALL
    ) -> DynamicCache:
        return dynamic_cache.select(self.new_cache(), cache, rows, columns)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "vocabulary": 400,
            "config": {
                "model_type": "llama",
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 64,
                "max_position_embeddings": 256,
            },
        }


def _cache_keyword(model: nn.Module) -> str:
    """How transformers calls the key-value cache: `past_key_values` up to 5.23."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _from_config(config: dict[str, Any], vocabulary: int) -> Any:
    where = "language 'causal': its config"
    kind = type(build_config(config, where))
    if kind not in AutoModelForCausalLM._model_mapping:
        raise RecipeError(f"{where}: transformers has no causal language model {kind.model_type!r}")
    built = build_config({"vocab_size": vocabulary, **config}, where)
    try:
        return _without_weights(built)
    except RecipeError:
        raise
    except Exception as error:  # each architecture raises what it likes for sizes that it cannot have
        raise RecipeError(f"language 'causal': transformers refuses this config: {reason(error)}") from None


def _draw_tables(model: nn.Module, deviation: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=deviation)


def _without_weights(config: Any, **options: Any) -> Any:
    own = _own_class(config)
    if own is not None:
        return own._from_config(config, attn_implementation="eager", **options)
    return AutoModelForCausalLM.from_config(config, attn_implementation=NAME, **options)


def _own_class(config: Any) -> Any | None:
    """Our class for a model that computes attention in a way of its own in transformers; None = it need not be.

    Raises RecipeError for such a model that we have none for.
    """
    if config.model_type == "mpt":
        from chiasm.language.mpt import MptForCausalLM

        return MptForCausalLM
    check_attention(config)
    return None


def _context(config: Any) -> int:
    """The most positions of a document that a model says it takes."""
    named = ("max_position_embeddings", "max_seq_len")
    return next((value for key in named if (value := getattr(config, key, None))), 1 << 20)


def _rotates_by_length(config: Any) -> bool:
    """Whether the length of a document decides how its first positions turn."""
    rotary = getattr(config, "rope_parameters", None) or {}
    each = [rotary, *(value for value in rotary.values() if isinstance(value, dict))]
    return any(one.get("rope_type") in ("dynamic", "longrope") for one in each)


def _load(folder: Path) -> Any:
    unreadable = f"no language model can be read from {folder}"
    settings = read_config(folder, unreadable)
    if weightless():
        return _without_weights(settings, dtype=torch.float32)
    own = _own_class(settings)
    return load_pretrained(
        own or AutoModelForCausalLM,
        folder,
        str(folder),
        unreadable,
        belongs=lambda _, name: not MASKS.search(name),
        attn_implementation="eager" if own else NAME,
    )


def _folder(checkpoint: str) -> Path:
    """The folder of a checkpoint in transformers' layout."""
    from chiasm.language.gguf import dequantized
    from chiasm.storage.weights import find_file, resolve

    path = resolve(checkpoint)
    if path.is_dir() and (path / "config.json").is_file():
        return path
    if path.is_dir() or path.suffix == ".gguf":
        return dequantized(find_file(path, ".gguf"))
    raise CheckpointError(f"{checkpoint} is a file; a language model needs a folder or a .gguf file")
