"""A document of 12 tiles, read and answered: Chiasm beside transformers' own InternVL, on the same small weights.

    python benchmarks/internvl.py            # some minutes on one core
    python benchmarks/internvl.py --quick --json

Each side gets an image and a question or its ids: it cuts the image into tiles, encodes them, reads the prompt and
goes on greedily. `prefix` is one token, `answer` as many as `--tokens`. The sides take turns; the first round does
not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from PIL import Image, ImageDraw

from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Sample
from chiasm.inference.answers import Answers
from chiasm.inference.engine import Engine
from chiasm.interop import import_checkpoint
from chiasm.language.text import TextTokenizer
from chiasm.model.checkpoint import load_model

MARKERS = ["<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>"]
WORDS, TILES = 400, 12
QUESTION = "What does the document say?"


def folder_of(place: Path, width: int, depth: int, side: int) -> Path:
    """A folder as the hub has it, with random weights."""
    words = TextTokenizer.train([QUESTION, "It says: a total of 12.50."], 300)
    words.inner.add_special_tokens({"extra_special_tokens": MARKERS}, replace_extra_special_tokens=False)
    words.save(place)
    context = words.inner.convert_tokens_to_ids("<IMG_CONTEXT>")
    config = transformers.InternVLConfig(
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": depth,
            "num_attention_heads": width // 64,
            "image_size": [side, side],
            "patch_size": [14, 14],
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": depth,
            "num_attention_heads": width // 64,
            "num_key_value_heads": width // 64,
            "vocab_size": WORDS,
            "max_position_embeddings": 4096,
        },
        image_token_id=context,
        image_seq_length=(side // 28) ** 2,
    )
    torch.manual_seed(0)
    model = transformers.InternVLForConditionalGeneration(config).eval()
    model.save_pretrained(place)
    prepared = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    tiling = {"min_patches": 1, "max_patches": TILES, "crop_to_patches": True}
    size = {"size": {"height": side, "width": side}}
    (place / "preprocessor_config.json").write_text(json.dumps({**prepared, **tiling, **size}))
    return place


def page(side: int) -> Image.Image:
    """A page of 3 x 4 tiles and words on it."""
    image = Image.new("RGB", (3 * side, 4 * side), "white")
    pen = ImageDraw.Draw(image)
    for line in range(40):
        pen.text(
            (20, 20 + line * side // 11), f"{line}: a line of the document, {line * 37 % 91}.50", "black"
        )
    return image


def sides_of(place: Path, image: Image.Image) -> tuple[dict[str, Callable[[int], list[int]]], int, int]:
    """Each side as a function of the tokens it answers; how many tiles it sees, and tokens of its prompt."""
    theirs = transformers.InternVLForConditionalGeneration.from_pretrained(place).eval()
    import_checkpoint(place, place / "chiasm")
    ours = load_model(place / "chiasm", "cpu")
    prepare = transformers.GotOcr2ImageProcessorPil.from_pretrained(place)
    sample = Sample("the page", (Message("user", (PictureInMemory(image), QUESTION)),))
    prompt = document(ours.contract, sample, prompt=True)
    ids = torch.tensor([prompt.ids])
    ids[0, torch.tensor(prompt.kinds) == 1] = theirs.config.image_token_id

    def chiasm(tokens: int) -> list[int]:
        picture = Sample("the page", (Message("user", (PictureInMemory(image), QUESTION)),))
        request = Answers(ours, [document(ours.contract, picture, prompt=True)], tokens=tokens)
        request._ends = frozenset()  # nothing ends an answer, so that both sides go on for as many tokens
        Engine(ours).submit(request).result()
        return request.ids[0]

    @torch.inference_mode()
    def original(tokens: int) -> list[int]:
        prepared = prepare(images=image, return_tensors="pt")
        out = theirs.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=prepared["pixel_values"],
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        return out[0, ids.shape[1] :].tolist()

    tiles = len(prepare(images=image, return_tensors="pt")["pixel_values"])
    return {"chiasm": chiasm, "transformers": original}, tiles, ids.shape[1]


def measured(sides: dict[str, Callable[[int], list[int]]], tokens: int, rounds: int) -> dict[str, Any]:
    wall: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    written: dict[str, list[int]] = {}
    for number in range(rounds + 1):
        for name, side in sides.items():
            began, busy = time.perf_counter(), time.process_time()
            written[name] = side(tokens)
            if number:
                wall[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - busy)
    pairs = {"wall": wall, "processor": processor}
    return {
        "tokens": tokens,
        "seconds": {name: median(each) for name, each in wall.items()},
        "processor_seconds": {name: median(each) for name, each in processor.items()},
        "ratio": {
            kind: median(b / a for a, b in zip(each["chiasm"], each["transformers"], strict=True))
            for kind, each in pairs.items()
        },
        "same_answer": written["chiasm"] == written["transformers"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=256, help="of tower and language model")
    parser.add_argument("--depth", type=int, default=6, help="layers of each")
    parser.add_argument("--side", type=int, default=224, help="of a tile, in pixels")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="small and few: only to see that it runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.width, given.depth, given.side, given.tokens, given.rounds = 64, 1, 56, 4, 1
    torch.set_num_threads(given.threads)
    with TemporaryDirectory() as place:
        folder = folder_of(Path(place), given.width, given.depth, given.side)
        sides, tiles, length = sides_of(folder, page(given.side))
        result = {
            **vars(given),
            "tiles": tiles,
            "prompt_tokens": length,
            "prefix": measured(sides, 1, given.rounds),
            "answer": measured(sides, given.tokens, given.rounds),
        }
    if given.json:
        print(json.dumps(result))
        return
    print(
        f"InternVL: {given.depth} layers of width {given.width}, {tiles} tiles with the whole, {length} tokens"
    )
    for name in ("prefix", "answer"):
        each = result[name]
        ours, theirs = (each["seconds"][side] for side in ("chiasm", "transformers"))
        same = "the same" if each["same_answer"] else "DIFFERENT"
        print(
            f"{name:>7} of {each['tokens']:>3} tokens: chiasm {ours:.2f} s, transformers {theirs:.2f} s; ratio "
            f"{each['ratio']['wall']:.2f} (processor {each['ratio']['processor']:.2f}); {same} answer"
        )


if __name__ == "__main__":
    main()
