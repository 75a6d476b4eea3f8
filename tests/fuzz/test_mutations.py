"""Recipes, records, images and checkpoints with something wrong in them end in a sentence or in success.

Each test mutates what is valid in one place and fails at whatever is not a ChiasmError: a traceback for the user.
"""

import copy
import io
import json
import random
import time
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from chiasm import parts
from chiasm.data.images import decode, measure
from chiasm.errors import ChiasmError
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe, recipes
from chiasm.storage import safe_yaml

LONGEST_MESSAGE = 4000  # characters; an error is a sentence, not the input
MOST_SECONDS = 10.0  # of processor time
ODD = (
    None, True, False, 0, -1, 1, 2.5, -0.0, 10**7, 10**19, 1e300, float("nan"), float("inf"), "", "x", " ", "\x00",
    "../../up", "a/b", "[/bold]", "{{ x }}", "\ud800", "é" * 300, [], {}, [[]], {"type": None}, {"": ""}, [1, "a"],
)  # fmt: skip
odd = st.sampled_from(ODD).map(copy.deepcopy)
seeds = st.integers(0, 2**32 - 1)
SHIPPED = recipes()


@cache
def raw_recipe(name):
    """What the file of a recipe holds; read when a test asks for it, not when the tests are collected."""
    return safe_yaml.read(SHIPPED[name])


