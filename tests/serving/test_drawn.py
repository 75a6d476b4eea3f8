"""Images that the model drew, sent back by a client: they are not encoded again."""

import base64
import io

import pytest
import torch
from PIL import Image

from chiasm.data.files import PictureBytes, PictureInMemory
from chiasm.inference.reading import CodedImage
from chiasm.serving.drawn import DrawnImages
from clients import data_url, opened, said


@pytest.fixture
def encoded(model, monkeypatch):
    """How many images the image tokenizer encodes."""
    counts, encode = [], model.image_tokenizer.encode

    def counted(pixels):
        counts.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(model.image_tokenizer, "encode", counted)
    return counts


def saved(image, form="png", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_an_answers_images_are_read_again_as_they_were_drawn(client, encoded):
    first = client.chat.completions.create(model="tiny", messages=said("What is this?"), max_tokens=6, seed=3)
    message = first.choices[0].message.model_dump(exclude_none=True)
    message["images"] = message["images"][:1]
    messages = [*said("What is this?"), message, *said("And now?")]
    client.chat.completions.create(model="tiny", messages=messages, max_tokens=2)
    assert encoded == []
    message["images"][0]["image_url"]["url"] = data_url("lime")  # another image in its place is encoded
    client.chat.completions.create(model="tiny", messages=messages, max_tokens=2)
    assert encoded == [1]


def test_an_edit_keeps_what_was_drawn_although_its_pixels_would_encode_to_something_else(
    client, model, encoded
):
    drawn = client.images.generate(prompt="a dog", extra_body={"seed": 9}).data[0].b64_json
    mask = Image.new("RGBA", (32, 32), "black")
    mask.paste((0, 0, 0, 0), (0, 0, 16, 16))
    options = {"prompt": "a cat", "mask": saved(mask), "extra_body": {"seed": 4}}
    edited = client.images.edit(image=saved(opened(drawn), compress_level=0), **options)
    assert encoded == []
    assert opened(edited.data[0].b64_json).size == (32, 32)


def image(value):
    return CodedImage(PictureInMemory(Image.new("RGB", (4, 4), (value, 0, 0))), torch.tensor([value]))


def test_the_same_pixels_are_recognised_in_any_file_and_others_are_not():
    drawn = DrawnImages()
    drawn.add(image(7))
    same, other = Image.new("RGB", (4, 4), (7, 0, 0)), Image.new("RGB", (4, 4), (8, 0, 0))
    for data in (saved(same), saved(same, "webp", lossless=True), saved(same.convert("RGBA"))):
        assert drawn.recognise(PictureBytes(data)).codes.item() == 7
    for data in (saved(other), saved(same.resize((8, 8)))):
        assert not isinstance(drawn.recognise(PictureBytes(data)), CodedImage)


def test_the_one_that_was_met_longest_ago_is_forgotten():
    drawn = DrawnImages(most=2)
    for value in (1, 2):
        drawn.add(image(value))
    drawn.recognise(image(1).image)
    drawn.add(image(3))
    known = [isinstance(drawn.recognise(image(value).image), CodedImage) for value in (1, 2, 3)]
    assert known == [True, False, True]


def test_base64_of_a_reply_is_what_is_recognised(client, encoded):
    drawn = client.images.generate(prompt="a dog", extra_body={"seed": 9}).data[0].b64_json
    again = base64.b64encode(saved(opened(drawn))).decode()
    messages = [*said("Draw."), {"role": "assistant", "images": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + each}} for each in (drawn, again)
    ]}, *said("And now?")]  # fmt: skip
    client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)
    assert encoded == []
