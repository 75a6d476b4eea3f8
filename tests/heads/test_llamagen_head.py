"""Guidance of a picture's first codes only, and codes without an embedding of their cell."""

import pytest
import torch
from test_factorised import Recorder
from writing import written

from chiasm.heads.llamagen import LlamaGenHead


def made(**options):
    torch.manual_seed(0)
    head = LlamaGenHead(8, 16, (2, 2), **options)
    torch.nn.init.normal_(head.output.weight)
    torch.nn.init.normal_(head.codes.weight)
    return head


@pytest.mark.parametrize("guided_codes", [None, 0, 1, 3, 9])
def test_only_the_first_codes_are_guided(guided_codes):
    """None of a head is guided less than all, unless it is asked to be."""
    head = made() if guided_codes is None else made(guided_codes=guided_codes)
    step, guidance = Recorder(8, 8), 9.0
    codes = written(head, step, guidance=guidance)
    embeddings = torch.cat([head.prepare(codes).embeddings] * 2)
    hidden = torch.cat([step.start[:, None], embeddings[:, :-1] + step.start[:, None]], 1)
    with_prompt, without = head.logits(hidden).chunk(2)
    guided = without + guidance * (with_prompt - without)
    count = guided_codes or 4
    expected = torch.cat([guided[:, :count], with_prompt[:, count:]], 1).argmax(-1)
    assert torch.equal(codes.flatten(1), expected)
    assert not torch.equal(guided.argmax(-1), with_prompt.argmax(-1))


def test_a_code_says_nothing_of_its_cell_and_no_code_is_likelier_at_first():
    head = LlamaGenHead(8, 16, (2, 2))
    span = head.prepare(torch.full((1, 2, 2), 3))
    assert torch.equal(span.embeddings[0], span.embeddings[0, :1].expand(4, -1))
    assert torch.allclose(head.losses(torch.randn(1, 4, 8), span)["image"].mean, torch.tensor(16.0).log())
    assert {name for name, _ in head.named_parameters()} == {"codes.weight", "output.weight"}
    assert head.unconditional == 0.1
