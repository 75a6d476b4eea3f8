"""`/v1/images/edits`, as OpenAI's client and forms by hand meet it."""

import io

import pytest
from PIL import Image

from clients import data_url, opened, post


def png(image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


IMAGE = Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 20).convert("RGB")
MASK = Image.new("RGBA", (32, 32), (0, 0, 0, 255))
MASK.paste((0, 0, 0, 0), (16, 0, 32, 32))


def test_an_edit_under_a_mask_is_the_models_own(client, model):
    reply = client.images.edit(
        image=png(IMAGE), mask=png(MASK), prompt="a dog", n=2, extra_body={"seed": 5, "top_k": 3}
    )
    expected = model.edit(IMAGE, "a dog", mask=MASK, count=2, seed=5, top_k=3)
    assert [opened(each.b64_json).tobytes() for each in reply.data] == [each.tobytes() for each in expected]
    assert [each.seed for each in reply.data] == [5, 6]
    assert reply.usage.input_tokens_details.image_tokens == 0


def test_without_a_mask_several_images_are_read(client, model):
    images = [IMAGE, Image.new("RGB", (32, 32), "red")]
    reply = client.images.edit(image=[png(each) for each in images], prompt="as one", extra_body={"seed": 2})
    (expected,) = model.edit(images, "as one", seed=2)
    assert opened(reply.data[0].b64_json).tobytes() == expected.tobytes()
    assert reply.usage.input_tokens_details.image_tokens == 2 * 16


def test_a_stream_shows_from_the_first_what_stays(client, model):
    events = list(
        client.images.edit(
            image=png(IMAGE),
            mask=png(MASK),
            prompt="a dog",
            stream=True,
            partial_images=1,
            extra_body={"seed": 5},
        )
    )
    assert [each.type for each in events] == ["image_edit.partial_image", "image_edit.completed"]
    whole = opened(events[-1].b64_json)
    assert whole.tobytes() == model.edit(IMAGE, "a dog", mask=MASK, seed=5)[0].tobytes()
    first = opened(events[0].b64_json).crop((0, 0, 16, 32)).getcolors(1024)
    assert (128, 128, 128) not in [color for _, color in first]


def test_images_may_come_as_json(address, model):
    body = {"images": [{"image_url": data_url()}], "mask": {"image_url": data_url(MASK)}, "prompt": "a dog"}
    status, reply = post(address, "/v1/images/edits", {**body, "seed": 1})
    assert status == 200
    (expected,) = model.edit(Image.new("RGB", (32, 32), "red"), "a dog", mask=MASK, seed=1)
    assert opened(reply["data"][0]["b64_json"]).tobytes() == expected.tobytes()


FILE = ("image.png", png(IMAGE), "image/png")
TWO = Image.new("RGBA", (16, 16))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ([("prompt", "a dog")], "image"),
        ([("image", FILE)], "prompt"),
        ([("image", FILE), ("prompt", "a dog"), ("input_fidelity", "high")], "input_fidelity"),
        ([("image", FILE), ("prompt", "a dog"), ("n", "many")], "n"),
        ([("image", FILE), ("prompt", "a dog"), ("prompt", "a cat")], "prompt"),
        ([("image", FILE), ("prompt", FILE)], "prompt"),
        ([("image", "image.png"), ("prompt", "a dog")], "image"),
        ([("image", FILE), ("mask", "mask.png"), ("prompt", "a dog")], "mask"),
        ([("image", FILE), ("mask", FILE), ("prompt", "a dog")], "mask"),
        ([("image", FILE), ("mask", ("m.png", png(TWO), "image/png")), ("prompt", "a dog")], "mask"),
        ([("image", FILE)] * 2 + [("mask", ("m.png", png(MASK), "image/png")), ("prompt", "a dog")], "mask"),
        ([("image", FILE)] * 4 + [("prompt", "a dog")], "images[3]"),
        ([("image", ("image.png", b"none", "image/png")), ("prompt", "a dog")], "images[0]"),
    ],
)
def test_what_cannot_be_edited_is_refused_by_name(address, fields, named):
    body, kind = form(fields)
    status, reply = post(address, "/v1/images/edits", body, **{"content-type": kind})
    assert status == 400
    assert reply["error"]["message"].startswith(named)
    assert reply["error"]["param"] == named.replace("[", ".").replace("]", "")


@pytest.mark.parametrize("end", [9, 40, 120])
def test_a_form_that_is_cut_off_loses_no_mask_in_silence(address, end):
    fields = [("image", FILE), ("prompt", "a dog"), ("mask", ("m.png", png(MASK), "image/png"))]
    body, kind = form(fields)
    status, reply = post(address, "/v1/images/edits", body[:-end], **{"content-type": kind})
    assert (status, "is cut off" in reply["error"]["message"]) == (400, True), reply


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "multipart/form-data; boundary=", ""])
def test_a_body_of_another_kind_is_a_sentence(address, kind):
    status, reply = post(address, "/v1/images/edits", b"--x\r\nimage", **{"content-type": kind})
    assert status in (400, 415)
    assert reply["error"]["message"]


def form(fields):
    parts = []
    for name, value in fields:
        file, data, kind = (None, value.encode(), None) if isinstance(value, str) else value
        head = f'--edge\r\ncontent-disposition: form-data; name="{name}"'
        head += f'; filename="{file}"\r\ncontent-type: {kind}' if file else ""
        parts.append(head.encode() + b"\r\n\r\n" + data + b"\r\n")
    return b"".join(parts) + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def test_what_guidance_leads_away_from_may_be_given(client, model):
    extra = {"seed": 5, "guidance_scale": 4.0, "negative_prompt": "a cat"}
    reply = client.images.edit(image=png(IMAGE), prompt="a dog", extra_body=extra)
    (expected,) = model.edit(IMAGE, "a dog", seed=5, guidance=4.0, negative="a cat")
    assert opened(reply.data[0].b64_json).tobytes() == expected.tobytes()
    reply = client.images.generate(prompt="a dog", model="tiny", extra_body=extra)
    (expected,) = model.generate("a dog", seed=5, guidance=4.0, negative="a cat")
    assert opened(reply.data[0].b64_json).tobytes() == expected.tobytes()
