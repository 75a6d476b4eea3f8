"""Pictures from strangers."""

import struct
import zlib

import pytest
from PIL import Image

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
    with pytest.raises(DataError, match=r"text\.png is not a picture in a known format"):
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
