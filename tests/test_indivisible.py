"""Which parts may not be shared out among the batches of a step, and what they say of it."""

import pytest

from chiasm import parts
from chiasm.indivisible import reasons

TAKEN_OVER_A_BATCH = {
    "vqgan_video": "BatchNorm3d",
    **dict.fromkeys(("lfq", "lfq_video", "vqgan_lfq", "vqgan_bits"), "entropy of the codes' mean use"),
}


@pytest.mark.parametrize("name", parts.names("image_tokenizer"))
def test_a_tokenizer_tells_what_it_takes_over_a_whole_batch(name):
    spec = {"type": name, **parts.lookup("image_tokenizer", name).example()}
    tokenizer = parts.build("image_tokenizer", spec).train()
    why = reasons(tokenizer, ranks=False, rows=1)
    assert bool(why) == (name in TAKEN_OVER_A_BATCH)
    assert all(TAKEN_OVER_A_BATCH[name] in reason for reason in why)
    assert reasons(tokenizer.eval(), ranks=False, rows=1) == []
