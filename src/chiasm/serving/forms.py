"""Requests that come as forms with files in them: the same fields as in JSON, each image a data URL."""

from __future__ import annotations

import base64
import json
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from chiasm.errors import ChiasmError
from chiasm.serving.schema import EditsRequest

MOST_FIELDS = 64
FORM, JSON = "multipart/form-data", "application/json"
# What the page of the interface says of such a body.
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["image", "prompt"],
                    "description": "fields as in JSON, but `image` (may be given again) and `mask` are files",
                }
            },
            JSON: {"schema": EditsRequest.model_json_schema(ref_template="#/components/schemas/{model}")},
        },
    }
}


async def edits_body(request: Request) -> EditsRequest:
    """Raises ChiasmError, or RequestValidationError naming the field, for a body that is no such request."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        await request.body()  # which the form is read from, and then looked at whole
        async with request.form(max_files=MOST_FIELDS, max_fields=MOST_FIELDS) as form:
            _check_end(await request.body(), request.headers["content-type"])
            fields = await _fields(form.multi_items())
    elif kind == JSON:
        fields = await _json(request)
    else:
        raise HTTPException(415, f"the body must be {FORM} or {JSON}, not {kind or 'of no type'}")
    try:
        return EditsRequest.model_validate(fields, strict=kind == JSON)
    except ValidationError as error:
        raise RequestValidationError(error.errors(), body=fields) from None


def _check_end(body: bytes, kind: str) -> None:
    """Raise ChiasmError for a form that is cut off: its last field would be left out."""
    boundary = parse_options_header(kind)[1][b"boundary"]
    if not body.rstrip(b"\r\n").endswith(b"--" + boundary + b"--"):
        raise ChiasmError("the body is cut off: a form ends with its boundary and two hyphens")


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except json.JSONDecodeError as error:
        raise ChiasmError(f"the body is no JSON: {error.msg}") from None


async def _fields(items: list[tuple[str, UploadFile | str]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    images: list[dict[str, str]] = []
    for name, value in items:
        image = name in ("image", "image[]")
        if isinstance(value, UploadFile) is not (image or name == "mask"):
            wanted = "a text" if isinstance(value, UploadFile) else "a file"
            raise ChiasmError.of(name, f"it must be {wanted} in a form")
        if name in fields:
            raise ChiasmError.of(name, "it is there twice")
        if not isinstance(value, UploadFile):
            fields[name] = value
        elif image:
            images.append(await _reference(value))
        else:
            fields[name] = await _reference(value)
    if not images:
        raise ChiasmError.of("image", "there is none to edit")
    if "images" in fields:
        raise ChiasmError.of("images", "in a form they are files, each under the name image")
    return {**fields, "images": images}


async def _reference(file: UploadFile) -> dict[str, str]:
    return {"image_url": "data:image/png;base64," + base64.b64encode(await file.read()).decode("ascii")}
