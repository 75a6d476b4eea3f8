"""Every mode and format of image, by every way in, gives the pixels that a viewer would show."""

import base64
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from chiasm.data.files import PictureBytes, PictureFile, PictureInMemory, picture_of_base64
from chiasm.data.images import opacity, to_rgb
from chiasm.errors import DataError

HEIGHT, WIDTH = 6, 8
RAMP = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) * 5  # 48 levels of grey
COLOURS = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 90)], -1)
HOLE = np.zeros((HEIGHT, WIDTH), bool)
HOLE[:2, :3] = True  # what is transparent
WAYS = ("path", "bytes", "base64", "data URL", "object", "loaded object")


def grey(values=RAMP):
    return np.stack([values] * 3, -1)


def on_white(pixels):
    return np.where(HOLE[..., None], 255, pixels)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(depth, colour, rows, *chunks):
    """A PNG of raw rows; chunks: (name, data) before the pixels, or behind them where the name begins with '>'."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, 0))]
    parts += [(name, data) for name, data in chunks if not name.startswith(b">")]
    parts.append((b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))))
    parts += [(name[1:], data) for name, data in chunks if name.startswith(b">")]
    parts.append((b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def sixteen(values=RAMP, low=0x37):
    """Values of 16 bits whose high bytes are those of 8; the low ones must not matter."""
    return (values.astype(np.uint16) << 8) | low


def rgba():
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([COLOURS, alpha]))


def palette():
    image = Image.fromarray((RAMP // 5).astype(np.uint8), "P")
    image.putpalette(b"".join(bytes(colour) for colour in COLOURS.reshape(-1, 3)))
    return image


LA = Image.merge("LA", [Image.fromarray(RAMP), rgba().getchannel("A")])
CASES = {
    "L": (encoded(Image.fromarray(RAMP)), grey()),
    "1": (encoded(Image.fromarray(RAMP > 100)), grey(np.where(RAMP > 100, 255, 0))),
    "RGB": (encoded(Image.fromarray(COLOURS)), COLOURS),
    "P": (encoded(palette()), COLOURS),
    "I;16 PNG": (encoded(Image.fromarray(sixteen())), grey()),
    "I;16 TIFF": (encoded(Image.fromarray(sixteen()), "TIFF"), grey()),
    "I;16B TIFF": (encoded(Image.fromarray(sixteen().astype(">u2")), "TIFF"), grey()),
    "I TIFF": (encoded(Image.fromarray(sixteen().astype(np.int32)), "TIFF"), grey()),
    "F TIFF": (encoded(Image.fromarray((RAMP / 255).astype(np.float32)), "TIFF"), grey()),
    "F TIFF of 16 bits": (encoded(Image.fromarray((sixteen() / 65535).astype(np.float32)), "TIFF"), grey()),
    "RGB of 16 bits": (
        png(16, 2, [row.astype(">u2").tobytes() for row in (COLOURS.astype(int) << 8) | 0x37]),
        COLOURS,
    ),
    "RGBA": (encoded(rgba()), on_white(COLOURS)),
    "RGBA WebP": (encoded(rgba(), "WEBP", lossless=True), on_white(COLOURS)),
    "LA": (encoded(LA), on_white(grey())),
    "P with one transparent colour": (
        encoded(palette(), transparency=0),
        np.where((RAMP == 0)[..., None], 255, COLOURS),
    ),
    "P with alpha": (
        encoded(palette(), transparency=bytes([0, 128])),
        np.where((RAMP == 0)[..., None], 255, np.where((RAMP == 5)[..., None], [130, 230, 172], COLOURS)),
    ),
    "L with a transparent level": (
        encoded(Image.fromarray(RAMP), transparency=25),
        grey(np.where(RAMP == 25, 255, RAMP)),
    ),
    "RGB with a transparent colour": (
        encoded(Image.fromarray(COLOURS), transparency=tuple(map(int, COLOURS[1, 2]))),
        np.where((COLOURS[1, 2] == COLOURS).all(-1, keepdims=True), 255, COLOURS),
    ),
    "I;16 with a transparent level": (
        encoded(Image.fromarray(sixteen()), transparency=int(sixteen()[1, 2])),
        grey(np.where(RAMP[1, 2] == RAMP, 255, RAMP)),
    ),
    "L of 4 bits with a transparent level": (
        png(4, 0, [bytes([0x01, 0x23, 0x45, 0x67])] * HEIGHT, (b"tRNS", b"\0\5")),
        grey(np.array([[0, 17, 34, 51, 68, 255, 102, 119]] * HEIGHT)),
    ),
    "1 with a transparent level": (
        png(1, 0, [b"\x0f"] * HEIGHT, (b"tRNS", b"\0\0")),
        grey(np.full((HEIGHT, WIDTH), 255)),
    ),
    "GIF": (encoded(palette(), "GIF"), COLOURS),
    "GIF, the first of two frames": (
        encoded(palette(), "GIF", save_all=True, append_images=[Image.new("P", (WIDTH, HEIGHT))]),
        COLOURS,
    ),
    "BMP": (encoded(Image.fromarray(COLOURS), "BMP"), COLOURS),
    "PPM": (encoded(Image.fromarray(COLOURS), "PPM"), COLOURS),
    "JPEG 2000": (encoded(Image.fromarray(COLOURS), "JPEG2000", irreversible=False), COLOURS),
}  # fmt: skip


def cmyk():
    """Cyan, magenta and yellow are what red, green and blue lack; no black."""
    return Image.fromarray(np.dstack([255 - COLOURS, np.zeros_like(RAMP)]), "CMYK")


CASES["CMYK TIFF"] = (encoded(cmyk(), "TIFF"), COLOURS)


def by(way, data, folder):
    if way == "path":
        (folder / "image").write_bytes(data)
        return PictureFile(folder / "image")
    if way == "bytes":
        return PictureBytes(data)
    if way == "base64":
        return picture_of_base64(base64.b64encode(data).decode(), "it")
    if way == "data URL":
        return picture_of_base64("data:image/png;base64," + base64.b64encode(data).decode(), "it")
    image = Image.open(io.BytesIO(data))
    if way == "loaded object":
        image.load()
    return PictureInMemory(image)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_an_image_has_the_same_pixels_by_every_way_in(case, way, tmp_path):
    if (case, way) == ("L of 4 bits with a transparent level", "loaded object"):
        pytest.skip("Pillow has forgotten the depth by then")
    data, expected = CASES[case]
    picture = by(way, data, tmp_path)
    assert picture.size == (HEIGHT, WIDTH)
    image = picture.open()
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("mode", ["LAB", "HSV", "YCbCr", "CMYK", "La", "RGBa", "PA", "RGBX"])
def test_other_modes_of_objects_keep_their_colours(mode):
    """Green stays green, as near as the mode can say."""
    green = Image.new("RGBA", (4, 4), (0, 128, 0, 255))
    if mode == "LAB":
        image = Image.new("LAB", (4, 4), (118, 128 - 50, 128 + 50))
    elif mode in ("La", "PA"):
        image = Image.new("LA", (4, 4), (75, 255)).convert(mode)
    elif mode == "RGBa":
        image = green.convert(mode)
    else:
        image = green.convert("RGB").convert(mode)
    expected = (75, 75, 75) if mode in ("La", "PA") else (0, 128, 0)
    colour = np.asarray(PictureInMemory(image).open())[0, 0]
    assert np.abs(colour.astype(int) - expected).max() <= (12 if mode == "LAB" else 2)


def test_cmyk_jpegs_as_adobe_writes_them_inverted(tmp_path):
    data = encoded(cmyk(), "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data
    for way in WAYS:
        pixels = np.asarray(by(way, data, tmp_path).open())
        assert np.abs(pixels.astype(int) - COLOURS).max() < 12


def oriented(format, orientation):
    """An image that its camera held so, and the upright one."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100},
    }
    stored = Image.fromarray(COLOURS)
    return encoded(stored, format, exif=exif, **options.get(format, {}))


