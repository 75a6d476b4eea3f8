"""Signals in .npy files: what is read is what was written, and a stranger's bytes are numbers or a sentence."""

import io
import pickle

import numpy as np
import pytest

from chiasm.data import signal_files
from chiasm.data.signal_files import SignalFile, file_of_signal, signal_of_bytes
from chiasm.errors import DataError


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int16", "uint8", ">f4"])
def test_numbers_of_any_kind_and_order_are_read(kind):
    numbers = np.arange(6).reshape(2, 3).astype(kind)
    for array in (numbers, np.asfortranarray(numbers)):
        signal = signal_of_bytes("sound", saved(array), "a sound")
        assert signal.open().dtype == np.float32
        assert np.array_equal(signal.open(), numbers.astype(np.float32))


def test_what_was_written_is_read_bit_for_bit_and_has_one_key():
    numbers = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    one, same, other = (
        signal_of_bytes("sound", file_of_signal(each), "a sound") for each in (numbers, numbers, numbers + 1)
    )
    assert np.array_equal(one.open(), numbers)
    assert one.key == same.key != other.key


class Trap:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


HUGE = saved(np.zeros(4, np.float32)).replace(b"(4,), }" + b" " * 12, b"(4000000000000,), }")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", r"a sound is not a file of numbers as numpy\.save writes it \(\.npy\)"),
        (b"words", "is not a file of numbers"),
        (saved(np.zeros(4))[:7], "is not a file of numbers"),
        (b"\x93NUMPY\x09\x00" + saved(np.zeros(4))[8:], "is not a file of numbers"),
        (saved(np.array([Trap()], object), allow_pickle=True), "holds object"),
        (pickle.dumps(Trap()), "is not a file of numbers"),
        (saved(np.array(["a"])), "holds str32; a signal is of real numbers"),
        (saved(np.array([True])), "holds bool; .* truth values as 0 and 1"),
        (saved(np.array([1j])), "holds complex128"),
        (saved(np.array([(1, 2)], [("a", int), ("b", int)])), "holds void128"),
        (saved(np.zeros((0, 3))), r"has the shape \(0, 3\): it is empty"),
        (saved(np.zeros(4))[:-1], "is cut off, or has more than its header says"),
        (saved(np.zeros(4)) + b"x", "is cut off, or has more"),
        (HUGE, "is cut off, or has more"),
        (saved(np.zeros(4)).replace(b"(4,)", b"(-4)"), "is not a file of numbers"),
        (saved(np.zeros(4)).replace(b"{", b"["), "is not a file of numbers"),
    ],
    ids=range(16),
)
def test_what_is_no_signal_is_a_sentence(data, sentence):
    with pytest.raises(DataError, match=sentence):
        signal_of_bytes("sound", data, "a sound")


@pytest.mark.parametrize("first", ["key", "open"])
def test_a_key_and_the_numbers_take_one_reading_of_a_file(tmp_path, monkeypatch, first):
    path = tmp_path / "loud.npy"
    path.write_bytes(saved(np.array([0.5, 1.0])))
    signal, readings = SignalFile("sound", path, "a sound"), []

    def read(*arguments):
        readings.append(arguments)
        return signal_of_bytes(*arguments)

    monkeypatch.setattr(signal_files, "signal_of_bytes", read)
    if first == "key":
        assert signal.key
    assert signal.open().tolist() == [0.5, 1.0]
    assert signal.key == signal_of_bytes("sound", path.read_bytes(), "it").key
    assert len(readings) == 1


def test_a_file_above_the_limit_is_named_with_its_size(tmp_path, monkeypatch):
    (tmp_path / "long.npy").write_bytes(saved(np.zeros(200)))
    monkeypatch.setattr(signal_files, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="a sound has 1,728 bytes, more than 1,000"):
        SignalFile("sound", tmp_path / "long.npy", "a sound").open()
