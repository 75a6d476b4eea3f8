"""The data source `films`: VideoPoet's tasks on the moving scenes of the built-in world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from chiasm.data import Message, Sample, Source
from chiasm.data.clip import Clip, ClipSheet
from chiasm.errors import DataError

GREY = (128, 128, 128)  # of what is not shown
FilmTask = Literal["t2v", "i2v", "fp", "inpaint", "outpaint"]


class ChangedClip(Clip):
    """A clip as a task shows it.

    change: makes the frames that are shown of all frames. name: of the change.
    """

    def __init__(self, clip: Clip, name: str, change: Callable[[list[Image.Image]], list[Image.Image]]):
        self.clip, self.change = clip, change
        self.key, self.size, self.length = f"{name} of {clip.key}", clip.size, clip.length

    def frames(self) -> list[Image.Image]:
        return self.change(self.clip.frames())


class Films(Source, name="films"):
    """Clips that are asked for by a task's token, and by words or by a part of the clip (arXiv 2312.14125).

    Each clip is an image of its frames (`ClipSheet`). `t2v`: words; `i2v`: the first frame, which stands still;
    `fp`: the first half of the frames (frame prediction); `inpaint`: all but the middle of each frame; `outpaint`:
    the middle alone. Behind the token of a task (`<t2v>`) the words stand too.

    Args:
        of: where the clips come from, as `moving_world`.
        tasks: which of each clip.
    """

    def __init__(self, *, of: Source, tasks: list[FilmTask] = list(get_args(FilmTask))):  # noqa: B006, B008
        self.of, self.tasks = of, tasks
        self.foreign, self.broken = of.foreign, of.broken

    @property
    def skipped(self) -> Mapping[str, int]:  # type: ignore[override]
        return self.of.skipped

    def image_files(self) -> Iterable[Path]:
        return self.of.image_files()

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> list[Sample]:
        return [self._sample(sample, task) for sample in self.of[index] for task in self.tasks]

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        return f"films {self.tasks} of {self.of.fingerprint}"

    def _sample(self, sample: Sample, task: FilmTask) -> Sample:
        clips = [item for message in sample.messages for item in message.content if isinstance(item, Clip)]
        if len(sample.messages) != 2 or sample.messages[-1].content != tuple(clips) or len(clips) != 1:
            raise DataError(
                f"{sample.name}: data source 'films' needs words that are answered with one clip, as "
                "moving_world has them",
                "no clip",
            )
        (user, _), (clip,) = sample.messages, clips
        shown = () if task == "t2v" else (ClipSheet(ChangedClip(clip, task, CHANGES[task])),)
        asked = Message("user", (f"<{task}> ", *user.content, *shown), special_tokens=True)
        messages = asked, Message("assistant", (ClipSheet(clip),))
        return Sample(f"{sample.name}, {task}", messages, {**sample.truth, "task": task})


def still(frames: list[Image.Image]) -> list[Image.Image]:
    """The first frame, again and again."""
    return frames[:1] * len(frames)


def begun(frames: list[Image.Image]) -> list[Image.Image]:
    """The first half, and behind it nothing."""
    half = (len(frames) + 1) // 2
    return frames[:half] + [Image.new("RGB", frames[0].size, GREY)] * (len(frames) - half)


def without_middle(frames: list[Image.Image]) -> list[Image.Image]:
    """All but the middle of each frame, half as wide and high."""
    changed = [frame.copy() for frame in frames]
    for frame in changed:
        frame.paste(GREY, _middle(frame))
    return changed


def middle(frames: list[Image.Image]) -> list[Image.Image]:
    """The middle of each frame alone."""
    changed = []
    for frame in frames:
        shown = Image.new("RGB", frame.size, GREY)
        shown.paste(frame.crop(_middle(frame)), _middle(frame))
        changed.append(shown)
    return changed


def _middle(frame: Image.Image) -> tuple[int, int, int, int]:
    return frame.width // 4, frame.height // 4, frame.width * 3 // 4, frame.height * 3 // 4


CHANGES: dict[str, Callable[[list[Image.Image]], list[Image.Image]]] = {
    "i2v": still,
    "fp": begun,
    "inpaint": without_middle,
    "outpaint": middle,
}
