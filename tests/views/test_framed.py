"""The whole picture between two learnt markers."""

from chiasm import parts
from chiasm.views import Size


def test_a_picture_is_read_between_its_two_markers():
    views = parts.build("views", {"type": "framed", "size": 28}, 8)
    assert views.markers.shape == (2, 8)
    assert [view.size for view in views.split(Size(40, 60))] == [(28, 28)]
    assert list(views.arrange(Size(40, 60), [(2, 2)])) == [-1, 0, 1, 2, 3, -2]
