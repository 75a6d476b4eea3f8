"""One view of a fixed size, whatever the image."""

from chiasm import parts
from chiasm.views import Size, View


def test_every_image_is_seen_whole_at_one_size():
    views = parts.build("views", {"type": "stretched", "height": 896, "width": 1344})
    for size in (Size(1, 1), Size(300, 20_000), Size(896, 1344)):
        assert views.split(size) == [View((0, 0, size.width, size.height), Size(896, 1344))]
