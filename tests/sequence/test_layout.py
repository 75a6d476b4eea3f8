"""What the language model is handed besides embeddings: the rule's examples, columns of queries, rows joined."""

import pytest
import torch
from torch import nn

from chiasm.errors import ChiasmError, RecipeError
from chiasm.heads import raster
from chiasm.language import Language
from chiasm.sequence.layout import AXES, PADDINGS, Layout, current_layout
from chiasm.sequence.rule import hiding

EXAMPLES = {  # opens, exposed, and which keys each position sees: those of the docstring of `chiasm.sequence.rule`
    "causal": ("1111", "1111", ["1000", "1100", "1110", "1111"]),
    "a prefix": ("1001", "1111", ["1110", "1110", "1110", "1111"]),
    "a private block": ("1101", "1001", ["1000", "1110", "1110", "1001"]),
    "next scales": ("11001", "11111", ["10000", "11110", "11110", "11110", "11111"]),
}


def bits(text):
    return torch.tensor([[letter == "1" for letter in text]])


@pytest.mark.parametrize(("opens", "exposed", "seen"), EXAMPLES.values(), ids=EXAMPLES)
def test_the_rule_in_its_examples(opens, exposed, seen):
    layout = Layout(torch.zeros(1, len(opens), dtype=torch.long), bits(opens), bits(exposed))
    assert torch.equal(layout.allowed, torch.cat([bits(row) for row in seen])[None])


def layout(documents, **columns):
    documents = torch.tensor(documents)
    every = torch.ones_like(documents, dtype=torch.bool)
    return Layout(documents, every, every, **columns)


def test_positions_are_counted_in_their_document_over_padding():
    counted = layout([[-1, -1, 0, 0, 1, 1, 1], [0, 0, -1, -1, 0, 0, 1]]).positions
    assert counted[0, 2:].tolist() == [0, 1, 0, 1, 2]
    assert counted[1, [0, 1, 4, 5, 6]].tolist() == [0, 1, 2, 3, 0]


def test_the_first_block_of_each_document_is_what_an_encoder_reads():
    """Two documents behind padding: the prefix of each, though blocks are counted over the whole row."""
    documents = torch.tensor([[-1, 0, 0, 0, 1, 1, 1]])
    opens = bits("1100101")
    first = Layout(documents, opens, torch.ones_like(opens)).first_block
    assert first.long().tolist() == [[0, 1, 1, 1, 1, 1, 0]]
    alone = Layout(torch.zeros(1, 3, dtype=torch.long), bits("001"), bits("111"))
    assert alone.first_block.long().tolist() == [[1, 1, 0]]


def test_the_columns_of_queries_are_those_of_the_last_positions():
    kinds = torch.tensor([[0, 1, 2]])
    before = layout([[0, 0, 0]], kinds=kinds)
    assert before.of_queries(before.kinds) is kinds
    behind = before.extended(layout([[0, -1]], kinds=torch.tensor([[2, 0]])))
    assert behind.of_queries(behind.kinds).tolist() == [[2, 0]]
    assert behind.by_kind.rows("written").tolist() == [0]
    assert behind.filled.tolist() == [0]
    assert behind.kinds.tolist() == [[0, 1, 2, 2, 0]]
    assert behind.coordinates.shape == (1, 5, AXES)


def test_selected_rows_are_whole_unless_they_start_later():
    both = layout([[0, 0, 0], [0, 0, -1]], kinds=torch.tensor([[0, 1, 2], [2, 2, 0]]))
    chosen = both.select(torch.tensor([1, 0, 1]))
    assert chosen.documents.tolist() == [[0, 0, -1], [0, 0, 0], [0, 0, -1]]
    assert both.select(torch.tensor([0]), columns=slice(1, None)).kinds.tolist() == [[1, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_hidden_key_has_no_weight_and_where_all_are_hidden_all_weigh_the_same(dtype):
    hidden = hiding(torch.tensor([[False, True, False], [True, True, True]]), dtype)
    assert hidden.isfinite().all()
    weights = (hidden + torch.tensor([1.0, 9.0, 1.0], dtype=dtype)).float().softmax(-1)
    assert weights[0].tolist() == [0.5, 0.0, 0.5]
    assert (hidden.float().softmax(-1)[1] - 1 / 3).abs().max() < 1e-6


def test_a_routed_module_sees_all_places_along_one_axis():
    """Whether rows stand apart or what wraps a module has joined them already; nothing else is taken for it."""
    by_kind = layout([[0, 0, 0], [0, 0, 0]]).by_kind
    rows = torch.arange(6.0).view(2, 3, 1)
    assert by_kind.flat(rows).tolist() == by_kind.flat(rows.view(6, 1)).tolist() == [[n] for n in range(6)]
    with pytest.raises(ChiasmError, match=r"\(3, 2, 1\), which does not fit \(2, 3\)"):
        by_kind.flat(rows.view(3, 2, 1))


def test_joined_rows_keep_their_columns_behind_padding_that_nothing_sees():
    one, other = layout([[0, 0, 0], [0, 0, -1]], kinds=torch.tensor([[0, 1, 2], [2, 2, 0]])), layout([[0]])
    joined = Layout.join([other, one])
    assert joined.documents.tolist() == [[-1, -1, 0], [0, 0, 0], [0, 0, -1]]
    assert joined.positions.tolist()[:2] == [[0, 0, 0], [0, 1, 2]]
    assert joined.kinds.tolist()[1:] == one.kinds.tolist()
    assert joined.allowed[0].sum() == 1
    for row, rows in ((1, one), (2, one)):
        assert torch.equal(joined.allowed[row], rows.allowed[row - 1])
    assert joined.padded == 0
    selected = joined.select(torch.tensor([0, 0]), columns=slice(1, None))
    assert selected.documents.tolist() == [[-1, 0]] * 2
    assert selected.padded == 1
    assert all(len(getattr(selected, name)) == 2 for name in PADDINGS)


class Hollow(Language):
    """A language model of one module that is handed nothing but hidden states."""

    tokenizer, width, context = None, 2, 9

    def __init__(self):
        super().__init__()
        self.inner, self.found = nn.Identity(), []
        self.inner.register_forward_hook(lambda *_: self.found.append(current_layout()))

    def embed(self, ids):
        return torch.zeros(*ids.shape, 2)

    def read(self, embeddings, layout, cache):
        return self.inner(embeddings)

    head = property(lambda self: self.inner)

    def logits(self, hidden):
        return hidden

    def new_cache(self):
        return None


def test_modules_inside_a_language_model_find_the_layout_of_the_call():
    language, first, second = Hollow(), Layout.causal(1, 3), Layout.causal(2, 2)
    language(torch.zeros(1, 3, 2), first)
    language(torch.zeros(2, 2, 2), second)
    assert language.found == [first, second]
    with pytest.raises(RecipeError, match="cannot grow"):
        language.grow(1)


def test_cells_of_a_grid_row_by_row():
    assert raster(2, 3) == ((0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 0), (4, 1, 1), (5, 1, 2))
