"""The head whose pictures end where their codes end."""

import pytest
import torch
from torch import nn
from writing import Vocabulary, written
from writing import head as built

from chiasm.errors import RecipeError
from chiasm.heads import DrawingState, Span
from chiasm.nn.generators import Generators

END = 5  # of 5 codes and the end


class Steps:
    """Says the rows of logits of a script, one a step."""

    def __init__(self, *script):
        self.script = list(script)
        self.start = self.script.pop(0)
        self.given = []

    def __call__(self, ask):
        self.given.append(ask.embeddings)
        return self.script.pop(0)[:, None]


def head(**options):
    own = {key: options.pop(key) for key in ("first", "end", "stray") if key in options}
    spec = {"type": "variable", "alphabet": {"type": "shared", **own}, "unconditional": 0.1, **options}
    return built(spec, 12, END + 1, (1, 4), vocabulary=Vocabulary(), end=END)


def says(*ids):
    return nn.functional.one_hot(torch.tensor(ids), 12).float() * 9


def sample(made, *script, **options):
    return written(made, Steps(*script), **options)


def test_only_codes_up_to_the_end_are_learnt():
    made = head(first=6)
    span = Span(torch.zeros(2, 4, 4), torch.tensor([[1, 2, END, END], [END, END, END, END]]))
    assert made.losses(torch.zeros(2, 4, 12), span)["image"].count == 3 + 1


def test_the_loss_is_of_the_codes_up_to_the_first_end_told_from_all_words():
    """And an orphan's first code is predicted by nothing. `terms` says beforehand how many there will be."""
    made, orphans = head(first=6), torch.tensor([False, True, False, False])
    codes = torch.tensor([[1, 2, END, 0], [4, END, 3, END], [3, 2, 1, 0], [END, 0, 0, 0]])
    learnt = [[6 + 1, 6 + 2, 11], [None, 11], [6 + 3, 6 + 2, 6 + 1, 6], [11]]
    torch.manual_seed(0)
    hidden = torch.randn(4, 4, 12)
    expected = [
        nn.functional.cross_entropy(hidden[row, place], torch.tensor(id))
        for row, ids in enumerate(learnt)
        for place, id in enumerate(ids)
        if id is not None
    ]
    loss = made.losses(hidden, Span(torch.zeros(4, 4, 4), codes, orphans))["image"]
    torch.testing.assert_close(loss.sum, sum(expected))
    assert float(loss.count) == len(expected) == 9
    assert made.terms(codes.view(4, 1, 4), orphans) == {"image": 9.0}


def test_without_options_a_picture_has_a_code_at_least_and_the_vocabulary_grows():
    made = head()
    assert list(made.reserved) == [6, 7, 8, 9, 10, 11]
    assert made.standalone()["alphabet"]["first"] == 6
    assert (made.shortest, made.unconditional) == (1, 0.1)
    table = made.alphabet.words.vocabulary.table.weight
    assert torch.equal(made.embed_read(torch.tensor([[[0, 5, 5, 5]]]))[0], table[[6, 11, 11, 11]])


def test_codes_are_drawn_among_codes_alone_by_temperature_and_top_k():
    made, rows = head(first=6), 64
    logits = torch.tensor([50.0] * 6 + [0.0, 1.0, 2.0, 3.0, 4.0, 9.0]).expand(rows, 12)
    script = [logits, *[says(*[11] * rows)] * 3]

    def first(**options):
        return set(sample(made, *script, generators=Generators(range(rows)), **options)[:, 0, 0].tolist())

    assert first(temperature=0) == {4}  # the end may not be the first
    assert first(temperature=3.0) == {0, 1, 2, 3, 4}
    assert first(temperature=3.0, top_k=2) == {3, 4}


def test_behind_its_end_a_row_reads_ends_while_others_go_on():
    made = head(first=6)
    step = Steps(says(6, 7), says(11, 8), says(9, 9), says(9, 6))
    codes = written(made, step)
    assert codes.tolist() == [[[0, END, END, END]], [[1, 2, 3, 0]]]
    table = made.alphabet.words.vocabulary.table.weight
    for given, ids in zip(step.given, [[6, 7], [11, 8], [11, 9]], strict=True):
        assert torch.equal(given[:, 0], table[ids])


def test_a_picture_that_was_stopped_goes_on():
    made, progress = head(first=6), DrawingState(Generators([0, 0]))
    progress.note(torch.tensor([[1, 2], [3, END]]), 2)
    codes = written(made, Steps(says(9, 9), says(11, 11)), progress=progress)
    assert codes.tolist() == [[[1, 2, END, END]], [[3, END, END, END]]]


def test_a_picture_ends_at_its_end_and_drawing_stops_when_all_have_ended():
    made = head(first=6, shortest=0)
    codes = sample(made, says(6, 7), says(11, 8), says(9, 11))
    assert codes.tolist() == [[[0, END, END, END]], [[1, 2, END, END]]]


def test_no_picture_is_shorter_than_the_shortest():
    made = head(first=6, shortest=2)
    first = says(11) + 0.5 * says(8)
    codes = sample(made, first, first, says(11))
    assert codes.tolist() == [[[2, 2, END, END]]]


def test_stray_words_are_read_on_but_are_no_part_of_the_picture():
    made = head(first=6, stray=[3])
    codes = sample(made, says(6), says(3), says(7), says(11))
    assert codes.tolist() == [[[0, 1, END, END]]]


def test_the_end_may_stand_elsewhere_in_the_vocabulary():
    made = head(first=7, end=2, shortest=0)
    codes = sample(made, says(7), says(2))
    assert codes.tolist() == [[[0, END, END, END]]]
    assert set(made.reserved) == {7, 8, 9, 10, 11, 2}
    with pytest.raises(RecipeError, match="'first' must be"):
        head(end=2)


def test_guided_logits_choose_as_guided_logarithms_of_chances():
    torch.manual_seed(0)
    made, scale = head(first=6, shortest=0), 3.0
    logits = torch.randn(8, 12)
    within, without = logits.log_softmax(-1).chunk(2)
    wanted = (without + scale * (within - without))[:, 6:].argmax(-1)
    stop = says(*[11] * 8)
    codes = sample(made, logits, stop, stop, guidance=scale)
    assert codes[:, 0, 0].tolist() == wanted.tolist()


def test_the_empty_prompt_is_the_marker_alone():
    assert head(first=6).layout().bare
