"""The built-in world: scenes of emoji with exact ground truth for whatever is asked, said or drawn about them."""

from chiasm.data.world.assets import Emoji, emoji_set, find_emoji
from chiasm.data.world.render import ScenePicture, TextPicture, masks, render
from chiasm.data.world.scene import Scene, Thing
from chiasm.data.world.source import World

__all__ = [
    "Emoji",
    "Scene",
    "ScenePicture",
    "TextPicture",
    "Thing",
    "World",
    "emoji_set",
    "find_emoji",
    "masks",
    "render",
]
