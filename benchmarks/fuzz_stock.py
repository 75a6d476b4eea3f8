"""What inputs of the fuzz are made from: small models and runs, a public checkpoint, images, records, recipes."""

from __future__ import annotations

import io
import json
import shutil
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from small_llava import write_llava

import chiasm
from chiasm.interop import import_checkpoint
from chiasm.model.checkpoint import save_model
from chiasm.recipe import load_recipe, recipes
from chiasm.storage import safe_yaml
from chiasm.studies.plan import studies
from chiasm.training import train
from chiasm.training.train import build_model

TINY = ("show-o", "janusflow", "psalm", "instruct-pix2pix", "emu2")  # overlays of which checkpoints are made
GRID = {"size": 16, "downsample": 8, "codebook_size": 16, "code_width": 8, "width": 32, "depth": 1}
LANGUAGE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip
EXIF = bytes.fromhex(
    "45786966 0000 4d4d002a00000008 0001 0112 0003 00000001 0006 0000 00000000"
)  # turned by 90 degrees


def small_recipe(data: str) -> dict[str, Any]:
    """A model that sees, speaks and draws, trained in a second. data: a file of records."""
    rates = {"connector": 2e-3, "language": 2e-3, "heads.image": 2e-3}
    stage = {"data": {"told": 1.0}, "steps": 2, "rows": 2}
    return {
        "name": "small",
        "model": {
            "views": {"type": "whole", "size": 16},
            "encoder": {"type": "vit", "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "size": 16},
            "connector": {"type": "mlp"},
            "language": {"type": "causal", "config": LANGUAGE, "vocabulary": 400},
            "image_tokenizer": {"type": "vq", "settle": 1, **GRID},
            "heads": {"image": {"type": "raster", "alphabet": {"type": "own"}, "unconditional": 0.2}},
        },
        "data": {"told": {"type": "chat", "path": data}},
        "stages": [
            {"name": "codes", "train": {"image_tokenizer": 1e-3}, **stage},
            {"name": "learn", "train": rates, "length": 128, **stage},
        ],
        "checkpoints": {"every": 1, "keep": 2},
    }


def make_stock(place: Path) -> None:
    """Write `runs`, `models`, `public` and `data` into a folder; half a minute."""
    write_data(place / "data")
    recipe = load_recipe(small_recipe(str(place / "data" / "records.jsonl")))
    run = train(recipe, place / "runs" / "small", console=Console(quiet=True))
    shutil.copytree(run, place / "runs" / "stopped")
    shutil.rmtree(place / "runs" / "stopped" / "final")
    (place / "models").mkdir()
    for name in TINY:
        tiny = load_recipe(name, tiny=True)
        save_model(build_model(tiny), tiny, place / "models" / name)
    llava = write_llava(place / "public" / "llava", width=64, depth=1, side=28, context=256)
    pickled = shutil.copytree(llava, place / "public" / "llava-bin")
    weights = chiasm.storage.weights.read_tensors(pickled / "model.safetensors")
    (pickled / "model.safetensors").unlink()
    torch.save(weights, pickled / "pytorch_model.bin")
    import_checkpoint(llava, place / "models" / "llava")


def written(record: Any) -> str:
    """A record as a line of a file, an image in base64 in place of "@"."""
    return json.dumps(record).replace("base64,@", "base64," + b64encode(images()["RGB.png"]).decode())


def write_data(folder: Path) -> None:
    """Images of every format, and records that name some of them."""
    folder.mkdir(parents=True)
    for name, image in images().items():
        (folder / name).write_bytes(image)
    (folder / "records.jsonl").write_text("".join(f"{line}\n" for line in map(written, RECORDS * 3)))


@cache
def recipe_texts() -> dict[str, str]:
    return {name: path.read_text(encoding="utf-8") for name, path in recipes().items()}


@cache
def recipe_trees() -> dict[str, Any]:
    return {name: safe_yaml.parse(text, name) for name, text in recipe_texts().items()}


@cache
def study_trees() -> dict[str, Any]:
    return {name: safe_yaml.read(path) for name, path in studies().items()}


@cache
def images() -> dict[str, bytes]:
    """Of every format that is read, by file name."""
    modes = ("RGB", "RGBA", "P", "1", "L", "LA", "I;16")
    images = {f"{mode.replace(';', '')}.png": _encoded(mode, "PNG") for mode in modes}
    for kind in ("JPEG", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"):
        images[f"rgb.{kind.lower()}"] = _encoded("RGB", kind)
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    return images | {
        "cmyk.jpeg": _encoded("CMYK", "JPEG"),
        "p.gif": _encoded("P", "GIF"),
        "moving.gif": moving.getvalue(),
        "float.tiff": _encoded("F", "TIFF"),
        "lzw.tiff": _encoded("RGB", "TIFF", compression="tiff_lzw"),
        "deflate.tiff": _encoded("RGB", "TIFF", compression="tiff_adobe_deflate"),
        "turned.jpeg": _encoded("RGB", "JPEG", exif=EXIF),
        "turned.png": _encoded("RGB", "PNG", exif=EXIF),
        "mask.png": _encoded("1", "PNG"),
        "clear.webp": _encoded("RGBA", "WEBP", lossless=True),
    }


def _encoded(mode: str, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 24)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


_ASKED = {"role": "user", "content": [{"type": "image", "image": "RGB.png"}, "What?"]}
_SAID = {"role": "assistant", "content": "A dog.", "loss": True}
_RUNS = {"size": [24, 40], "counts": [100, 20, 840]}
RECORDS: tuple[Any, ...] = (
    {"id": 1, "image": "RGB.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"},
                                                    {"from": "gpt", "value": "A dog."}]},
    {"messages": [{"role": "system", "content": "Be brief."}, _ASKED, _SAID]},
    {"images": ["RGB.png", "p.gif"], "system": "Be brief.", "messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "<image> both?"}]},
        {"role": "assistant", "content": "Yes."}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "RGB.png"}}, "?"]},
    _SAID]},
    {"messages": [{"role": "user", "content": "Draw a dog."}, {"role": "assistant",
    "content": [{"image": "RGB.png"}]}]},
    {"messages": [_ASKED, {"role": "assistant", "content": "yes"}], "answers": ["yes", "yeah"]},
    {"messages": [{"role": "document", "content": ["words ", {"image": "L.png"}, " and words"]}]},
    {"image": "data:image/png;base64,@", "messages": [{"role": "user", "content": "<image>?"}, _SAID]},
)  # fmt: skip
# Forms of masks, tools and interleaved documents, which the small model's training has no use for.
MORE_RECORDS: tuple[Any, ...] = (
    {"image": "RGB.png", "masks": [_RUNS], "messages": [{"role": "user", "content": "<image> Where?"},
                                                         {"role": "assistant", "content": "There."}]},
    {"image": "RGB.png", "masks": ["mask.png", [[1, 1, 20, 1, 20, 20]]],
     "messages": [{"role": "user", "content": "<image> Where?"}, {"role": "assistant", "content": "There."}]},
    {"tools": [{"type": "function", "function": {"name": "price", "parameters": {"type": "object"}}}],
    "messages": [
        {"role": "user", "content": "How much?"},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function",
                                              "function": {"name": "price",
                                              "arguments": "{\"of\": \"a\"}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "3"}, {"role": "assistant", "content": "Three."}]},
    {"texts": ["Words of a document.", None, "More of them."], "images": [None, "RGB.png", None]},
)  # fmt: skip
