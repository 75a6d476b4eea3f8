from PIL import Image

from chiasm.data.cut import cut
from chiasm.views import Size
from chiasm.views.letterbox import Letterbox


def test_the_longer_side_fills_the_square_and_the_shorter_is_rounded_down():
    assert Letterbox(size=384).lay(Size(792, 612)) == (Size(384, 296), 44, 0)


def test_a_sliver_is_never_thinner_than_the_shortest():
    assert Letterbox(size=384, shortest=14).lay(Size(28, 2800)) == (Size(14, 384), 0, 185)


def test_the_picture_lies_in_the_middle_of_its_padding():
    views = Letterbox(size=32, padding=(0, 0, 255))
    (view,) = views.split(Size(10, 20))
    pixels = cut(Image.new("RGB", (20, 10), "red"), view)
    assert pixels.shape == (3, 32, 32)
    red = pixels[0] > 0.5
    assert red[8:24].all()
    assert not red[:8].any()
    assert not red[24:].any()
