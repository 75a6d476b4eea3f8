"""Bodies of JSON, in whose objects no key stands twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from chiasm.storage import safe_json


class JSONRequest(Request):
    async def json(self) -> Any:
        """The body's value; raises JSONDecodeError for whatever is wrong with it."""
        if not hasattr(self, "_json"):
            try:
                self._json = safe_json.parse(await self.body(), safe_json.each_key_once)
            except json.JSONDecodeError:
                raise
            except ValueError as error:
                raise json.JSONDecodeError(str(error), "", 0) from None
        return self._json


class JSONRoute(APIRoute):
    """A route whose requests are read so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            return await handle(JSONRequest(request.scope, request.receive))

        return handled
