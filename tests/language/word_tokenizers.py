"""Small text tokenizers in transformers' layout, of the two kinds that public language models have."""

from transformers import PreTrainedTokenizerFast

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WORDS = [
    "What is at the top left? A red square. USER: ASSISTANT: Answer: yes no helpful polite answers\n\n"
] * 30
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def sentencepiece_like(*special: str, begins: bool = False) -> PreTrainedTokenizerFast:
    """Spaces are letters of the words behind them, and one stands before every text, as in Llama 2's."""
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # only while its merges are learnt
    letters = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    inner.train_from_iterator(WORDS, _trainer(["<unk>", "<s>", "</s>", *special], letters))
    inner.pre_tokenizer = None
    return _fast(inner, begins, unk_token="<unk>")


def byte_level(*special: str, begins: bool = False) -> PreTrainedTokenizerFast:
    """As GPT-2's."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = _trainer(["</s>", "<s>", *special], pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator(WORDS, trainer)
    return _fast(inner, begins)


KINDS = {"sentencepiece-like": sentencepiece_like, "byte-level": byte_level}


def _trainer(special: list[str], letters: list[str]) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=letters, show_progress=False
    )


def _fast(inner: Tokenizer, begins: bool, **names: str) -> PreTrainedTokenizerFast:
    if begins:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", **names)
