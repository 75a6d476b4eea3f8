"""Drawing by words: the language model writes a caption in full view, and the image decoder draws after it."""

import json
import sys
from copy import deepcopy

import pytest
import torch
from PIL import Image
from rich.console import Console

import chiasm
from chiasm.cli import main
from chiasm.data.calls import parse_call, run_call
from chiasm.data.corpus import corpus
from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, DataError, RecipeError
from chiasm.inference.captions import captions_target
from chiasm.model import Model
from chiasm.parts import build
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from chiasm.training import train
from tiny_recipe import TINY

WORDS = {"type": "words", "length": 24, "width": 16, "depth": 1, "heads": 2}
DECODER = {
    "type": "diffusion",
    "size": 16,
    "denoiser": {"type": "dit", "width": 32, "depth": 1, "heads": 2, "patch_size": 8},
    "conditioner": WORDS,
    "scheduler": {"type": "flow"},
    "steps": 2,
}


def raw(alphabet="words"):
    changed = deepcopy(TINY)
    del changed["model"]["image_tokenizer"]
    head = {"type": "caption", "alphabet": {"type": alphabet}}
    changed["model"] |= {"heads": {"image": head}, "image_decoder": deepcopy(DECODER)}
    changed["data"]["world"]["tasks"] = {"what": 1, "captioned": 1}
    changed["data"]["held-out"]["tasks"] = {"what": 1, "draw": 1}
    changed["stages"] = changed["stages"][1:]
    return changed


def built(alphabet="words", seed=0):
    recipe = load_recipe(raw(alphabet))
    model = Model(recipe.model, texts=corpus(recipe), seed=seed)
    with torch.no_grad():
        model.image_decoder.denoising.denoiser.output.weight.normal_(
            std=0.1
        )  # it begins at zero, as does all it learns
    world = build("data", recipe.data["world"])
    return model, [sample for i in range(2) for sample in world[i]]


def batch_of(model, samples):
    batch, slots = pack([[document(model.contract, sample) for sample in samples]])
    return PictureReader(model.contract).attach(batch, slots)


def gradient(model, loss):
    model.zero_grad()
    loss.sum.backward()
    own = model.language.inner.model.layers[0].mlp.down_proj.weight.grad
    return None if own is None else own.clone()


def test_the_decoder_reads_the_words_of_the_answer_before_each_image():
    model, samples = built()
    batch = batch_of(model, samples)
    written = [s.messages[-1].content[0] for s in samples if len(s.messages[-1].content) == 2]
    ids = [batch.ids.flatten()[places[places >= 0]].tolist() for places in batch.written.image.words]
    assert [model.language.tokenizer.decode(each) for each in ids] == written
    image = next(item for item in samples[-1].messages[-1].content if not isinstance(item, str))
    two = Sample(
        "two", (Message("user", ("draw two",)), Message("assistant", ("a cat", image, "a dog", image)))
    )
    places = batch_of(model, [two]).written.image.words
    read = batch_of(model, [two]).ids.flatten()
    assert [model.language.tokenizer.decode(read[p[p >= 0]].tolist()).strip() for p in places] == [
        "a cat",
        "a dog",
    ]


def test_of_more_words_than_the_conditioner_reads_the_last_count():
    model, samples = built()
    image = next(item for item in samples[-1].messages[-1].content if not isinstance(item, str))
    answer = "a cat " * 30 + "and a frog"
    long = Sample("long", (Message("user", ("draw",)), Message("assistant", (answer, image))))
    batch = batch_of(model, [long])
    (places,) = batch.written.image.words
    assert (places >= 0).all()
    last = model.language.tokenizer.encode(answer)[-24:]
    assert batch.ids.flatten()[places].tolist() == [*last]
    assert captions_target(model, [range(30)])[0, 0].tolist() == [*range(6, 30)]


def test_an_image_without_words_before_it_is_a_sentence():
    model, samples = built()
    image = next(item for item in samples[-1].messages[-1].content if not isinstance(item, str))
    bare = Sample("bare", (Message("user", ("draw a cat",)), Message("assistant", (image,))))
    with pytest.raises(DataError, match=r"bare writes an image with no words before it .* task 'captioned'"):
        document(model.contract, bare)