def fuzz(examples):
    """So many examples."""
    return settings(
        max_examples=examples,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture(autouse=True, scope="module")
def imported():
    """What is imported with the first recipe counts to the seconds of no example."""
    load_recipe("quickstart")
    parts.build("data", {"type": "world", "scenes": 1})


def places(value, at=()):
    """Every place in nested lists and mappings."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def mutated(value, seed, replacement):
    """The value with one place replaced, removed, doubled under another name, or given a neighbour."""
    dice = random.Random(seed)
    value = copy.deepcopy(value)
    *way, last = dice.choice(list(places(value)))
    holder = value
    for key in way:
        holder = holder[key]
    kind = dice.choice(["replace", "replace", "remove", "add"])
    if kind == "replace":
        holder[last] = replacement
    elif kind == "remove":
        del holder[last]
    elif isinstance(holder, dict):
        holder[f"{last}x"] = replacement
    else:
        holder.append(replacement)
    return value


def damaged(data, seed):
    """Bytes that are cut off, flipped, doubled or put in at one to four places."""
    dice = random.Random(seed)
    data = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = (
            dice.randrange(len(data) + 1) if dice.random() < 0.7 else dice.randrange(min(64, len(data)) + 1)
        )
        kind = dice.choice(["cut", "flip", "double", "insert"])
        if kind == "cut":
            del data[place : place + dice.choice([1, 4, len(data)])]
        elif kind == "flip" and place < len(data):
            data[place] ^= 1 << dice.randrange(8)
        elif kind == "double":
            data[place:place] = data[place : place + 32]
        else:
            data[place:place] = dice.randbytes(dice.choice([1, 4]))
    return bytes(data)


def sentence(action):
    """The result of an action, or None where it raised a sentence for the user; within bounded work."""
    message, result, began = "nothing", None, time.process_time()
    try:
        result = action()
    except ChiasmError as error:
        message = str(error)
    assert 0 < len(message) <= LONGEST_MESSAGE
    assert time.process_time() - began < MOST_SECONDS
    return result


@fuzz(400)
@given(name=st.sampled_from(sorted(SHIPPED)), seed=seeds, replacement=odd, tiny=st.booleans())
def test_recipes(name, seed, replacement, tiny):
    raw = mutated(raw_recipe(name), seed, replacement)
    if "base" in raw and not isinstance(raw["base"], str):
        raw["base"] = "quickstart"
    elif "base" in raw:
        raw["base"] = str(SHIPPED[name].parent / raw["base"])
    sentence(lambda: load_recipe(raw, tiny=tiny))


@fuzz(150)
@given(name=st.sampled_from(sorted(SHIPPED)), seed=seeds)
def test_files_of_recipes(tmp_path, name, seed):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(damaged(SHIPPED[name].read_bytes(), seed))
    sentence(lambda: load_recipe(path))


@fuzz(300)
@given(key=st.sampled_from([".".join(map(str, at)) for at in places(raw_recipe("quickstart"))]), value=odd)
def test_overrides(key, value):
    sentence(lambda: load_recipe("quickstart", [f"{key}={value}"]))


ASKED = {"role": "user", "content": [{"type": "image", "image": "a.png"}, "What?"]}
SAID = {"role": "assistant", "content": "A dog.", "loss": True}
RECORDS = [
    {
        "id": 1,
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}],
    },
    {"messages": [{"role": "system", "content": "Be brief."}, ASKED, SAID]},
    {
        "images": ["a.png", "a.png"],
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "<image> both?"}]},
            {"role": "assistant", "content": "Yes."},
        ],
    },
    {
        "messages": [
            ASKED | {"content": [{"type": "image_url", "image_url": {"url": "a.png"}}]},
            SAID,
            ASKED,
            SAID,
        ]
    },
]


@pytest.mark.parametrize("broken", ["error", "skip"])
@fuzz(200)
@given(record=st.sampled_from(RECORDS), seed=seeds, replacement=odd)
def test_records(tmp_path, broken, record, seed, replacement):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines = [record, mutated(record, seed, replacement)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {"type": "chat", "path": str(tmp_path / "data.jsonl"), "broken": broken}
    source = sentence(lambda: parts.build("data", spec))
    if broken == "skip":
        assert source is not None, "the first record is whole"
        assert len(source) + source.skipped.total() == 2


@fuzz(150)
@given(record=st.sampled_from(RECORDS), seed=seeds)
def test_files_of_records(tmp_path, record, seed):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    line = (json.dumps(record) + "\n").encode()
    (tmp_path / "data.jsonl").write_bytes(line + damaged(line, seed))
    spec = {"type": "chat", "path": str(tmp_path / "data.jsonl"), "broken": "skip"}
    assert sentence(lambda: parts.build("data", spec)) is not None


def encoded(mode, kind, **options):
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 24)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


TURNED = bytes.fromhex(
    "45786966 0000 4d4d002a00000008 0001 0112 0003 00000001 0006 0000 00000000"
)  # EXIF: orientation 6
IMAGES = [
    *(encoded(mode, "PNG") for mode in ("RGB", "RGBA", "P", "1", "I;16")),
    *(encoded("RGB", kind) for kind in ("JPEG", "WEBP", "BMP", "TIFF")),
    encoded("CMYK", "JPEG"),
    encoded("P", "GIF"),
    encoded("F", "TIFF"),
    encoded("RGB", "TIFF", compression="tiff_lzw"),
    encoded("RGB", "JPEG", exif=TURNED),
    encoded("RGB", "PNG", exif=TURNED),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about damaged EXIF
@fuzz(600)
@given(image=st.sampled_from(IMAGES), seed=seeds)
def test_images(image, seed):
    data = damaged(image, seed)
    size = sentence(lambda: measure(io.BytesIO(data), "it"))
    pixels = sentence(lambda: decode(data, "it"))
    if pixels is not None:
        assert pixels.mode == "RGB"
        assert size is not None, "what can be opened can be measured"
        assert (pixels.height, pixels.width) == tuple(size)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The files of a small trained model, by name."""
    import chiasm

    folder = tmp_path_factory.mktemp("run")
    stages = [f"stages.{number}.steps=1" for number in range(len(raw_recipe("quickstart")["stages"]))]
    chiasm.train("quickstart", folder / "run", stages, tiny=True)
    final = folder / "run" / "final"
    return {path.relative_to(final): path.read_bytes() for path in sorted(final.rglob("*")) if path.is_file()}


@pytest.mark.slow
@fuzz(40)
@given(seed=seeds, replacement=odd)
def test_checkpoints(tmp_path_factory, checkpoint, seed, replacement):
    dice = random.Random(seed)
    folder = tmp_path_factory.mktemp("damaged")
    victim = dice.choice(list(checkpoint))
    for name, content in checkpoint.items():
        if name == victim and name.suffix == ".json" and dice.random() < 0.7:
            content = json.dumps(mutated(json.loads(content), seed, replacement)).encode()
        elif name == victim:
            content = damaged(content, seed)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    sentence(lambda: load_model(folder))
