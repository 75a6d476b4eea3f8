from PIL import Image

from chiasm import parts
from chiasm.data.cut import cut
from chiasm.views import Size


def test_the_image_stands_in_the_upper_left_and_the_rest_is_padding():
    views = parts.build("views", {"type": "corner", "size": 32, "padding": (0, 0, 255)})
    (view,) = views.split(Size(20, 40))
    pixels = cut(Image.new("RGB", (40, 20), "red"), view)
    red = (pixels[0] == 1) & (pixels[2] == 0)
    assert pixels.shape == (3, 32, 32)
    assert red[:15].all()  # what is next to the edge is blended
    assert not red[17:].any()
    assert (pixels[2, 17:] == 1).all()
