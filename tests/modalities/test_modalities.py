"""Signals of a modality beside text and images: read, written, packed, trained, saved and asked for."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import chiasm
from chiasm.conversation import Turn, as_messages
from chiasm.data import Message, Sample, Source
from chiasm.data.chat import Chat
from chiasm.data.denoising import DenoisingSource
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.data.records import RecordReader
from chiasm.data.references import References
from chiasm.errors import ChiasmError, DataError, RecipeError
from chiasm.inference.engine import Engine
from chiasm.inference.prefixes import DocumentContent
from chiasm.inference.signals import Synthesis
from chiasm.model import Model
from chiasm.nn.losses import objective
from chiasm.recipe import load_recipe
from chiasm.sequence import Kind, pack
from chiasm.training.aims import DocumentsAim
from chiasm.training.batches import describe
from levels import POSITIONS, Level, levels_model

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture
def model(tiny):
    return levels_model(tiny)


def sample(*turns, name="a sample"):
    roles = ("user", "assistant") * len(turns)
    messages = tuple(Message(role, content) for role, content in zip(roles, turns))
    return Sample(name, messages)


HEARD = sample((Level(0.5, 1.0), "how loud is it ?"), ("a",))
SAID = sample(("how loud is it ?",), (Level(0.25, 0.5),))
BOTH = sample((Level(0.5, 1.0), "how loud is it ?"), ("a", Level(2.0, 3.0)), ("b",), (Level(4.0, 5.0),))


def batch_of(model, *samples, packed=True):
    documents = [document(model.contract, each) for each in samples]
    batch, slots = pack([documents] if packed else [[each] for each in documents])
    return PictureReader(model.contract).attach(batch, slots)


def test_a_signal_takes_its_positions_where_it_stands_in_the_message(model):
    heard, said = (document(model.contract, each) for each in (HEARD, SAID))
    for each, kind in ((heard, Kind.READ), (said, Kind.WRITTEN)):
        (slot,) = each.signals
        assert each.kinds[slot.start : slot.start + POSITIONS] == [kind] * POSITIONS
        assert each.kinds.count(kind) == POSITIONS
    assert heard.signals[0].start < said.signals[0].start
    assert pickle.loads(pickle.dumps(model.contract)).signals == model.contract.signals


def test_what_is_read_is_embedded_and_what_is_written_is_not_given_away(model):
    others = sample((Level(0.5, 1.0), "how loud is it ?"), ("a", Level(7.0, 8.0)), ("b",), (Level(9.0, 9.0),))
    louder = sample((Level(5.0, 1.0), "how loud is it ?"), ("a", Level(2.0, 3.0)), ("b",), (Level(4.0, 5.0),))
    own, other, loud = (model.embed(batch_of(model, each)).embeddings for each in (BOTH, others, louder))
    assert torch.equal(own, other)
    start = document(model.contract, BOTH).signals[0].start
    differ = (own != loud).any(-1)[0].nonzero()[:, 0].tolist()
    assert differ == list(range(start, start + POSITIONS))


def test_packed_losses_are_those_of_each_alone_one_term_a_signal(model):
    samples = (HEARD, SAID, BOTH)
    packed = model.losses(batch_of(model, *samples))
    alone = [model.losses(batch_of(model, each)) for each in samples]
    assert float(packed["levels"].count) == 3
    for name in ("text", "levels"):
        total = sum(losses[name].sum for losses in alone if name in losses)
        torch.testing.assert_close(packed[name].sum, total, rtol=1e-5, atol=1e-5)
    assert "levels" not in alone[0]
    promised = DocumentsAim(model).counts(batch_of(model, *samples))
    assert promised == {name: float(loss.count) for name, loss in packed.items()}
    assert packed.keys() <= DocumentsAim(model).names


def test_reading_and_writing_teach_all_of_it(model):
    model.train_only(["modalities.levels"])
    objective(model.losses(batch_of(model, BOTH))).backward()
    for name, parameter in model.named_parameters():
        learns = name.startswith("modalities.levels.")
        assert (parameter.grad is not None and bool(parameter.grad.any())) == learns, name


def test_an_answer_is_of_its_conversation_and_its_seed_alone(model):
    turns = [{"role": "user", "content": [Level(0.5, 1.0), "how loud is it ?"]}]
    answer = model.synthesise("levels", turns)
    assert answer.shape == (2,)
    assert not np.allclose(answer, model.synthesise("levels", "how loud is it ?"))
    embedded = model.embed(batch_of(model, sample((Level(0.5, 1.0), "how loud is it ?"), (Level(0.0, 0.0),))))
    hidden = model.language(embedded.embeddings, embedded.layout)
    place = (
        document(model.contract, sample((Level(0.5, 1.0), "how loud is it ?"), (Level(0.0, 0.0),)))
        .signals[1]
        .start
    )
    expected = model.modalities.levels.outwards(hidden[0, place : place + POSITIONS]).mean(0)
    np.testing.assert_allclose(answer, expected.detach(), rtol=1e-4, atol=1e-5)
    model.modalities.levels.noise = 1.0
    one, again, other = (model.synthesise("levels", turns, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


def test_an_answer_in_words_depends_on_the_signal_that_is_heard(model):
    heard = [
        document(model.contract, sample((Level(x, 1.0), "how loud is it ?")), prompt=True) for x in (0.5, 5.0)
    ]
    one, other = (DocumentContent.of(each) for each in heard)
    assert one.shared(other) <= heard[0].signals[0].start, "the engine does not take one signal for another"
    model.chat([{"role": "user", "content": [Level(0.5, 1.0), "how loud is it ?"]}], tokens=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_signals_are_read_and_written_in_other_numbers_too(model, dtype):
    turns = [{"role": "user", "content": [Level(0.5, 1.0), "how loud is it ?"]}]
    answer = model.synthesise("levels", turns)
    model.to(dtype)
    other = model.synthesise("levels", turns)
    assert other.dtype == np.float32
    np.testing.assert_allclose(other, answer, atol=1e-5 if dtype == torch.float64 else 0.05)


def test_signals_share_passes_with_other_answers(model):
    """As each alone; and one whose passes were interrupted is made again."""
    engine = Engine(model)
    samples = [sample((Level(x, 1.0), "how loud is it ?")) for x in (0.5, 2.0)]
    turn = Turn(model, "a b", tokens=3, engine=engine)
    handles = [engine.submit(Synthesis(model, "levels", each, 1)) for each in samples]
    engine.run()
    assert "".join(turn) == "".join(Turn(model, "a b", tokens=3))
    for each, handle in zip(samples, handles, strict=True):
        alone = model.synthesise("levels", each.messages, seed=1)
        np.testing.assert_allclose(handle.result(), alone, rtol=1e-4, atol=1e-5)


def test_a_signal_for_which_there_is_no_room_is_refused(model):
    most = model.contract.context
    words = "a " * most
    with pytest.raises(DataError):
        model.synthesise("levels", words)
    letters = next(
        n
        for n in range(1, most)
        if len(document(model.contract, asked("a" * n), prompt=True)) > most - POSITIONS
    )
    with pytest.raises(DataError, match=rf"and a levels take \S+ positions, but the context has {most}"):
        model.synthesise("levels", "a" * letters)


def asked(words):
    return sample((words,))


def test_signals_come_from_files_in_arrays_and_in_bytes(model, tmp_path):
    numbers = np.array([0.5, 1.0])
    np.save(tmp_path / "loud.npy", numbers)
    expected = model.synthesise(
        "levels", [{"role": "user", "content": [Level(*numbers), "how loud is it ?"]}]
    )
    for value in (
        str(tmp_path / "loud.npy"),
        tmp_path / "loud.npy",
        numbers,
        (tmp_path / "loud.npy").read_bytes(),
    ):
        turn = {"role": "user", "content": [{"signal": value, "modality": "levels"}, "how loud is it ?"]}
        assert np.array_equal(model.synthesise("levels", [turn]), expected)
    records = RecordReader(References(tmp_path, inside=True))
    turn = {"role": "user", "content": [{"type": "signal", "signal": "loud.npy", "modality": "levels"}]}
    (message,) = records.messages({"messages": [turn]}, "record 1")
    assert np.array_equal(message.content[0].open(), numbers)


def test_files_of_records_name_signals_and_a_run_knows_which(model, tmp_path):
    turns = [
        {"role": "user", "content": [{"signal": "loud.npy", "modality": "levels"}, "how loud is it ?"]},
        {"role": "assistant", "content": [{"type": "signal", "signal": "loud.npy", "modality": "levels"}]},
    ]
    (tmp_path / "records.jsonl").write_text(json.dumps({"messages": turns}))
    np.save(tmp_path / "loud.npy", np.array([0.5, 1.0]))
    source = Chat(path=str(tmp_path / "records.jsonl"))
    assert set(source.image_files()) == {tmp_path / "loud.npy"}
    (read,) = source[0]
    assert [each.kind for each in document(model.contract, read).signals] == [Kind.READ, Kind.WRITTEN]
    losses = model.losses(batch_of(model, read))
    same = model.losses(batch_of(model, sample((Level(0.5, 1.0), "how loud is it ?"), (Level(0.5, 1.0),))))
    assert torch.equal(losses["levels"].sum, same["levels"].sum)
    (tmp_path / "loud.npy").write_bytes(b"words")
    with pytest.raises(DataError, match=r"levels loud\.npy of sample 1 .* is not a file of numbers"):
        batch_of(model, source[0][0])


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (
            {"signal": "none.npy", "modality": "levels"},
            r"there is no signal at .*none\.npy \(levels none\.npy of record 1",
        ),
        ({"signal": "../loud.npy", "modality": "levels"}, "lies outside the folder"),
        ({"signal": "words.npy", "modality": "levels"}, r"is not a file of numbers as numpy\.save writes it"),
        ({"signal": "loud.npy"}, "has a signal of the modality None; it must be a name"),
        ({"modality": "levels"}, "names the signal None; it must be the path of a file of numbers"),
        ({"signal": [1, 2], "modality": "levels"}, r"names the signal \[1, 2\]"),
        ({"signal": "loud.npy", "modality": "levels", "text": "a"}, "has the unknown key 'text'"),
        (
            {"signal": "loud.npy", "modality": "levels", "type": "image"},
            "of the type 'image'; it must be signal",
        ),
        (
            {"signal": np.array([True, False]), "modality": "levels"},
            "has a signal of bool; .* truth values as 0 and 1",
        ),
    ],
)
def test_what_names_no_signal_is_a_sentence(tmp_path, item, sentence):
    folder = tmp_path / "records"
    folder.mkdir()
    np.save(tmp_path / "loud.npy", np.zeros(2))
    np.save(folder / "loud.npy", np.zeros(2))
    (folder / "words.npy").write_text("words")

    def opened():
        record = {"messages": [{"role": "user", "content": [item]}]}
        (message,) = RecordReader(References(folder, inside=True)).messages(record, "record 1")
        return message.content[0].open()

    with pytest.raises(DataError, match=sentence):
        opened()


def test_a_run_trains_it_saves_it_and_loads_it_bit_for_bit(model, tiny, tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text(
        json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    )
    tiny["data"] = {"world": {"type": "chat", "path": str(records)}}
    tiny["stages"] = [
        tiny["stages"][1] | {"train": {"language": 1e-3, "modalities": {"levels": 1e-3}}, "steps": 1}
    ]
    tiny["evaluation"] = {}
    folder = chiasm.train(tiny, tmp_path / "run")
    loaded, again = chiasm.load(folder), chiasm.load(folder)
    assert loaded.spec["modalities.levels"] == {"type": "levels", "noise": 0.0}
    assert np.array_equal(loaded.synthesise("levels", "a"), again.synthesise("levels", "a"))
    assert any(name.startswith("modalities.levels.") for name in loaded.state_dict())


def test_what_does_not_fit_is_a_sentence(model):
    class Sound(Level):
        modality = "sound"

    with pytest.raises(
        DataError, match=r"a sample has a signal of the modality 'sound', but this model's are: levels"
    ):
        document(model.contract, sample((Sound(1.0, 1.0), "a"), ("b",)))
    with pytest.raises(DataError, match=r"'levels', but this model's are: none"):
        document(replace(model.contract, signals={}), HEARD)
    with pytest.raises(
        DataError, match=r"levels levels \(1.0,\) has shape \(1,\), but this model's has \(2,\)"
    ):
        batch_of(model, sample((Level(1.0), "a"), ("b",)))
    with pytest.raises(DataError, match="not finite"):
        batch_of(model, sample((Level(1.0, float("nan")), "a"), ("b",)))
    with pytest.raises(ChiasmError, match=r"this model has no modality 'sound'; it has: levels"):
        model.synthesise("sound", "a")
    answered = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(
        DataError, match="the conversation ends with an answer; it must end with what a levels shall"
    ):
        model.synthesise("levels", answered)


@pytest.mark.parametrize(
    ("numbers", "wrong"),
    [
        (["a", "b"], "an array of <U1; it must be of real numbers"),
        ([{}, None], "an array of object; it must be of real numbers"),
        (np.array([1j, 2.0]), "an array of complex128; it must be of real numbers"),
        (np.array([True, False]), "an array of bool; it must be of real numbers .* truth values as 0 and 1"),
        ([[1.0], [1.0, 2.0]], "no array of numbers: "),
        (np.array([1e300, 1.0]), "numbers that are not finite"),
    ],
)
def test_an_array_of_anything_else_is_a_sentence(model, numbers, wrong):
    class Odd(Level):
        def open(self):
            return numbers

    with pytest.raises(DataError, match=f"levels levels .* (is|has) {wrong}"):
        batch_of(model, sample((Odd(1.0, 1.0), "a"), ("b",)))


@pytest.mark.parametrize("dtype", ["uint16", "int64", "float16", ">f4"])
def test_numbers_of_any_real_type_are_read(model, dtype):
    class Typed(Level):
        def open(self):
            return np.array([0, 1], dtype=dtype)

    batch = batch_of(model, sample((Typed(1.0, 1.0), "a"), ("b",)))
    assert batch.signals["levels"].values.tolist() == [[0.0, 1.0]]


def test_a_signal_that_is_checked_before_its_batch_is_made_is_opened_once(model):
    class Counted(Level):
        opened = 0

        def open(self):
            self.opened += 1
            return super().open()

    signal = Counted(0.5, 1.0)
    reader = PictureReader(model.contract)
    read = reader.decoded(document(model.contract, sample((signal, "how loud is it ?"), ("a",))))
    batch = reader.attach(*pack([[read]]))
    assert signal.opened == 1
    assert batch.signals["levels"].values.tolist() == [[0.5, 1.0]]


def test_a_modality_with_the_name_of_another_loss_is_refused_where_training_begins(model, tiny):
    tiny["model"]["modalities"] = {"balance": {"type": "levels"}}
    tiny["model"]["routing"] = {"type": "moe", "experts": 2}
    with pytest.raises(RecipeError, match=r"model\.modalities names 'balance', which is the name of a loss"):
        DocumentsAim(Model(load_recipe(tiny).model, texts=["a b"] * 9))


@pytest.mark.parametrize("name", ["image", "text", "a b", "keys", "training", "_modules"])
def test_a_modality_cannot_have_the_name_of_something_else(model, tiny, name):
    tiny["model"]["modalities"] = {name: {"type": "levels"}}
    with pytest.raises(RecipeError, match=rf"model\.modalities names '{name}'"):
        load_recipe(tiny)


def test_what_knows_no_signals_refuses_them_by_name():
    class One(Source):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return [HEARD]

        fingerprint = "one"

    with pytest.raises(
        DataError, match=r"an objective learns from .* this one has a signal of another modality"
    ):
        describe(HEARD)
    with pytest.raises(DataError, match="has a signal, of which 'denoising' knows no damage"):
        DenoisingSource(of=One())[0]
    turns = [
        {"role": "user", "content": "how loud?"},
        {"role": "assistant", "content": [Level(1.0, 2.0)], "loss": 0},
    ]
    with pytest.raises(DataError, match="writes a signal, which cannot be left out of what is learnt"):
        as_messages(turns)
