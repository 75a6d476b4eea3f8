"""The whole image behind one learnt marker."""

from chiasm import parts
from chiasm.views import Size


def test_an_image_is_laid_as_letterbox_lays_it_and_read_behind_its_marker():
    options = {"size": 28, "padding": (1, 2, 3)}
    views = parts.build("views", {"type": "headed", **options}, 8)
    assert views.markers.shape == (1, 8)
    assert views.split(Size(40, 60)) == parts.build("views", {"type": "letterbox", **options}).split(
        Size(40, 60)
    )
    assert list(views.arrange(Size(40, 60), [(2, 2)])) == [-1, 0, 1, 2, 3]
