"""Guidance of a picture's first codes only, and codes without an embedding of their cell."""

import torch
from test_factorised import Recorder

from chiasm.heads.llamagen import LlamaGenHead


def test_only_the_first_codes_are_guided():
    head = LlamaGenHead(8, 16, (2, 2))
    torch.nn.init.normal_(head.output.weight)
    torch.nn.init.normal_(head.codes.weight)
    plain = head.sample(Recorder(4, 8), guidance=1, temperature=0)[:2]
    guided = head.sample(Recorder(4, 8), guidance=9.0, temperature=0)
    head.guided_codes = 1
    first = head.sample(Recorder(4, 8), guidance=9.0, temperature=0)
    assert torch.equal(first[:, 0, 0], guided[:, 0, 0])
    assert not torch.equal(first, guided)
    head.guided_codes = 0
    assert torch.equal(head.sample(Recorder(4, 8), guidance=9.0, temperature=0), guided)
    assert plain.shape == guided.shape


def test_a_code_says_nothing_of_its_cell_and_no_code_is_likelier_at_first():
    head = LlamaGenHead(8, 16, (2, 2))
    span = head.prepare(torch.full((1, 2, 2), 3))
    assert torch.equal(span.embeddings[0], span.embeddings[0, :1].expand(4, -1))
    assert torch.allclose(head.losses(torch.randn(1, 4, 8), span)["image"].mean, torch.tensor(16.0).log())
