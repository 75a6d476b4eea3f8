"""Sizes in a folder's preprocessor, against those of the views: equal, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm.errors import CheckpointError, excerpt
from chiasm.interop.config import Config

SIDES = ("height", "width", "shortest_edge", "longest_edge")


def check_sizes(config: Config, views: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """Raise CheckpointError naming a size of the preprocessor that is not the views'."""
    sizes = {
        key: _sides(key, config.get(key))
        for key in ("size", "crop_size", "image_size", "pad_size", "high_res_size")
        if config.get(key) is not None
    }
    if views["type"] == "uhd_slices":
        return  # the original has slices neither resized nor cropped
    if views["type"] == "bounded":
        bounds = {"shortest_edge": views["shortest"], "longest_edge": views["longest"]}
        _only_sides(sizes, bounds, "kept within")
    elif views["type"] == "native":
        _only_sides(sizes, {"height": views["height"], "width": views["width"]}, "shrunk to")
        patch = config.get("patch_size")
        if patch is not None:
            _only_side("patch_size", _sides("patch_size", patch), views["patch"])
    elif views["type"] == "stretched":
        _only_sides(sizes, {"height": views["height"], "width": views["width"]}, "stretched to")
    else:
        second, towers = "high_res_size" in sizes, encoder.get("sizes") or []
        if second and not towers:
            raise CheckpointError(
                f"high_res_size is {_written(sizes['high_res_size'])}, but the config has one tower alone"
            )
        for key, sides in sizes.items():
            lesser = second and towers and key == "size"  # then of the smaller image, for the second tower
            _only_side(key, sides, towers[-1] if lesser else views["size"])
        if not views.get("resolutions"):  # tiles are square already
            _check_form(config, sizes.get("size", {}), views.get("fit"))


def _sides(key: str, size: Any) -> dict[str, int]:
    """The pixels of each side that a size names; under "" those of one that is a number alone."""
    if isinstance(size, list) and len(size) == 2:
        size = dict(zip(("height", "width"), size, strict=True))
    sides = dict(size) if isinstance(size, Mapping) else {"": size}
    sides = {side: pixels for side, pixels in sides.items() if pixels is not None}
    whole = all(isinstance(pixels, int) and not isinstance(pixels, bool) for pixels in sides.values())
    if not whole or not sides or not sides.keys() <= {*SIDES, ""}:
        raise CheckpointError(
            f"{key} is {excerpt(size)}, but has to be a number of pixels or a mapping of {', '.join(SIDES)}"
        )
    return sides


def _only_side(key: str, sides: Mapping[str, int], expected: int) -> None:
    if any(pixels != expected for pixels in sides.values()):
        raise CheckpointError(
            f"{key} is {_written(sides)}, but the config makes images {expected} pixels wide"
        )


def _only_sides(sizes: Mapping[str, Mapping[str, int]], expected: Mapping[str, int], treatment: str) -> None:
    """A `size` alone, of no other sides than those wanted; treatment: what images are made of it."""
    for key, sides in sizes.items():
        if key != "size" or not sides.items() <= expected.items():
            raise CheckpointError(f"{key} is {_written(sides)}, but images are {treatment} {expected}")


def _check_form(config: Config, sides: Mapping[str, int], fit: str | None) -> None:
    """A size of two sides stretches an image; one of its shorter side keeps the aspect ratio."""
    stretches = "height" in sides or ("" in sides and bool(config.get("default_to_square")))
    if fit == "crop" and stretches:
        raise CheckpointError(
            f"size is {_written(sides)}, to which an image is stretched, but images of this family are cropped"
        )
    if fit == "stretch" and "shortest_edge" in sides:
        raise CheckpointError(
            f"size is {_written(sides)}, which keeps the aspect ratio, but images of this family are stretched"
        )


def _written(sides: Mapping[str, int]) -> str:
    return str(sides[""]) if "" in sides else str(dict(sides))
