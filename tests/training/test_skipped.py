"""Records that cannot be used: an error that names them, or skipped, counted, and the same after a resumption."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from toy import raw, square

from chiasm.data.chat import Chat
from chiasm.distribution.processes import Ranks
from chiasm.errors import DataError
from chiasm.recipe import load_recipe
from chiasm.sequence import Kind
from chiasm.terminal.check import check
from chiasm.training import train
from chiasm.training.batches import DocumentBatches
from chiasm.training.loop import Training
from chiasm.training.metrics import read_metrics
from chiasm.training.train import build_model
from chiasm.training.usable import unusable

GOOD = 20


def record(image, answer="red", question="<image>What colour?"):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "images": [image] if image else []}


# name: (record, what an error says, its kind, when it is found: reading, checking or training)
BROKEN = {
    "turns": (
        {"messages": [{"role": "user", "content": "x"}]},
        "no turn of an assistant",
        "turns",
        "reading",
    ),
    "half a letter": (record("0.png", "a\ud800"), "half a letter", "text", "reading"),
    "a key": ({**record("0.png"), "tools": [1]}, "unknown key 'tools'", "unknown key", "reading"),
    "no image": (record("none.png"), "there is no picture at", "missing image", "reading"),
    "no size": (record("garbage.png"), "image garbage.png of sample 21", "unreadable image", "checking"),
    "too long": (record("0.png", "word " * 60), "tokens but a row holds 64", "too long", "checking"),
    "longer than the context": (
        record("0.png", "word " * 300),
        "but the context is 256",
        "too long",
        "checking",
    ),
    "cut off": (record("cut.png"), "image cut.png of sample 21", "unreadable image", "training"),
    "cut off, written": (
        record("cut.png", "<image>", "Draw."),
        "image cut.png of sample 21",
        "unreadable image",
        "training",
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHIASM_CACHE", str(tmp_path / "cache"))
    for i, colour in enumerate(("red", "green", "blue", "white")):
        square(colour, "red" if i else "blue", i).image.save(f"{i}.png")
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(noise, "PNG")
    (tmp_path / "cut.png").write_bytes(noise.getvalue()[:2000])
    (tmp_path / "garbage.png").write_bytes(b"no image")
    return tmp_path


def write(*broken):
    """Good records, behind which the broken ones stand."""
    good = [
        record(f"{i % 4}.png", f"colour {i}") if i % 3 else record(f"{i % 4}.png", "<image>", f"Draw {i}.")
        for i in range(GOOD)
    ]
    with open("talk.jsonl", "w", encoding="ascii") as file:
        file.writelines(json.dumps(each) + "\n" for each in (*good, *broken))


def recipe(broken, *overrides, encoder=True):
    given = raw(data={"mine": {"type": "chat", "path": "talk.jsonl", "broken": broken}})
    for stage in given["stages"]:
        stage |= {"data": {"mine": 1.0}, "steps": 3}
    learn = given["stages"][1]
    learn["steps"] = 10
    learn |= {"length": 64, "rows": 2, "train": learn["train"] | ({"encoder": 1e-3} if encoder else {})}
    del learn["weight_decay"]
    return load_recipe(given, overrides)


def documents(built, source, steps=6, batches=None, stage=None, **where):
    stage = stage or recipe("skip").stages[1]
    batches = batches or DocumentBatches(built.contract, {"mine": source}, stage, seed=0, **where)
    return batches, [batches.next() for _ in range(steps)]


@pytest.mark.parametrize(
    ("case", "encoder"),
    [
        ("turns", True),
        ("no size", True),
        ("too long", False),
        ("cut off", True),
        ("cut off", False),
        ("cut off, written", True),
    ],
)
def test_whatever_is_wrong_with_a_record_it_is_named_or_skipped_and_counted(case, encoder, folder):
    broken, message, kind, found = BROKEN[case]
    write(broken)
    begun = []
    with pytest.raises(DataError, match=message) as error:
        train(recipe("error", encoder=encoder), "error", console=Console(file=io.StringIO()))
    assert "sample 21 of talk.jsonl" in str(error.value)
    if found != "training":
        begun = read_metrics(folder / "error")
    assert begun == []
    out = io.StringIO()
    train(recipe("skip", encoder=encoder), "run", console=Console(file=out, width=200))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("mine:")]
    assert lines[-1] == f"mine: {GOOD} groups, 1 records skipped (1 {kind})"
    assert lines[0] == (lines[-1] if found != "training" else f"mine: {GOOD + 1} groups, 0 records skipped")
    assert json.loads((folder / "run" / "run.json").read_text())["skipped"] == {"mine": {kind: 1}}
    counted = [line["records_skipped"] for line in read_metrics(folder / "run")]
    assert counted == sorted(counted)
    assert (counted[0], counted[-1]) == (0 if found == "training" else 1, 1) or found == "training"
    assert counted[-1] == 1


def everything():
    return [each for each, *_ in BROKEN.values()]


def test_nothing_that_is_broken_is_seen_and_all_else_is(folder):
    write(*everything())
    model = build_model(recipe("skip"))
    source = Chat(path="talk.jsonl", broken="skip")
    seen = [set() for _ in range(2)]
    for rank in range(2):
        batches = DocumentBatches(
            model.contract, {"mine": source}, recipe("skip").stages[1], seed=0, rank=rank, world=2
        )
        while batches.mixture.peek()[0].epoch == 0:
            batches.pack()
        seen[rank] = set(batches.mixture.left_out["mine"])
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == sum(found != "reading" for *_, found in BROKEN.values())


def test_a_resumed_stream_is_the_same_though_the_broken_are_not_known_yet(folder):
    write(*everything())
    model = build_model(recipe("skip"))
    source = Chat(path="talk.jsonl", broken="skip")
    _, whole = documents(model, source, 30)
    for cut in (1, 7, 15):
        first, _ = documents(model, source, cut)
        second = DocumentBatches(model.contract, {"mine": source}, recipe("skip").stages[1], seed=0)
        second.restore(json.loads(json.dumps(first.state())))
        _, rest = documents(model, source, 30 - cut, second)
        for one, other in zip(whole[cut:], rest, strict=True):
            assert (one.ids == other.ids).all()
            assert (one.kinds == Kind.READ).sum() == (other.kinds == Kind.READ).sum()
        assert second.state() == documents(model, source, 30)[0].state()


def test_what_is_known_to_be_broken_beforehand_makes_the_same_batches(folder):
    """A broken document that would not have fitted may not end a batch."""
    write(*everything())
    model = build_model(recipe("skip"))
    source = Chat(path="talk.jsonl", broken="skip")
    batches, found = documents(model, source, 30)
    knowing = DocumentBatches(model.contract, {"mine": source}, recipe("skip").stages[1], seed=0)
    knowing.mixture.leave_out(batches.mixture.left_out)
    for one, other in zip(found, documents(model, source, 30, knowing)[1], strict=True):
        assert (one.ids == other.ids).all()


@pytest.mark.parametrize("encoder", [True, False], ids=["encoder learns", "encoder frozen"])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(encoder, folder, monkeypatch):
    write(*everything())
    chosen = recipe("skip", "checkpoints.every=1", encoder=encoder)
    train(chosen, "whole", console=Console(file=io.StringIO()))
    whole_step = Training._step
    for stop in (2, 8):

        def step(self, *arguments, stop=stop):
            if self.position.total == stop:
                raise KeyboardInterrupt
            whole_step(self, *arguments)

        monkeypatch.setattr(Training, "_step", step)
        with pytest.raises(Exception, match="stopped"):
            train(chosen, "parts", console=Console(file=io.StringIO()))
        shutil.rmtree("cache", ignore_errors=True)
    monkeypatch.setattr(Training, "_step", whole_step)
    train(chosen, "parts", console=Console(file=io.StringIO()))
    final = [(folder / name / "final" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert final[0] == final[1]
    timeless = [
        [
            {k: v for k, v in line.items() if k not in ("seconds", "waited")}
            for line in read_metrics(folder / name)
        ]
        for name in ("whole", "parts")
    ]
    assert timeless[0] == timeless[1]
    records = [json.loads((folder / name / "run.json").read_text())["skipped"] for name in ("whole", "parts")]
    assert records[0] == records[1]


@pytest.mark.parametrize("broken", ["error", "skip"])
def test_records_without_an_image_are_no_error_of_an_image_tokenizer_but_said(folder, broken):
    write(record(None, "red", "What colour is blood?"), record(None, "blue", "And the sky?"))
    plan = recipe(broken, "stages.codes.steps=1", "stages.learn.steps=1")
    said = io.StringIO()
    train(plan, folder / "run", console=Console(file=said, width=200))
    assert f"stage codes: 2 of the {GOOD + 2} groups of mine have no image" in said.getvalue()
    assert "stage learn: 2 of" not in said.getvalue()
    if broken == "skip":
        assert f"mine: {GOOD + 2} groups, 0 records skipped" in said.getvalue()


def test_data_without_a_single_usable_record_is_an_error(folder):
    with open("talk.jsonl", "w", encoding="ascii") as file:
        file.write(json.dumps(record("cut.png")) + "\n")
    with pytest.raises(DataError, match=r"nothing to train on in them; the last: image cut\.png"):
        train(recipe("skip"), "run", console=Console(file=io.StringIO()))


def test_a_row_of_one_stage_may_be_too_short_for_what_another_can_hold(folder):
    write(record("0.png", "word " * 60))
    chosen = recipe("skip", "stages.learn.length=250")
    model, sources = build_model(chosen), {"mine": Chat(path="talk.jsonl", broken="skip")}
    assert unusable(chosen, model, sources, Ranks()) == {"codes": {}, "learn": {}}
    chosen = recipe("skip")
    assert unusable(chosen, model, sources, Ranks()) == {"codes": {}, "learn": {"mine": {"20:0": "too long"}}}


def test_check_all_decodes_every_image_before_training(folder, capsys):
    write(record("cut.png"))
    with pytest.raises(DataError, match=r"image cut\.png of sample 21 of talk\.jsonl is corrupt"):
        check(recipe("error"), 1, every=True)
    check(recipe("skip"), 1, every=True)
    said = capsys.readouterr().out
    counted = (
        "mine: every record verified, every image decoded: 20 groups, 1 records skipped (1 unreadable image)"
    )
    assert counted in said
    assert said.count("skipped (") == 1  # one count, not one of records and another of images


def test_check_says_which_records_training_skips(folder, capsys):
    write(BROKEN["longer than the context"][0], BROKEN["no size"][0])
    check(recipe("skip"), 100)
    printed = capsys.readouterr().out
    assert printed.count("skipped: ") == 2
    assert "but the context is 256" in printed
    with pytest.raises(DataError, match="but the context is 256"):
        check(recipe("error"), 100)
