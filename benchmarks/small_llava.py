"""A LLaVA in transformers' layout with random weights, for servers to serve, and questions about images."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import torch
import transformers
from peers import random as with_random_weights
from PIL import Image, ImageDraw

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
    file = io.BytesIO()
    image.save(file, "png")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def question(number: int) -> dict[str, str]:
    return {"type": "text", "text": f"What stands beside the red thing, number {number}?"}
