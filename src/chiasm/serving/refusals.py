"""Errors as replies: a status, and OpenAI's shape of a body that says what is wrong and where."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from chiasm.errors import TOO_LONG, ChiasmError, DataError
from chiasm.recipe.problems import complaint, furthest
from chiasm.serving.guards import error_body
from chiasm.serving.worker import Full, Stopped

INVALID = "invalid_request_error"
MISSING = "it is required"


class UnknownModel(ChiasmError):
    """A request names a model that is not served."""

    field = "model"


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


def handle_errors(app: FastAPI) -> None:
    """Have the application answer every error with a sentence."""
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(ChiasmError)(_refused)
    app.exception_handler(ClientLeft)(_left_alone)


def reply_to(error: ChiasmError) -> tuple[int, dict[str, Any]]:
    """Status and body of the reply to a request that an error has ended."""
    status, kind, code = _kind_of(error)
    return status, error_body(str(error), kind, param=param_of(error), code=code)


def _kind_of(error: ChiasmError) -> tuple[int, str, str | None]:
    """Status, type and code of an error."""
    if isinstance(error, UnknownModel):
        return 404, INVALID, "model_not_found"
    if isinstance(error, Full):
        return 429, "rate_limit_error", "too_many_requests"
    if isinstance(error, Stopped):
        return 503, "server_error", "stopping"
    if isinstance(error, DataError) and error.kind == TOO_LONG:
        return 400, INVALID, "context_length_exceeded"
    return 400, INVALID, None


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ChiasmError)
    status, body = reply_to(error)
    headers = {"retry-after": "1"} if status == 429 else None
    return JSONResponse(body, status, headers)


def param_of(error: ChiasmError) -> str | None:
    """The field that is wrong as a path of names, as pydantic's errors have it: `messages.0.content.1`."""
    return None if error.field is None else error.field.replace("[", ".").replace("]", "")


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [{**each, "loc": _within(each["loc"])} for each in error.errors()]
    place, (problem, *others) = furthest(problems, error.body)
    kind = problem["type"]
    if kind == "extra_forbidden":
        message = "this server cannot honour it; leave it out"
    elif kind == "json_invalid":
        place, message = [], f"the body is no JSON: {problem['ctx']['error']}"
    elif kind == "union_tag_invalid":
        place, message = [*place, "type"], f"it must be one of {problem['ctx']['expected_tags']}"
    elif kind == "union_tag_not_found":
        place, message = [*place, "type"], MISSING
    elif kind == "missing" and place:
        message = MISSING
    elif not place:
        message = "the body must be an object of JSON, sent as application/json"
    else:
        message = complaint([problem, *others])
    param = ".".join(place) or None
    return JSONResponse(error_body(f"{param}: {message}" if param else message, INVALID, param=param), 400)


def _within(place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A place in the body."""
    return place[1:] if place[:1] == ("body",) else place


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(error_body(message, INVALID), error.status_code, error.headers)


async def _left_alone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
