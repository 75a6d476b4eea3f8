"""Which parts may not be shared out among the batches of a step, and what they say of it."""

import pytest

from chiasm import parts
from chiasm.nn.indivisible import reasons

MEAN_USE = "entropy of the codes' mean use"
TAKEN_OVER_A_BATCH = {
    "vqgan_video": "BatchNorm3d",
    **dict.fromkeys(("open_magvit2", "open_magvit2_video", "contact_sheet"), MEAN_USE),
    **dict.fromkeys(("vqgan.lfq", "vqgan.lfq_projected", "vqgan.lfq_bitwise"), MEAN_USE),
}
TOKENIZERS = {name: {"type": name, **parts.lookup("image_tokenizer", name).example()}
              for name in parts.names("image_tokenizer")}  # fmt: skip
VQGANS = {
    f"vqgan.{name}": TOKENIZERS["vqgan"]
    | {"quantizer": {"type": name, **parts.lookup("quantizer", name).example()}}
    for name in parts.names("quantizer")
}


@pytest.mark.parametrize(("name", "spec"), (TOKENIZERS | VQGANS).items(), ids=TOKENIZERS | VQGANS)
def test_a_tokenizer_tells_what_it_takes_over_a_whole_batch(name, spec):
    tokenizer = parts.build("image_tokenizer", spec).train()
    why = reasons(tokenizer, ranks=False, rows=1)
    assert bool(why) == (name in TAKEN_OVER_A_BATCH)
    assert all(TAKEN_OVER_A_BATCH[name] in reason for reason in why)
    assert reasons(tokenizer.eval(), ranks=False, rows=1) == []
