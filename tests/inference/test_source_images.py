"""Image decoders that change a source image: which image that is, in training and in use."""

import json
import sys
from copy import deepcopy

import pytest
import torch
from PIL import Image
from rich.console import Console

import chiasm
from chiasm.cli import main
from chiasm.data.corpus import corpus
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.evaluation.evaluate import evaluate
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
    "edits": True,
    "denoiser": {"type": "dit", "width": 32, "depth": 1, "heads": 2, "patch_size": 8},
    "conditioner": WORDS,
    "scheduler": {"type": "flow"},
    "steps": 2,
    "source_guidance": 1.5,
}
HEADS = {
    "words": ({"type": "caption", "alphabet": {"type": "words"}}, WORDS),
    "queries": ({"type": "queries", "grid": [1, 4], "alphabet": {"type": "condition"}}, {"type": "vectors"}),
}


def raw(head="words"):
    changed = deepcopy(TINY)
    del changed["model"]["image_tokenizer"]
    order, conditioner = HEADS[head]
    decoder = deepcopy(DECODER) | {"conditioner": conditioner}
    changed["model"] |= {"heads": {"image": order}, "image_decoder": decoder}
    changed["data"]["world"] |= {"tasks": {"instructed": 1}, "drawn_canvas": 16}
    changed["data"]["held-out"] |= {"tasks": {"edit": 1}, "drawn_canvas": 16}
    changed["stages"] = changed["stages"][1:]
    return changed


def built(head="words"):
    recipe = load_recipe(raw(head))
    model = Model(recipe.model, texts=corpus(recipe))
    with torch.no_grad():
        model.image_decoder.denoising.denoiser.output.weight.normal_(std=0.1)  # it begins at zero
    world = build("data", recipe.data["world"])
    return model, [sample for i in range(2) for sample in world[i]]


def batch_of(model, documents):
    batch, slots = pack([documents])
    return PictureReader(model.contract).attach(batch, slots)


def image_of(sample, message=0):
    return next(item for item in sample.messages[message].content if not isinstance(item, str))


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_is_of_the_change_of_the_image_that_is_read(head):
    model, samples = built(head)
    batch = batch_of(model, [document(model.contract, sample) for sample in samples])
    reader = PictureReader(model.contract)
    assert torch.equal(
        batch.written.image.sources, torch.stack([reader.target(image_of(s)) for s in samples])
    )
    values = []
    for sources in (
        batch.written.image.sources,
        batch.written.image.sources,
        1 - batch.written.image.sources,
    ):
        batch.written.image.sources = sources
        torch.manual_seed(0)
        values.append(float(model.losses(batch)["diffusion"].sum.detach()))
    assert values[0] == values[1] != values[2]


def test_the_source_is_the_last_image_before_drawn_or_shown_and_stays_where_the_prompt_is_dropped():
    model, samples = built("queries")
    first, second = image_of(samples[0]), image_of(samples[0], 1)
    messages = (
        Message("user", (first, "remove it")),
        Message("assistant", (second,)),
        Message("user", ("and now add it",)),
        Message("assistant", (first,)),
    )
    twice = Sample("twice", messages)
    reader = PictureReader(model.contract)
    expected = torch.stack([reader.target(first), reader.target(second)])
    for unconditional in (False, True):
        made = document(model.contract, twice, unconditional=unconditional)
        assert torch.equal(batch_of(model, [made]).written.image.sources, expected)


def test_an_image_that_comes_of_none_is_a_sentence_in_data_and_in_use():
    model, samples = built()
    bare = Sample("bare", (Message("user", ("draw",)), Message("assistant", ("a cat", image_of(samples[0])))))
    with pytest.raises(DataError, match=r"bare: .* no image stands before the one that it shall write"):
        document(model.contract, bare)
    model.eval()
    with pytest.raises(DataError, match=r"prompt 1: .* no image stands before .*chiasm edit"):
        model.generate("a cat")
    with pytest.raises(ChiasmError, match="this model's image decoder changes an image"):
        model.generate("a cat", verbatim=True)


@pytest.mark.parametrize("head", HEADS)
def test_an_edit_depends_on_its_source_and_its_seed(head):
    model, samples = built(head)
    model.eval()
    source = image_of(samples[0]).open()
    other = Image.new("RGB", source.size, "red")
    edits = [
        model.edit(image, "Remove it.", seed=seed)[0]
        for image, seed in ((source, 1), (source, 1), (other, 1))
    ]
    assert edits[0].tobytes() == edits[1].tobytes() != edits[2].tobytes()
    assert ("caption" in edits[0].info) == (head == "words")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose decoder learns edits alone, behind a stage in which the words are learnt; evaluated."""
    changed = raw()
    alone = {"name": "edit", "train": {"image_decoder": 1e-3}, "data": {"world": 1.0}, "steps": 2, "rows": 2,
             "length": 128}  # fmt: skip
    changed["stages"] = [changed["stages"][0] | {"steps": 2}, alone]
    folder = train(load_recipe(changed), tmp_path_factory.mktemp("run") / "run", console=Console(quiet=True))
    evaluate(folder, device="cpu")
    return folder


def test_an_evaluation_of_edits_stands_in_the_file_and_in_the_report(run):
    scores = json.loads((run / "eval.json").read_text())["tasks"]["editing"]
    assert scores["n"] == 4
    assert 0 <= scores["change"] <= 1
    assert scores["untouched"]["change"] == 0
    assert scores["reconstruction"]["psnr_outside"] == 100
    report = (run / "report.html").read_text()
    assert "psnr_outside" in report
    assert "Asked to change an image, it makes" in report
    samples = json.loads((run / "samples.json").read_text())["editing"]["rows"]
    assert all(
        " → " in row["caption"] for row in samples
    )  # the words of the model's own behind the instruction


def test_the_command_line_edits_and_shows_the_words(run, tmp_path, capsys):
    Image.new("RGB", (32, 32), "white").save(tmp_path / "scene.png")
    sys.argv = [
        "chiasm",
        "edit",
        str(run),
        str(tmp_path / "scene.png"),
        "Remove it.",
        "--out",
        str(tmp_path / "out"),
    ]
    main()
    (image,) = chiasm.load(run).edit(tmp_path / "scene.png", "Remove it.")
    assert Image.open(tmp_path / "out" / "picture-001.png").tobytes() == image.tobytes()
    assert "  after: " in capsys.readouterr().out
