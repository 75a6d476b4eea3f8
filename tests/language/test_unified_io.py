"""What is an encoder-decoder's own: the prompt is read as a whole, the answer word by word behind it."""

from dataclasses import replace

import pytest
import torch

from chiasm.data.documents import document, draw_prompt, prompt_of, without_prompt
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, RecipeError
from chiasm.inference.session import Session
from chiasm.language.encoder_decoder_memory import Gathered
from chiasm.language.unified_io import UnifiedIO
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import Kind
from chiasm.sequence.layout import Layout

SIZES = {"width": 32, "encoder_depth": 2, "decoder_depth": 3, "heads": 4, "hidden": 48, "vocabulary": 400}
TOKENIZER = {"type": "vq", "size": 64, "width": 16, "depth": 1, "codebook_size": 16, "code_width": 8}


def language(**options):
    torch.manual_seed(0)
    return UnifiedIO(["where is the dog"], **{**SIZES, **options}).eval()


def model(marker="<|draw|>", order="raster", **options):
    language = {"type": "unified_io", **SIZES, "draw_marker": marker, **options}
    head = {"type": order, "alphabet": {"type": "tied"}}
    parts = {"language": language, "image_tokenizer": TOKENIZER, "heads": {"image": head}}
    recipe = load_recipe({"name": "tiny", "model": parts, "data": {}, "stages": []})
    return Model(recipe.model, texts=["draw a dog", "where is it"]).eval()


def layout(prompt, answer, **columns):
    """One document; prompt, answer: how many positions."""
    opens = torch.tensor([[True] + [False] * (prompt - 1) + [True] * answer])
    return replace(Layout.causal(1, prompt + answer), opens=opens, **columns)


def reach(part, prompt=4, answer=3):
    """Which embeddings each hidden state depends on."""
    embeddings = torch.randn(1, prompt + answer, 32, requires_grad=True)
    hidden = part(embeddings, layout(prompt, answer))
    rows = []
    for place in range(prompt + answer):
        (gradient,) = torch.autograd.grad(hidden[0, place].sum(), embeddings, retain_graph=True)
        rows.append((gradient[0].abs().sum(-1) > 0).tolist())
    return rows


def test_a_prompt_sees_itself_and_an_answer_the_prompt_and_what_was_said():
    P, A = True, False
    assert reach(language()) == [[P] * 4 + [A] * 3] * 4 + [[P] * 5 + [A] * 2, [P] * 6 + [A], [P] * 7]


@pytest.mark.parametrize(
    ("every", "layers"), [(1, [True] * 3), (2, [True, False, True]), (5, [True, False, True])]
)
def test_every_so_many_layers_and_the_last_attend_to_what_was_encoded(every, layers):
    made = language(cross_every=every)
    assert [layer.cross_attention is not None for layer in made.decoder] == layers


@pytest.mark.parametrize(
    "options", [{"cross_every": 2}, {"gated": False, "activation": "gelu"}, {"normalised": False}]
)
def test_words_behind_a_cache_are_words_of_one_pass(options):
    made = language(**options)
    embeddings = torch.randn(1, 9, 32)
    with torch.no_grad():
        whole = made(embeddings, layout(4, 5))
        cache, known = made.new_cache(), layout(4, 1)
        steps = [made(embeddings[:, :5], known, cache)]
        for place in range(5, 9):
            known = known.extended(Layout.causal(1, 1))
            steps.append(made(embeddings[:, place : place + 1], known, cache))
    torch.testing.assert_close(torch.cat(steps, 1), whole)


def test_rows_with_holes_say_what_each_says_alone():
    made = model()
    asked = [
        document(made.contract, Sample("x", (Message("user", (text,)),)), prompt=True)
        for text in ("where", "where is the dog that was drawn")
    ]
    words = torch.tensor([[5, 9], [7, 5], [3, 3]])
    with torch.no_grad():
        together = Session(made, asked)
        hidden = torch.stack([together.step_text(ids) for ids in words])
        for row, each in enumerate(asked):
            alone = Session(made, [each])
            own = torch.cat([alone.step_text(ids[row : row + 1]) for ids in words])
            torch.testing.assert_close(hidden[:, row], own)


def test_nothing_is_added_to_a_prompt_that_was_read():
    made, known = language(), layout(4, 0)
    cache = made.new_cache()
    made(torch.randn(1, 4, 32), known, cache)
    more = replace(Layout.causal(1, 1), opens=torch.tensor([[False]]))
    with pytest.raises(ChiasmError, match="encodes a prompt as a whole"):
        made(torch.randn(1, 1, 32), known.extended(more), cache)


def test_words_turn_by_the_words_before_them_in_prompt_or_answer_and_images_by_their_cells():
    made, T, R, W = language(read_scale=1.5), int(Kind.TEXT), int(Kind.READ), int(Kind.WRITTEN)
    kinds = torch.tensor([[T, R, R, T, T, T, W, W]])
    cells = torch.zeros(1, 8, 3, dtype=torch.long)
    cells[0, [2, 7]] = torch.tensor([[1, 0, 2], [1, 3, 1]])
    rotary = made.rotary(layout(4, 4, kinds=kinds, coordinates=cells))[0]
    line = torch.outer(
        torch.tensor([0.0, 1.0]), made.rotation.line
    )  # the first two words of prompt and answer
    assert torch.equal(rotary[[0, 3]].angle(), line)
    assert torch.equal(rotary[[4, 5]].angle(), line)
    read, written = ((rotary[i].real.acos()) for i in (2, 7))
    plane = made.rotation.plane
    torch.testing.assert_close(read, torch.cat([0 * plane, 3 * plane]), atol=1e-3, rtol=0)  # 1.5 x column 2
    torch.testing.assert_close(written, torch.cat([3 * plane, 1 * plane]), atol=1e-3, rtol=0)


def test_a_document_is_encoded_up_to_what_predicts_its_answer():
    made = model()
    said = Sample("x", (Message("user", ("where is it",)), Message("assistant", ("here",))))
    learnt, asked = document(made.contract, said), document(made.contract, prompt_of(said), prompt=True)
    first = next(i for i, label in enumerate(learnt.labels) if label >= 0)
    assert learnt.opens == [True] + [False] * (first - 1) + [True] * (len(learnt) - first)
    assert asked.opens == learnt.opens[: len(asked)]
    assert len(asked) == first + 1


@pytest.mark.parametrize(
    ("marker", "order", "behind"), [("<|draw|>", "raster", 2), (None, "raster_begun", 0)]
)
def test_a_prompt_of_an_image_is_encoded_up_to_what_predicts_the_first_code(marker, order, behind):
    made = model(marker, order)
    asked = draw_prompt(made.contract, Sample("x", (Message("user", ("draw a dog",)),)))
    for each in (asked, without_prompt(made.contract, asked)):
        read = len(each) - behind
        assert each.opens == [True] + [False] * (read - 1) + [True] * behind


def test_places_go_back_where_they_came_from():
    chosen = torch.tensor([[True, False, True, True], [False, True, False, False]])
    selected = Gathered.of(Layout.causal(2, 4), chosen)
    values = torch.arange(8.0).view(2, 4, 1)
    assert selected.take(values)[0, :, 0].tolist() == [0, 2, 3]
    assert selected.layout.documents.tolist() == [[0, 0, 0], [0, -1, -1]]
    assert selected.put(selected.take(values))[..., 0].tolist() == [[0, 0, 2, 3], [0, 5, 0, 0]]


def test_heads_that_cannot_turn_in_two_directions_are_refused():
    with pytest.raises(RecipeError, match="16 heads must divide the width 32 into multiples of 4"):
        language(heads=16)
