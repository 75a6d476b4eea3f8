"""What the clients of a server say and see."""

import base64
import http.client
import io
import json

from PIL import Image

from chiasm.serving.app import Limits

KEY = "a key"
LIMITS = Limits(pending=8, body=1 << 20, images=3, pixels=1 << 20, seconds=2)


def post(address, path, body, **headers):
    """Status and JSON of a reply to a body as it is."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **headers}
    connection.request("POST", path, body if isinstance(body, bytes | str) else json.dumps(body), headers)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def said(text):
    return [{"role": "user", "content": text}]


def data_url(image="red", size=(32, 32)):
    """Of an image, or of one color."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.new("RGB", size, image)).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def opened(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2] or url)))


def showing(*urls, text="What is this?"):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
