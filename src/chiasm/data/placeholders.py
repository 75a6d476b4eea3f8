"""What stands for an image, a video or a sound in the texts of other frameworks: words here, which nobody means.

Qwen's `<img>path</img>` and `<|image_pad|>`, LLaVA-Video's `<video>`, Phi's `<|image_1|>`, Pixtral's `[IMG]`,
Gemma's `<start_of_image>`, InternLM's `<ImageHere>`, DeepSeek's `<image_placeholder>`, `<Image>` for `<image>`, ...
"""

from __future__ import annotations

import re

from chiasm.errors import DataError, excerpt

KIND = "placeholder"  # of the error
# In brackets, without attributes, so that HTML's <img src="a.png"> is text; `Image` of `List<Image>` is a type.
_TAIL = r"[A-Za-z0-9_-]{0,24}(?:[ ][0-9]{1,3})?[ ]?"
_PLACEHOLDER = re.compile(
    rf"""<[ /]?(?:[a-z0-9]+[/_-])*(?:image|img|video|audio|speech|sound){_TAIL}/?>
    |(?<![A-Za-z0-9_])<(?:Image|IMAGE|Img|IMG|Video|VIDEO|Audio|AUDIO){_TAIL}>
    |<\|(?i:(?:[a-z0-9]+[_-])*(?:image|img|video|audio|vision|media)){_TAIL}\|>
    |</?im_(?:patch|start|end)>
    |\[(?:IMG|VIDEO|AUDIO)[A-Z0-9_]{{0,24}}\]""",
    re.VERBOSE,
)


def check_placeholders(text: str, where: str, remedy: str) -> None:
    """Raise DataError for a text with a placeholder of another format, which ends with how it may stand there."""
    foreign = next((each[0] for each in _PLACEHOLDER.finditer(text) if each[0] != "<image>"), None)
    if foreign is not None:
        raise DataError(
            f"{where} has {excerpt(foreign)!r} in its text, a placeholder of another format; an image is written "
            f"<image> and named under 'images', and videos and sounds are not read; {remedy}",
            KIND,
        )
