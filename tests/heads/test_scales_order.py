"""The order of scales: a scale sees no finer one, drawing is what training sees, guidance grows by scale."""

import pytest
import torch
from writing import Recorded, head, written

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.heads import Sampling
from chiasm.inference.drawing import draw
from chiasm.inference.session import Session
from chiasm.interop.parity.drawing import DrawStep
from chiasm.model import Model
from chiasm.nn.generators import Generators
from chiasm.recipe import load_recipe
from chiasm.sequence import Document, Kind
from chiasm.tokenizers import join_scales, split_scales

SCALES = [1, 2, 3]
HEAD = {"type": "scales", "alphabet": {"type": "own", "bias": True, "deviation": 0.01}}
LANGUAGES = {
    "causal": {
        "type": "causal",
        "vocabulary": 300,
        "config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
        },
    },
    "var": {"type": "var", "width": 32, "depth": 2, "heads": 4, "vocabulary": 300},
    "classes": {"type": "var", "width": 32, "depth": 2, "heads": 4, "classes": 10},
}
TOKENIZER = {
    "type": "multi_scale",
    "scales": SCALES,
    "width": 32,
    "multipliers": [1, 1],
    "depth": 1,
    "code_width": 8,
    "codebook_size": 24,
}


def model(language="causal", **options) -> Model:
    raw = {
        "language": LANGUAGES[language],
        "image_tokenizer": TOKENIZER,
        "heads": {"image": {**HEAD, **options}},
    }
    recipe = load_recipe({"name": "test", "model": raw, "data": {}, "stages": []})
    made = Model(recipe.model, texts=["a red apple"]).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # so that every part of it matters
        for name, parameter in made.named_parameters():
            if not name.startswith("image_tokenizer.") or "embedding" in name:
                parameter.normal_(generator=generator).mul_(max(parameter.shape[-1], 8) ** -0.5 * 2)
    return made


def prompt(id: int) -> Document:
    made = Document("a prompt")
    made.add_text([id], learn=False)
    return made


def drawn(made: Model, generators=None, progress=None, **options) -> torch.Tensor:
    sampling = Sampling(**{"temperature": 0, **options})
    return draw(made, [prompt(3), prompt(5)], sampling, generators=generators, progress=progress)


def forced(made: Model, codes: torch.Tensor, prompts=(3, 5)) -> torch.Tensor:
    """Logits of all codes at once, as in training."""
    session, layout = Session(made, [prompt(id) for id in prompts]), made.image_head.layout()
    embeddings = made.image_head.prepare(codes).embeddings
    hidden = session.step(embeddings, Kind.WRITTEN, layout.opens, layout.exposed, layout.coordinates)
    first = Session(made, [prompt(id) for id in prompts]).last[:, None]
    return made.image_head.alphabet.output(torch.cat([first, hidden], 1))


def test_it_begins_as_vars():
    """Weights of variance 1 / (3 width), cut off at two, the output's as asked for, and no biases."""
    tokenizer = parts.build("image_tokenizer", {**TOKENIZER, "code_width": 32})
    torch.manual_seed(0)
    made = head(HEAD, 768, 24, tokenizer.grid, refinement=tokenizer.refinement)
    shapes = {name: tuple(p.shape) for name, p in made.named_parameters()}
    assert shapes == {
        "read.weight": (768, 32),
        "read.bias": (768,),
        "levels.weight": (2, 768),
        "cells.weight": (13, 768),
        "alphabet.output.weight": (24, 768),
        "alphabet.output.bias": (24,),
    }
    for name, parameter in made.named_parameters():
        deviation = 0.01 if name == "alphabet.output.weight" else (3 * 768) ** -0.5
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            assert float(parameter.detach().std()) == pytest.approx(deviation, rel=0.1)
    assert made.unconditional == 0.1
    assert made.ramp


def test_each_scale_but_the_first_is_one_block_and_every_code_has_a_row_that_predicts_it():
    layout = model().image_head.layout()
    assert layout.opens == (True, False, False, False, True) + (False,) * 8
    assert all(layout.exposed)
    assert layout.rows == tuple(range(-1, 13))
    two, three = ([(row, column) for row in range(side) for column in range(side)] for side in (2, 3))
    assert layout.coordinates == tuple((place, *cell) for place, cell in enumerate(two + three))


def test_a_position_reads_the_coarser_scales_its_level_and_its_cell():
    made = model()
    head, codes = made.image_head, torch.randint(0, 24, (2, 1, 14))
    coarser = made.image_tokenizer.quantize.next_inputs(codes)
    levels = torch.cat([head.levels.weight[:1].expand(4, -1), head.levels.weight[1:].expand(9, -1)])
    expected = head.read(coarser) + levels + head.cells.weight
    span = head.prepare(codes)
    torch.testing.assert_close(span.embeddings, expected)
    assert torch.equal(span.targets, codes[:, 0])


def test_each_code_is_learnt_but_an_orphans_first():
    head, codes = model().image_head, torch.randint(0, 24, (2, 1, 14))
    hidden, span = torch.randn(2, 14, 32), head.prepare(codes)
    terms = torch.nn.functional.cross_entropy(
        head.alphabet.output(hidden).flatten(0, 1), codes.flatten(), reduction="none"
    ).view(2, 14)
    loss = head.losses(hidden, span)["image"]
    assert float(loss.count) == 28
    torch.testing.assert_close(loss.sum, terms.sum())
    loss = head.losses(hidden, span._replace(orphans=torch.tensor([True, False])))["image"]
    assert float(loss.count) == 27
    torch.testing.assert_close(loss.sum, terms.sum() - terms[0, 0])


