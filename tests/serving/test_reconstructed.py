"""What the image tokenizer makes of a client's image."""

import base64

from chiasm.data.files import PictureBytes
from chiasm.inference.reconstruction import reconstruct
from clients import data_url, opened, post


def test_a_client_sees_the_codes_and_the_image_that_they_make(address, model):
    url = data_url("red")
    status, reply = post(
        address, "/v1/images/reconstructions", {"model": "tiny", "image": {"image_url": url}}
    )
    assert status == 200
    own = reconstruct(model, PictureBytes(base64.b64decode(url.partition(",")[2])))
    assert reply["codes"] == own.target.tolist()
    assert reply["different_codes"] == len(set(own.target.flatten().tolist()))
    (only,) = reply["data"]
    assert opened(only["b64_json"]).tobytes() == own.decoded[0].image.tobytes()
    assert only["positions"] == 4


def test_what_is_no_image_or_no_field_is_refused(address):
    for change in ({"image": {"image_url": "data:image/png;base64,AAAA"}}, {"scale": 3}, {"image": None}):
        body = {"model": "tiny", "image": {"image_url": data_url()}, **change}
        status, reply = post(address, "/v1/images/reconstructions", body)
        assert status == 400
        assert next(iter(change)) in reply["error"]["message"]
