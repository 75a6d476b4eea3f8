"""A LLaVA in transformers' layout with random weights, for servers to serve, and questions about images."""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from peers import random as with_random_weights
from PIL import Image, ImageDraw
from served_folder import data_url

from chiasm.interop import import_checkpoint
from chiasm.language.text import TextTokenizer

IMAGE = "<image>"
# As llava-hf writes a conversation: an image where it stands, a line for each message.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + IMAGE + "\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
WORDS = ["system: user: assistant: Answer in a few words.", "What stands beside the red thing, number 7?"]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Of a benchmark that asks two servers of a LLaVA in turns."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=384, help="of tower and language model")
    parser.add_argument("--depth", type=int, default=6, help="layers of each")
    parser.add_argument("--side", type=int, default=224, help="of an image, in pixels")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small and few: only to see that it runs")
    return parser


def parsed(parser: argparse.ArgumentParser, **quick: int) -> argparse.Namespace:
    """The options; quick: what `--quick` makes smaller, besides the model and the rounds."""
    options = parser.parse_args()
    if options.quick:
        vars(options).update(width=64, depth=1, side=56, rounds=1, **quick)
    return options


@contextmanager
def llava_folders(options: argparse.Namespace, *, context: int) -> Iterator[tuple[Path, Path]]:
    """One LLaVA in transformers' layout and imported, for servers with one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as scratch:
        theirs, ours = Path(scratch) / "llava", Path(scratch) / "chiasm"
        sizes = {"width": options.width, "depth": options.depth, "side": options.side}
        import_checkpoint(write_llava(theirs, **sizes, context=context), ours)
        yield theirs, ours


def write_llava(place: Path, *, width: int, depth: int, side: int, context: int) -> Path:
    """A folder as the hub has it. side: of an image in pixels, a patch has 14."""
    words = TextTokenizer.train(WORDS, 300)
    words.inner.add_special_tokens({"extra_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    words.inner.chat_template = TEMPLATE
    words.save(place)
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // 64,
    }
    config = transformers.LlavaConfig(
        vision_config={
            **sizes,
            "model_type": "clip_vision_model",
            "intermediate_size": 4 * width,
            "image_size": side,
            "patch_size": 14,
        },
        text_config={
            **sizes,
            "model_type": "llama",
            "intermediate_size": 3 * width,
            "vocab_size": len(words.inner),
            "max_position_embeddings": context,
            "bos_token_id": words.inner.bos_token_id,
            "eos_token_id": words.inner.eos_token_id,
        },
        image_token_index=words.inner.convert_tokens_to_ids(IMAGE),
    )
    torch.manual_seed(0)
    with_random_weights(transformers.LlavaForConditionalGeneration(config)).save_pretrained(place)
    prepared = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "image_mean": [0.481, 0.458, 0.408],
        "image_std": [0.269, 0.261, 0.276],
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": IMAGE,
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    (place / "preprocessor_config.json").write_text(json.dumps(prepared))
    (place / "processor_config.json").write_text(json.dumps(processor))
    return place


def image_part(number: int) -> dict[str, Any]:
    """An image of a request, each number's its own."""
    dice = random.Random(number)
    image = Image.new("RGB", (240, 240), (dice.randrange(256), dice.randrange(256), 99))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, size = dice.randrange(200), dice.randrange(200), dice.randrange(20, 90)
        pen.ellipse((x, y, x + size, y + size), fill=(dice.randrange(256), dice.randrange(256), 200))
    return {"type": "image_url", "image_url": {"url": data_url(image)}}


def question(number: int) -> dict[str, str]:
    return {"type": "text", "text": f"What stands beside the red thing, number {number}?"}
