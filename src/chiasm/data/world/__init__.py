"""The built-in world: scenes of emoji with exact ground truth for every question, answer and image."""

from chiasm.data.world.assets import Emoji, emoji_set, find_emoji
from chiasm.data.world.binding import Binding
from chiasm.data.world.checker import Checker, SceneReading, score
from chiasm.data.world.films import Films
from chiasm.data.world.maze import MazeSource
from chiasm.data.world.moving import MovingWorld, SceneClip
from chiasm.data.world.render import ScenePicture, TextPicture, masks, render
from chiasm.data.world.scene import Scene, Thing
from chiasm.data.world.sheet import contact_sheet
from chiasm.data.world.shop import Catalogue, Shop
from chiasm.data.world.source import World

__all__ = [
    "Binding",
    "Catalogue",
    "Checker",
    "Emoji",
    "Films",
    "MazeSource",
    "MovingWorld",
    "Scene",
    "SceneClip",
    "ScenePicture",
    "SceneReading",
    "Shop",
    "TextPicture",
    "Thing",
    "World",
    "contact_sheet",
    "emoji_set",
    "find_emoji",
    "masks",
    "render",
    "score",
]