# EXIF 2.32, 4.6.4: where the stored first row and first column lie in the upright image.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
    0: lambda stored: stored,
    99: lambda stored: stored,
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "TIFF by libtiff", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_upright_by_every_way_in(format, orientation, tmp_path):
    name, *compressed = format.split(" by ")
    if orientation in (0, 99) and (name == "AVIF" or compressed):
        pytest.skip("no library writes such a file")
    if compressed:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(COLOURS), name, exif=exif, compression="tiff_lzw")
    else:
        data = oriented(name, orientation)
    expected = UPRIGHT[orientation](COLOURS).astype(int)
    for way in WAYS:
        picture = by(way, data, tmp_path)
        assert picture.size == expected.shape[:2], way
        assert np.abs(np.asarray(picture.open()).astype(int) - expected).max() < 40, way


@pytest.mark.parametrize("place", [b"", b">"])
@pytest.mark.parametrize("chunk", ["eXIf", "XMP"])
def test_orientation_in_a_png_before_and_behind_the_pixels(place, chunk, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    name, content = (b"eXIf", exif.tobytes()[6:]) if chunk == "eXIf" else (b"iTXt", xmp)
    data = png(8, 2, [row.tobytes() for row in COLOURS], (place + name, content))
    for way in WAYS:
        picture = by(way, data, tmp_path)
        assert picture.size == (WIDTH, HEIGHT)
        assert np.array_equal(np.asarray(picture.open()), UPRIGHT[6](COLOURS))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            Image.fromarray(np.full((4, 4), 70_000, np.int32)),
            "32-bit values from 70000 to 70000, whose range",
        ),
        (Image.fromarray(np.full((4, 4), 200, np.int32)), "32-bit values from 200 to 200, whose range"),
        (Image.fromarray(np.full((4, 4), -1, np.int32)), "32-bit values from -1 to -1, whose range"),
        (
            Image.fromarray(np.full((4, 4), 7.5, np.float32)),
            r"float values from 7.5 to 7.5; they must lie in",
        ),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "float values from nan"),
    ],
)
def test_an_image_of_unknown_range_is_refused(image, message):
    with pytest.raises(DataError, match=message):
        PictureInMemory(image)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(DataError, match="0 x 5 pixels"):
        PictureInMemory(Image.new("RGB", (0, 5)))