def test_only_a_straight_path_takes_the_decoders_gradient_to_the_language_model():
    losses = {}
    for alphabet in ("words", "straight_words"):
        model, samples = built(alphabet)
        batch = batch_of(model, samples)
        torch.manual_seed(0)
        losses[alphabet] = model.losses(batch)["diffusion"]
        reached = gradient(model, losses[alphabet])
        assert (reached is not None and reached.abs().sum() > 0) == (alphabet == "straight_words")
    torch.testing.assert_close(losses["words"].sum, losses["straight_words"].sum)


def test_a_frozen_decoder_teaches_nothing_unless_its_gradient_passes_through():
    for alphabet, names in (("words", {"text"}), ("straight_words", {"text", "diffusion"})):
        model, samples = built(alphabet)
        model.train_only(["language", "heads.image"])
        losses = model.losses(batch_of(model, samples))
        assert set(losses) == names
        sum(loss.sum for loss in losses.values()).backward()
        assert all(parameter.grad is None for parameter in model.image_decoder.parameters())


@pytest.fixture
def scripted(monkeypatch):
    """A model that says these words, draws, and stops; `scripted(ids)` begins an answer."""
    model, _ = built()
    model.eval()
    tokenizer = model.language.tokenizer
    state = {}

    def logits(hidden, *, images=True):
        scores = torch.zeros(len(hidden), model.language.vocabulary_size)
        script, place = state["script"], state["place"]
        scores[:, [*script, tokenizer.draw, tokenizer.end][min(place, len(script) + 1)]] = 9.0
        state["place"] += 1
        return scores

    monkeypatch.setattr(model, "text_logits", logits)

    def begin(script):
        state.update(script=list(script), place=0)
        return model

    return begin


def test_words_come_first_and_the_same_words_wherever_one_asks(scripted):
    script = scripted(()).language.tokenizer.encode("a frog")
    (drawn,) = scripted(script).generate("Please, a frog!", guidance=2.0)
    assert drawn.info["caption"] == "a frog"
    reply = scripted(script).chat("Please, a frog!", guidance=2.0, tokens=len(script) + 2)
    assert [item if isinstance(item, str) else "image" for item in reply.content] == ["a frog", "image"]
    assert reply.pictures[0].tobytes() == drawn.tobytes()
    assert reply.pictures[0].info["caption"] == "a frog"


def test_of_more_words_than_the_decoder_reads_the_last_count_wherever_one_asks(scripted):
    tokenizer = scripted(()).language.tokenizer
    script = [*tokenizer.encode("two cars") * 30][:30]
    (drawn,) = scripted(script).generate("Please!")
    reply = scripted(script).chat("Please!")
    assert drawn.info["caption"] == tokenizer.answer(script[-24:])[0].strip()
    assert reply.pictures[0].info["caption"] == drawn.info["caption"]
    assert reply.pictures[0].tobytes() == drawn.tobytes()


def test_an_image_depends_on_its_words_and_seed_not_on_its_neighbours():
    model, _ = built()
    model.eval()
    together = model.generate(["a frog", "two cars"], guidance=2.0, seed=[3, 4])
    alone = model.generate("two cars", guidance=2.0, seed=4)
    assert together[1].tobytes() == alone[0].tobytes()
    assert together[1].info == alone[0].info
    assert together[0].tobytes() != together[1].tobytes()


def test_words_as_they_are_ask_no_language_model(monkeypatch):
    """So a structured call (VITRON) is carried out: its instruction is what is drawn."""
    model, _ = built()
    model.eval()
    monkeypatch.setattr(model.language, "forward", None)
    (call,) = [parse_call("<module>A</module> <instruction>generation: a frog</instruction>")[1]]
    tool = lambda call, images: model.generate(call.instruction, verbatim=True, guidance=2.0)[0]  # noqa: E731
    image = run_call(call, {"image generation": tool})
    assert image.info["caption"] == "a frog"
    assert image.tobytes() == model.generate("a frog", verbatim=True, guidance=2.0)[0].tobytes()
    with pytest.raises(DataError, match=r"prompt 1 has .* tokens, but this model's image decoder reads 24"):
        model.generate("a frog " * 20, verbatim=True)
    other = Model(load_recipe(deepcopy(TINY)).model, texts=["a"])
    with pytest.raises(ChiasmError, match="verbatim: this model's images do not follow words"):
        other.generate("a frog", verbatim=True)