@torch.no_grad()
@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_drawn_greedily_is_what_the_whole_picture_at_once_predicts(language):
    made = model(language)
    codes = drawn(made)
    assert torch.equal(forced(made, codes).argmax(-1)[:, None], codes)
    assert len(codes.unique()) > 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_scale_sees_itself_and_coarser_ones_but_no_finer_one(language):
    made = model(language)
    layout = made.image_head.layout()
    for index, side in enumerate(SCALES[1:], 1):
        begin = sum(each * each for each in SCALES[1:index])
        session = Session(made, [prompt(3)])
        embeddings = torch.randn(1, 13, made.language.width, requires_grad=True)
        hidden = session.step(embeddings, Kind.WRITTEN, layout.opens, layout.exposed, layout.coordinates)
        hidden[0, begin, 0].backward()
        seen = embeddings.grad[0].abs().sum(-1) > 0
        assert seen[: begin + side * side].all()
        assert not seen[begin + side * side :].any()


@torch.no_grad()
def test_codes_depend_on_no_finer_codes():
    made = model()
    one, other = drawn(made), drawn(made).clone()
    other[..., 5:] = (other[..., 5:] + 7) % 24
    torch.testing.assert_close(forced(made, one)[:, :5], forced(made, other)[:, :5])


@torch.no_grad()
def test_guidance_is_vars_formula_and_begins_at_none():
    made, cfg = model("classes"), 3.0
    codes = drawn(made, guidance=1 + cfg)
    plain, without = forced(made, codes), forced(made, codes, (10, 10))
    for index, (begin, end) in enumerate(((0, 1), (1, 5), (5, 14))):
        strength = cfg * index / 2
        logits = (1 + strength) * plain[:, begin:end] - strength * without[:, begin:end]
        assert torch.equal(logits.argmax(-1), codes[:, 0, begin:end])
    even = drawn(model("classes", ramp=False), guidance=1 + cfg)
    logits = (1 + cfg) * plain[:, :1] - cfg * without[:, :1]
    assert torch.equal(logits.argmax(-1), even[:, 0, :1])


@torch.no_grad()
def test_temperature_and_top_k_are_every_scales():
    made = model()
    greedy = drawn(made)
    assert torch.equal(drawn(made, temperature=1.0, top_k=1, generators=Generators([1, 2])), greedy)
    hot = drawn(made, temperature=5.0, generators=Generators([1, 2]))
    for begin, end in ((0, 1), (1, 5), (5, 14)):
        assert not torch.equal(hot[..., begin:end], greedy[..., begin:end])


@torch.no_grad()
def test_one_step_a_scale():
    made = model()
    step, calls = DrawStep(Session(made, [prompt(3)])), []

    def counted(ask):
        calls.append(ask.embeddings.shape[1])
        return step(ask)

    counted.start = step.start
    written(made.image_head, counted)
    assert calls == [4, 9]


@torch.no_grad()
@pytest.mark.parametrize("stopped", [1, 5, 14])
def test_a_stopped_picture_goes_on_where_it_was(stopped):
    made = model("var")
    options = {"temperature": 1.0, "guidance": 2.0}
    whole = drawn(made, generators=Generators([1, 2]), **options)
    progress = Recorded([1, 2], stop=[1, 5, 14].index(stopped) + 1)
    with pytest.raises(KeyboardInterrupt):
        drawn(made, progress.generators, progress, **options)
    assert progress.values.shape == (2, stopped)
    assert torch.equal(drawn(made, progress.restored(), progress, **options), whole)


def test_the_scales_of_a_picture_stand_in_one_row():
    codes = torch.arange(14).view(1, 1, 14)
    assert torch.equal(join_scales(split_scales(codes, [(s, s) for s in SCALES])), codes)


def test_a_tokenizer_without_scales_does_not_fit():
    tokenizer = parts.build("image_tokenizer", {"type": "vq", "size": 32, "width": 32})
    with pytest.raises(
        RecipeError, match=r"does not fit an image tokenizer whose codes .* use 'multi_scale'"
    ):
        head(HEAD, 8, 512, tokenizer.grid, refinement=tokenizer.refinement)
    for scales in ([2, 3], [1]):
        tokenizer = parts.build("image_tokenizer", {**TOKENIZER, "scales": scales})
        with pytest.raises(RecipeError, match=rf"scales that begin with 1 .* has \[{str(scales)[1:-1]}\]"):
            head(HEAD, 8, 24, tokenizer.grid, refinement=tokenizer.refinement)
    tokenizer = parts.build("image_tokenizer", {**TOKENIZER, "scales": [1, 3]})
    head(HEAD, 8, 24, tokenizer.grid, refinement=tokenizer.refinement)


def test_codes_of_another_tokenizer_and_guidance_without_an_empty_prompt_are_refused():
    made = model(unconditional=0.0)
    with pytest.raises(ChiasmError, match="codes from 0 to 24 given to an image head of 24 codes"):
        made.image_head.prepare(torch.tensor([[[0] * 13 + [24]]]))
    with pytest.raises(ChiasmError, match="codes of shape"):
        made.image_head.prepare(torch.zeros(1, 1, 5, dtype=torch.long))
    with pytest.raises(ChiasmError, match="needs a head trained with empty prompts"):
        drawn(made, guidance=2.0)
    with pytest.raises(RecipeError, match=r"unconditional is 1\.0"):
        model(unconditional=1.0)


def test_its_alphabet_reads_no_codes():
    """What stands at a position is made of the coarser scales by the tokenizer."""
    order = model().image_head
    assert order.symbols(order.space) == 0
    assert order.alphabet.codes is None


def test_the_tokenizers_weights_are_registered_once():
    made = model()
    assert not [name for name in made.image_head.state_dict() if "quantize" in name]
    assert [name for name in made.state_dict() if name.startswith("image_tokenizer.quantize")]