def with_exif(format, exif):
    image, file = Image.fromarray(COLOURS), io.BytesIO()
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    image.save(file, format=format, exif=exif, **options.get(format, {}))
    return file.getvalue()


@pytest.mark.parametrize(
    "exif", [b"garbage", b"Exif\0\0garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff"]
)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_an_image_whose_metadata_is_damaged_is_upright(format, exif, tmp_path):
    data = with_exif(format, exif)
    for way in WAYS:
        picture = by(way, data, tmp_path)
        assert picture.size == (HEIGHT, WIDTH)
        assert np.abs(np.asarray(picture.open()).astype(int) - COLOURS).max() < 12
    assert opacity(Image.open(io.BytesIO(data)), "it") is None


def test_no_file_reaches_another_program(tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript when it is loaded, by whatever name it comes."""
    from PIL import EpsImagePlugin

    def ghostscript(*_, **__):
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    data = encoded(Image.new("RGB", (8, 8)), "EPS")
    for way in ("path", "bytes", "base64"):
        with pytest.raises(DataError, match="not an image in a known format"):
            by(way, data, tmp_path).open()
    with pytest.raises(DataError, match="of format EPS"):
        by("object", data, tmp_path)


SOUND = {
    "PNG": encoded(Image.fromarray(COLOURS)),
    "JPEG": oriented("JPEG", 6),
    "GIF": encoded(palette(), "GIF"),
    "TIFF": oriented("TIFF", 6),
    "WEBP": oriented("WEBP", 6),
    "BMP": encoded(Image.fromarray(COLOURS), "BMP"),
    "PNG with EXIF": oriented("PNG", 6),
    "PPM": encoded(Image.fromarray(COLOURS), "PPM"),
    "AVIF": oriented("AVIF", 6),
    "JPEG2000": encoded(Image.fromarray(COLOURS), "JPEG2000"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", SOUND)
def test_damaged_files_end_in_a_sentence_or_a_picture(format):
    """Cut off at every length, and with bytes changed all over."""
    data = SOUND[format]
    dice = np.random.default_rng(0)
    damaged = [data[:length] for length in range(0, len(data), max(1, len(data) // 60))]
    for _ in range(150):
        changed = bytearray(data)
        for place in dice.integers(0, min(len(data), 400), size=3):
            changed[place] = dice.integers(256)
        damaged.append(bytes(changed))
    for each in damaged:
        for read in (lambda p: p.size, lambda p: p.open()):
            try:
                read(PictureBytes(each, "it"))
            except DataError as error:
                assert str(error).startswith("it ")  # noqa: PT017


def test_a_truncated_png_still_has_a_size():
    data = encoded(Image.effect_noise((64, 48), 50))[:900]
    assert PictureBytes(data).size == (48, 64)
    with pytest.raises(DataError, match="is corrupt"):
        PictureBytes(data).open()


def test_large_images_give_no_warning_of_pillow():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert to_rgb(Image.new("L", (9500, 9500)), "it").width == 9500
