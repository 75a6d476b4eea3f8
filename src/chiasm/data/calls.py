"""What a model asks of a tool, in words: VITRON's structured call, checked against a schema before anything runs.

Sure, here it is. <module>C</module> <instruction>generation: a red hat</instruction> <region>8,0,40,24</region>
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from chiasm.errors import DataError, excerpt, nearest, quoted

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Module:
    """A tool that a call can name.

    letter: how a model writes it. name: how it is known here. kinds: of its instructions, all of which it needs.
    works_on: what stands before the call in the conversation, whose region can be named.
    """

    letter: str
    name: str
    kinds: tuple[str, ...]
    works_on: Literal["nothing", "image", "video"] = "nothing"


MODULES = (
    Module("A", "image generation", ("generation",)),
    Module("B", "image segmentation", ("segmentation",), "image"),
    Module("C", "image editing", ("generation",), "image"),
    Module("D", "video generation", ("generation",)),
    Module("E", "video tracking", ("generation",), "video"),
    Module("F", "video editing", ("foreground", "background"), "video"),
    Module("G", "image to video", ("generation",), "image"),
)
NO_REGION = ("", "none")  # what the original's models write where they mean no region
_TAG = re.compile(r"<(/?)(module|instruction|region)>")
_SPAN = re.compile(r"<(module|instruction|region)>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A call that keeps to the schema. instructions: by their kind. region: within the image, if it names one."""

    module: Module
    instructions: Mapping[str, str]
    region: Box | None = None

    @property
    def instruction(self) -> str:
        """The only instruction; raises DataError where there are several."""
        if len(self.instructions) != 1:
            raise DataError(
                f"a call of {self.module.name} has the instructions {', '.join(self.instructions)}: say which one"
            )
        return next(iter(self.instructions.values()))

    def __str__(self) -> str:
        """As a model writes it."""
        tags = [f"<module>{self.module.letter}</module>"]
        tags += [f"<instruction>{kind}: {text}</instruction>" for kind, text in self.instructions.items()]
        tags += [f"<region>{','.join(map(str, self.region))}</region>"] if self.region else []
        return " ".join(tags)


def parse_call(text: str, size: tuple[int, int] | None = None) -> tuple[str, Call | None]:
    """What an answer says to its reader, and the call in it, if there is one.

    size: height and width in pixels of the image that the call is about, in which its region must lie.
    Raises DataError for tags that do not keep to the schema.
    """
    spans = [(match[1], match[2].strip()) for match in _SPAN.finditer(text)]
    words = _SPAN.sub("", text)
    stray = _TAG.search(words) or next((_TAG.search(content) for _, content in spans if "<" in content), None)
    if stray is not None:
        raise DataError(f"a call has {stray[0]} without its other half: {excerpt(text)}")
    if not spans:
        return text.strip(), None
    return " ".join(words.split()), _checked(spans, size, text)


def _checked(spans: Sequence[tuple[str, str]], size: tuple[int, int] | None, text: str) -> Call:
    modules, instructions, regions = (
        [content for tag, content in spans if tag == name] for name in ("module", "instruction", "region")
    )
    for tag, contents, most in (("module", modules, 1), ("region", regions, 1)):
        if len(contents) > most:
            raise DataError(f"a call has {len(contents)} {tag}s: {excerpt(text)}")
    if not modules:
        raise DataError(f"a call names no module: {excerpt(text)}")
    by_letter = {module.letter: module for module in MODULES}
    if modules[0] not in by_letter:
        raise DataError(f"a call names the module {quoted(modules[0])}; there are {', '.join(by_letter)}")
    module = by_letter[modules[0]]
    return Call(module, _instructions(module, instructions), _region(module, regions, size))


def _instructions(module: Module, contents: Sequence[str]) -> dict[str, str]:
    instructions: dict[str, str] = {}
    for content in contents:
        kind, colon, text = (part.strip() for part in content.partition(":"))
        if not colon or not text:
            raise DataError(
                f"an instruction of {module.name} is {quoted(content)}; it must be '{module.kinds[0]}: ...'"
            )
        if kind not in module.kinds:
            raise DataError(
                f"an instruction of {module.name} is of the kind {quoted(kind)}; it must "
                f"be {' or '.join(module.kinds)}"
            )
        if kind in instructions:
            raise DataError(f"a call of {module.name} has two instructions of the kind {kind}")
        instructions[kind] = text
    missing = [kind for kind in module.kinds if kind not in instructions]
    if missing:
        raise DataError(f"a call of {module.name} lacks the instruction '{missing[0]}: ...'")
    return instructions


def _region(module: Module, contents: Sequence[str], size: tuple[int, int] | None) -> Box | None:
    if not contents or contents[0].lower() in NO_REGION:
        return None
    if module.works_on == "nothing":
        raise DataError(f"a call of {module.name} names a region, but it works on no image")
    edges = contents[0].split(",")
    if len(edges) != 4 or not all(re.fullmatch(r"\s*\d{1,6}\s*", edge) for edge in edges):
        raise DataError(
            f"the region of a call is {quoted(contents[0])}; it must be left,top,right,bottom in whole pixels"
        )
    left, top, right, bottom = map(int, edges)
    height, width = size or (bottom, right)
    if not (left < right <= width and top < bottom <= height):
        within = f" within an image of {height} x {width} pixels" if size else ""
        raise DataError(f"the region {left},{top},{right},{bottom} of a call has no area{within}")
    return left, top, right, bottom


Tool = Callable[[Call, Sequence[Image.Image]], Any]


def run_call(call: Call, tools: Mapping[str, Tool], images: Sequence[Image.Image] = ()) -> Any:
    """What the tool of a call makes.

    tools: by the names of modules: any function of a call and the images before it, such as `lambda call, images:
        model.generate(call.instruction, verbatim=True)[0]` with a model that draws after words; the decoder behind
        a name is swapped by giving another.
    Raises DataError for a module that has no tool, for tools of unknown modules, and for a call that has nothing to
    work on.
    """
    names = [module.name for module in MODULES]
    unknown = [name for name in tools if name not in names]
    if unknown:
        raise DataError(f"there is a tool for {unknown[0]!r}, which is no module{nearest(unknown[0], names)}")
    module = call.module
    if module.name not in tools:
        raise DataError(f"the model calls for {module.name}, for which there is no tool")
    if module.works_on == "image" and not images:
        raise DataError(f"the model calls for {module.name}, but the conversation has no image to work on")
    return tools[module.name](call, images)