def test_options_that_would_change_nothing_are_refused_by_name(tmp_path):
    model, _ = built()
    for option in ("temperature", "top_k", "top_p"):
        sentence = f"^{option}: it would change nothing: images of order 'caption' .* go by guidance alone"
        for draw in (
            lambda option: model.generate("a frog", **{option: 1}),
            lambda option: model.generate("a frog", verbatim=True, **{option: 1}),
            lambda option: model.chat("Please, a frog!", **{option: 1}),
            lambda option: model.edit(Image.new("RGB", (16, 16)), "a frog", **{option: 1}),
        ):
            with pytest.raises(ChiasmError, match=sentence):
                draw(option)
    with pytest.raises(ChiasmError, match=r"^verbatim: it must be true or false, not 'yes'"):
        model.generate("a frog", verbatim="yes")
    speaker = deepcopy(TINY)
    del speaker["model"]["heads"], speaker["model"]["image_tokenizer"]
    speaker["stages"] = []
    with pytest.raises(ChiasmError, match=r"^guidance: it is of images, and this model draws none"):
        Model(load_recipe(speaker).model, texts=["a"]).chat("a", guidance=2.0)


def test_guidance_leads_away_from_no_words():
    model, _ = built()
    conditioner = model.image_decoder.conditioner
    target = captions_target(model, [[5, 6, 7]])
    empty = conditioner.empty(conditioner(target))
    torch.testing.assert_close(empty.tokens, conditioner(captions_target(model, [[]])).tokens)
    assert empty.mask[0].tolist() == [True] + [False] * 23
    with pytest.raises(ChiasmError, match=r"takes words, \(images, 1, 24\), not int64 of shape \(1, 1, 5\)"):
        conditioner(torch.zeros(1, 1, 5, dtype=torch.long))


def test_what_does_not_fit_is_a_sentence():
    def refusal(change):
        changed = raw()
        change(changed["model"])
        with pytest.raises(RecipeError) as error:
            Model(load_recipe(changed).model, texts=["a cat"])
        return str(error.value)

    queries = {"type": "queries", "grid": [1, 4], "alphabet": {"type": "condition"}}
    assert "conditioned on words, but the alphabet 'condition' writes vectors" in refusal(
        lambda model: model["heads"].update(image=queries)
    )
    assert "conditioned on vectors, but the alphabet 'words' writes words" in refusal(
        lambda model: model["image_decoder"].update(conditioner={"type": "vectors"})
    )
    assert "for alphabet 'words' use order 'caption' (at model.heads.image.alphabet)" in refusal(
        lambda model: model["heads"]["image"].update(type="queries", grid=[1, 4])
    )
    assert "model lacks image_decoder" in refusal(lambda model: model.pop("image_decoder"))
    assert "its 3 heads do not divide" in refusal(
        lambda model: model["image_decoder"]["conditioner"].update(heads=3)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A pipeline, as a user trains it: the words first, then the decoder alone."""
    changed = raw()
    joint = changed["stages"][0] | {"steps": 2}
    alone = {"name": "paint", "train": {"image_decoder": 1e-3}, "data": {"world": 1.0}, "steps": 2, "rows": 2,
             "length": 128, "accumulate": 2}  # fmt: skip
    changed["stages"] = [joint, alone]
    return train(load_recipe(changed), tmp_path_factory.mktemp("run") / "run", console=Console(quiet=True))


def test_a_decoder_alone_learns_without_the_language_model(run, monkeypatch):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [set(line["losses"]) for line in lines] == [{"text"}] * 2 + [{"diffusion"}] * 2


def test_the_command_line_shows_the_words_and_the_file_holds_them(run, tmp_path, capsys):
    sys.argv = ["chiasm", "generate", str(run), "a frog", "--out", str(tmp_path), "--device", "cpu"]
    main()
    (image,) = chiasm.load(run, device="cpu").generate("a frog")
    assert "a frog  after: " in capsys.readouterr().out
    saved = Image.open(tmp_path / "picture-001.png")
    assert saved.text.get("Description", "") == image.info["caption"]
    assert PictureInMemory(saved).open().tobytes() == image.tobytes()
