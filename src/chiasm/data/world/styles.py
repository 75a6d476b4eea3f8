"""Drawing styles: honest transforms of one RGBA image into another, so that a style can be held out."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageChops, ImageFilter, ImageOps

INK = (40, 40, 46)


def plain(image: Image.Image) -> Image.Image:
    """As Twemoji draws it."""
    return image


def flat(image: Image.Image) -> Image.Image:
    """Smoothed and posterised to four levels a channel."""
    red, green, blue, alpha = image.split()
    smooth = Image.merge("RGB", (red, green, blue)).filter(ImageFilter.MedianFilter(5))
    return Image.merge("RGBA", (*ImageOps.posterize(smooth, 2).split(), alpha))


def grey(image: Image.Image) -> Image.Image:
    """Without colour."""
    return Image.merge("RGBA", (*[image.convert("L")] * 3, image.getchannel("A")))


def line(image: Image.Image) -> Image.Image:
    """Ink outlines on white, the way of a colouring book."""
    alpha = image.getchannel("A")
    on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    red, green, blue = (_edges(channel, 255) for channel in on_white.split())
    inner = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    edges = ImageChops.lighter(inner, _edges(alpha, 0)).point(lambda value: min(255, value * 3))
    paper = Image.new("RGB", image.size, "white")
    paper.paste(INK, mask=edges)
    return Image.merge("RGBA", (*paper.split(), ImageChops.lighter(alpha, edges)))


def mirror(image: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(image)


def mosaic(image: Image.Image) -> Image.Image:
    """A mosaic of 12 x 12 squares."""
    small = image.resize((12, 12), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    style.__name__: style for style in (plain, flat, grey, line, mirror, mosaic)
}


def _edges(channel: Image.Image, outside: int) -> Image.Image:
    """Morphological gradient of one channel: how much it changes within a pixel's neighbourhood."""
    padded = ImageOps.expand(channel, 1, fill=outside)
    gradient = ImageChops.difference(
        padded.filter(ImageFilter.MaxFilter(3)), padded.filter(ImageFilter.MinFilter(3))
    )
    return gradient.crop((1, 1, 1 + channel.width, 1 + channel.height))
