"""Pictures from strangers."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chiasm.data import files
from chiasm.data.files import PictureFile, PictureInMemory
from chiasm.errors import DataError


def test_size_comes_from_the_header_and_turns_with_the_camera(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    Image.new("RGB", (8, 6), "red").save(path, exif=exif)
    assert PictureFile(path).size == (8, 6)
    assert PictureFile(path).open().size == (6, 8)  # PIL says width first


def test_transparency_becomes_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert PictureFile(tmp_path / "a.png").open().getpixel((0, 0)) == (255, 255, 255)


def test_the_key_is_of_the_content(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    Image.new("RGB", (2, 2), "red").save(tmp_path / "c.png")
    a, b, c = (PictureFile(tmp_path / name).key for name in ("a.png", "b.png", "c.png"))
    assert a == b != c


def test_missing_corrupt_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match="there is no picture at"):
        PictureFile(tmp_path / "none.png").open()
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cut\.png is corrupt"):
        PictureFile(tmp_path / "cut.png").open()
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png is not an image in a known format"):
        PictureFile(tmp_path / "text.png").open()


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_picture_bomb_is_refused_from_its_header(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(
        data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )
    with pytest.raises(DataError, match=r"bomb\.png (is larger|has 12000 x 12000)"):
        _ = PictureFile(tmp_path / "bomb.png").size


def test_pictures_in_memory_are_rgb():
    assert PictureInMemory(Image.new("L", (3, 2))).open().mode == "RGB"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "gif", "bmp", "ppm", "jp2"])
def test_the_size_of_a_file_takes_its_header_alone(tmp_path, monkeypatch, suffix):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (800, 1000, 3), np.uint8)).save(
        tmp_path / f"a.{suffix}"
    )
    reads = []

    class Tallied(io.FileIO):
        def readinto(self, buffer):
            reads.append(super().readinto(buffer))
            return reads[-1]

    monkeypatch.setattr(files.os, "fdopen", lambda file, _: io.BufferedReader(Tallied(file)))
    assert PictureFile(tmp_path / f"a.{suffix}").size == (800, 1000)
    assert 0 < sum(reads) < (tmp_path / f"a.{suffix}").stat().st_size / 5


def test_pixels_of_another_size_than_was_measured_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 3)).save(path)
    picture, fresh = PictureFile(path), PictureFile(path)
    assert picture.size == (3, 4)
    Image.new("RGB", (5, 3)).save(path)
    with pytest.raises(DataError, match="its header says 4 x 3 pixels, but it has 5 x 3"):
        picture.open()
    assert fresh.open().size == (5, 3)  # and its size, asked for later, is of the bytes that were decoded
    Image.new("RGB", (6, 3)).save(path)
    assert fresh.size == (3, 5)


@pytest.mark.parametrize("suffix", ["png", "webp", "avif"])
def test_a_file_is_read_once_for_size_key_and_pixels(suffix, tmp_path, monkeypatch):
    Image.effect_noise((64, 48), 50).save(tmp_path / f"a.{suffix}")
    reads = []

    class Counted(files._Recent):
        def _keep(self, path, version, data):
            reads.append(path)
            super()._keep(path, version, data)

    monkeypatch.setattr(files, "_RECENT", Counted(1 << 20))
    for _ in range(3):
        picture = PictureFile(tmp_path / f"a.{suffix}")
        assert (picture.size, len(picture.key), picture.open().size) == ((48, 64), 32, (64, 48))
    assert len(reads) == 1


def test_a_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "a.png"
    for colour in ("red", "blue"):
        Image.new("RGB", (2, 2), colour).save(path)
        os.utime(path, ns=(0, ["red", "blue"].index(colour)))
        assert PictureFile(path).open().getpixel((0, 0)) == ((255, 0, 0) if colour == "red" else (0, 0, 255))


def test_the_memory_of_files_is_bounded(tmp_path):
    recent = files._Recent(100)
    for i in range(5):
        (tmp_path / str(i)).write_bytes(bytes(40))
        recent.read(tmp_path / str(i), "it")
    assert (len(recent._files), recent._held) == (2, 80)
    (tmp_path / "large").write_bytes(bytes(200))
    assert len(recent.read(tmp_path / "large", "it")) == 200
    assert recent._held == 0


@pytest.mark.timeout(120)  # a pipe without a writer would wait for ever
def test_what_is_no_file_is_a_sentence_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "pipe.png", tmp_path / "folder.png", "/dev/zero", "/dev/tty"):
        for ask in (lambda p: p.size, lambda p: p.key, lambda p: p.open()):
            with pytest.raises(DataError, match=r"is not a file|cannot be read"):
                ask(PictureFile(path))


@pytest.mark.parametrize(
    "path", ["a\0b.png", "\udc80.png", "x" * 300 + ".png", "a/" * 5000 + "b.png", "[/bold].png"]
)
def test_paths_that_no_file_can_have_are_sentences_that_can_be_printed(path):
    with pytest.raises(DataError) as error:
        PictureFile(path).open()
    assert len(str(error.value).encode()) < 300
    assert str(error.value).isprintable()


@pytest.mark.skipif(
    not Path("/proc/self/mem").exists(), reason="a regular file that cannot be read, on Linux"
)
@pytest.mark.parametrize("use", ["size", "key"])
def test_a_file_that_opens_and_cannot_be_read_is_a_sentence(use):
    with pytest.raises(DataError, match="image /proc/self/mem cannot be read: Input/output error"):
        getattr(PictureFile("/proc/self/mem"), use)
